"""Sprites, step 1 of 5: the small autoencoder (32x32 pixels -> 8x8 latents).

videobooth train --config=configs/sprites_autoencoder.py --workdir=workdir/autoencoder
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "sprites_autoencoder"
    config.task = "autoencoder"
    config.trainable = ("vae",)
    config.model.vae.scaling_factor = 1.0
    config.steps = 2500
    config.ema_decay = 0.999
    config.data.batch_size = 8
    config.data.num_frames = 1
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 1.0
    return config

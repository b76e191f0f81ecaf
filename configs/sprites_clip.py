"""Sprites, step 2 of 5: the text and image towers, contrastively.

    videobooth train --config=configs/sprites_clip.py --workdir=workdir/clip \\
        --config.init_from=workdir/autoencoder/model
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "sprites_clip"
    config.task = "clip"
    config.trainable = ("text_encoder", "vision_encoder", "contrastive_head")
    config.steps = 2000
    config.ema_decay = 0.999
    config.data.batch_size = 128
    config.data.num_frames = 1
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0
    return config

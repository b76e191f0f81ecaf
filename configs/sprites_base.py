"""Sprites, step 3 of 5: text-to-video without a picture; first on single frames, then on clips.

    videobooth train --config=configs/sprites_base.py --workdir=workdir/base \\
        --config.init_from=workdir/clip/model

For the single-frame start add ``--config.data.num_frames=1 --config.data.batch_size=64
--config.optimizer.learning_rate=1.5e-3``.
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "sprites_base"
    config.trainable = ("unet", "temporal")
    config.steps = 3000
    config.ema_decay = 0.999
    config.data.batch_size = 16
    config.data.num_frames = 8
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 30
    config.optimizer.clip_norm = 1.0
    config.objective.kv = "plain"
    config.objective.words = False
    config.objective.exemplar = False
    config.objective.respacing = ""
    config.objective.sample_posterior = False
    return config

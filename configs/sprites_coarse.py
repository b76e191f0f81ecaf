"""Sprites, step 4 of 5, the paper's stage 1 (coarse): image words replace the subject's word.

    videobooth train --config=configs/sprites_coarse.py --workdir=workdir/coarse \\
        --config.init_from=workdir/base/model
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "sprites_coarse"
    config.trainable = ("projector", "text_kv")
    config.copies = ("text_kv",)
    config.steps = 1500
    config.ema_decay = 0.999
    config.data.batch_size = 16
    config.data.num_frames = 8
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 30
    config.optimizer.clip_norm = 1.0
    config.objective.kv = "coarse"
    config.objective.exemplar = False
    config.objective.respacing = ""
    config.objective.sample_posterior = False
    config.objective.dropped_exemplar = "none"
    return config

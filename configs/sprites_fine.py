"""Sprites, step 5 of 5, the paper's stage 2 (fine).

The picture's own keys and values join the frame attention.

    videobooth train --config=configs/sprites_fine.py --workdir=workdir/fine \\
        --config.init_from=workdir/coarse/model

The paper trains the projections alone above a frozen base; here all of the UNet learns, see
docs/training.md. For the paper's choice add
``--config.trainable="('projector','text_kv','frame_kv')"``.
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "sprites_fine"
    config.trainable = ("projector", "text_kv", "frame_kv", "unet", "temporal")
    config.copies = ("frame_kv",)
    config.steps = 4000
    config.ema_decay = 0.999
    config.data.batch_size = 16
    config.data.num_frames = 8
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 30
    config.optimizer.clip_norm = 1.0
    config.objective.respacing = ""
    config.objective.sample_posterior = False
    config.objective.dropped_exemplar = "none"
    return config

"""Your own videos, stage 2 (fine), at the sprites' size; after `clips_coarse.py`.

    videobooth train --config=configs/clips_fine.py --workdir=workdir/fine \\
        --config.data.path=DATA --config.init_from=workdir/coarse/model
    videobooth generate --model workdir/fine/model --image ...
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "clips_fine"
    config.trainable = ("projector", "text_kv", "frame_kv", "unet", "temporal")
    config.steps = 500
    config.ema_decay = 0.99
    config.checkpoint_every = 100
    config.data.source = "clips"
    config.data.augment = "fine"
    config.data.batch_size = 8
    config.data.num_frames = 8
    config.data.worker_count = 1
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.clip_norm = 1.0
    config.objective.respacing = ""
    config.objective.sample_posterior = False
    config.objective.dropped_exemplar = "none"
    return config

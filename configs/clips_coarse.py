"""Your own videos, stage 1 (coarse), at the sprites' size: 32 px, 8 frames, minutes on a CPU.

    videobooth prepare ... --out DATA
    videobooth train --config=configs/clips_coarse.py --workdir=workdir/coarse \\
        --config.data.path=DATA --config.init_from=videobooth_jax/assets/models/sprites

Several datasets are mixed by ``--config.data.paths="('A','B')"`` and, where their sizes are not to
decide, ``--config.data.weights="(3.0,1.0)"``. A dataset that fits the full-size model trains it by
``configs/videobooth_coarse.py``.
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sprites")
    config.name = "clips_coarse"
    config.trainable = ("projector", "text_kv")
    config.steps = 500
    config.ema_decay = 0.99
    config.checkpoint_every = 100
    config.data.source = "clips"
    config.data.augment = "coarse"
    config.data.batch_size = 8
    config.data.num_frames = 8
    config.data.worker_count = 1
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.clip_norm = 1.0
    config.objective.kv = "coarse"
    config.objective.exemplar = False
    config.objective.respacing = ""
    config.objective.sample_posterior = False
    config.objective.dropped_exemplar = "none"
    return config

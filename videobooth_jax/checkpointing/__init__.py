"""Weights and training states on disk.

A *model directory* is what is shipped, converted and sampled from (`save_model`, `load_model`);
*train checkpoints* are what a run resumes from (`TrainCheckpoints`). Both are Orbax trees sealed by
a manifest of file sizes and digests, so that an unfinished or damaged one is noticed and named
before it is used. Only `arrays` imports Orbax.
"""

from videobooth_jax.checkpointing.manifest import DamagedError
from videobooth_jax.checkpointing.model_directory import (
    ModelDirectoryError,
    check_target,
    load_config,
    load_model,
    save_model,
)
from videobooth_jax.checkpointing.train_checkpoints import (
    CheckpointError,
    SaveError,
    TrainCheckpoints,
)

__all__ = [
    "CheckpointError",
    "DamagedError",
    "ModelDirectoryError",
    "SaveError",
    "TrainCheckpoints",
    "check_target",
    "load_config",
    "load_model",
    "save_model",
]

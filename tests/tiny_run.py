"""A training run small enough for a test, on the model of `tiny_model`."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict
from tiny_model import TOKENIZER_FILE, random_params, tiny_config

from videobooth_jax.checkpointing import save_model
from videobooth_jax.models.videobooth import VideoBoothConfig, config_to_dict
from videobooth_jax.training.config import TrainConfig, default_config, from_config_dict


def run_model(**settings) -> VideoBoothConfig:
    """The tiny model with a contrastive head and, unless told otherwise, a clean exemplar."""
    settings = {"exemplar_timestep": "zero", "exemplar_mode": "single"} | settings
    return dataclasses.replace(tiny_config(**settings), contrastive_dim=4, num_frames=2)


def write_start(path: Path, **settings) -> Path:
    """A model directory with random weights, to start from without compiling initialisers."""
    config = run_model(**settings)
    save_model(path, config, random_params(config), tokenizer_file=TOKENIZER_FILE)
    return path


def run_config(start: Path, model: VideoBoothConfig | None = None, **overrides) -> TrainConfig:
    """`config_dict` as the frozen dataclass."""
    return from_config_dict(config_dict(start, model, **overrides))


def config_dict(start: Path, model: VideoBoothConfig | None = None, **overrides) -> ConfigDict:
    """Four steps of the fine phase from ``start``, with fields overridden by their dotted names."""
    config = default_config("sprites")
    with config.unlocked():
        config.model = config_to_dict(model or run_model())
    config.name = "tiny"
    config.init_from = str(start)
    config.trainable = ("projector", "text_kv", "frame_kv")
    config.copies = ("frame_kv",)
    config.steps = 4
    config.log_every = 1
    config.checkpoint_every = 2
    config.mesh.data = 1
    config.data.batch_size = 2
    config.data.num_frames = 2
    config.objective.respacing = ""
    config.objective.dropped_exemplar = "none"
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(overrides)
    return config

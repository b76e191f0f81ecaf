"""Configs, read as the command reads them.

Defaults are the published trainers', overrides reach the dataclass, mistakes are named.
"""

import importlib.util
from pathlib import Path

import pytest

from videobooth_jax.config_files import read_config
from videobooth_jax.training.config import default_config, from_config_dict

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_becomes_a_run_named_like_its_file(path):
    assert from_config_dict(load(path)).name == path.stem


def test_full_size_stages_are_the_published_ones():
    fine = from_config_dict(load(CONFIGS[0].with_name("videobooth_fine.py")))
    assert (fine.optimizer.learning_rate, fine.optimizer.clip_norm) == (1e-4, 0.1)
    assert (fine.data.batch_size, fine.data.num_frames, fine.ema_decay) == (16, 16, 0.9999)
    assert fine.objective.drop_probability == 0.1
    assert fine.objective.embedding_l1_weight == 0.01
    assert fine.objective.respacing == "250"


def test_model_sizes_can_be_overridden():
    config = default_config("sprites")
    config.model.unet.num_heads = 2
    assert from_config_dict(config).model.unet.num_heads == 2


def test_fields_without_a_default_value_can_be_set_from_the_command_line():
    path = CONFIGS[0].with_name("sprites_fine.py")
    settings = ["--config.model.diffusion.guided_channels=3", "--config.model.subject_share=0.5"]
    config = from_config_dict(read_config(str(path), settings))
    assert config.model.diffusion.guided_channels == 3
    assert config.model.subject_share == 0.5
    assert from_config_dict(read_config(str(path), ())).model.unet.watermark_channels is None


def test_unknown_key_is_named():
    config = default_config("sprites")
    with config.unlocked():
        config.optimizer.lerning_rate = 1.0
    with pytest.raises(ValueError, match="lerning_rate"):
        from_config_dict(config)


def test_value_outside_the_choices_is_named():
    config = default_config("sprites")
    config.task = "juggling"
    with pytest.raises(ValueError, match="juggling"):
        from_config_dict(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("num_frames", 0), ("window", 0), ("worker_count", -1), ("read_ahead", 0)],
)
def test_numbers_that_cannot_be_meant_are_refused(name, value):
    path = CONFIGS[0].with_name("clips_coarse.py")
    with pytest.raises(ValueError, match=f"data.{name} must be at least"):
        from_config_dict(read_config(str(path), [f"--config.data.{name}={value}"]))

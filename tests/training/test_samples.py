"""Sample grids: pictures of the right examples, made as the pipeline would make them."""

import dataclasses

import numpy as np
import pytest
from tiny_model import random_params
from tiny_run import run_config, run_model, write_start

from videobooth_jax.training import loop, run, samples
from videobooth_jax.training.data import open_training_data

GAP = 4


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def batch(start):
    config = run_config(start)
    return next(open_training_data(config.data, config.model))


def cells(picture, frames):
    """(rows, frames, 16, 16, 3) of a sheet of 16 x 16 pixel frames."""
    side = 16 + GAP
    rows = picture.shape[0] // side
    inner = picture[GAP:, GAP:].reshape(rows, side, frames, side, 3)
    return inner.transpose(0, 2, 1, 3, 4)[:, :, :16, :16]


def test_videos_stand_below_the_true_ones_and_follow_the_picture(start, batch):
    config = run_config(start)
    params = random_params(config.model)
    first = cells(samples.sample_grid(config, params, batch), frames=3)
    assert first.shape[0] == 4
    assert (first[1::2, 0] == 255).all()  # no image prompt beside what was made
    other = batch | {
        "vae_image": batch["vae_image"][::-1].copy(),
        "clip_image": batch["clip_image"][::-1].copy(),
    }
    second = cells(samples.sample_grid(config, params, other), frames=3)
    np.testing.assert_array_equal(first[::2, 1:], second[::2, 1:])
    assert (first[1::2, 1:] != second[1::2, 1:]).any()


def test_text_to_video_ignores_the_picture(start, batch):
    text = {"objective.words": False, "objective.exemplar": False, "objective.kv": "plain"}
    config = run_config(start, **text)
    params = random_params(config.model)
    swapped = batch | {"clip_image": batch["clip_image"][::-1].copy()}
    np.testing.assert_array_equal(
        samples.sample_grid(config, params, batch), samples.sample_grid(config, params, swapped)
    )


def test_an_autoencoder_shows_reconstructions_and_clip_nothing(start, batch):
    config = run_config(start, task="autoencoder", trainable=("vae",))
    params = random_params(config.model)
    grid = cells(samples.sample_grid(config, params, batch), frames=3)
    np.testing.assert_array_equal(grid[::2, 1:], batch["video"])
    assert samples.sample_grid(dataclasses.replace(config, task="clip"), params, batch) is None


@pytest.mark.slow
def test_a_stop_is_heard_between_sampling_steps(start, batch):
    config = run_config(start)
    asked = iter([False, True])
    params = random_params(config.model)
    assert samples.sample_grid(config, params, batch, lambda: next(asked)) is None


@pytest.mark.slow
def test_the_loop_writes_them_on_its_way(start, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        run, "sample_grid", lambda config, params, batch, stopped: seen.append(batch["ids"].shape)
    )
    config = run_config(start, sample_every=2, model=run_model())
    loop.train(config, tmp_path)
    assert seen == [(2, 32)] * 2

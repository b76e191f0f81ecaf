"""Latents written once are what the autoencoder gives, and a training run takes them."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from tiny_model import TOKENIZER_FILE
from tiny_run import run_config, run_model, write_start

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.batches import BatchConfig, batches
from videobooth_jax.data.latents import LatentsSource
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.precompute import fingerprint, precompute_latents
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.train_step import make_loss


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precompute")
    config, params = load_model(write_start(folder / "model"))
    source = SpritesSource(SpritesConfig(resolution=config.height, num_frames=2))
    shape = BatchConfig(batch_size=2, clip_size=16, vae_size=config.height, shuffle=False)
    stream = batches(source, Tokenizer.from_file(TOKENIZER_FILE), shape)
    pixels = list(itertools.islice(stream, 2))
    out = precompute_latents(config, params, pixels, 3, folder / "latents", TOKENIZER_FILE)
    return config, params, pixels, out


def batch_and_loss(folder, dropped_exemplar="zeros"):
    """A batch of a folder, and the published fine objective: half of the rows dropped."""
    config = run_config(
        folder,
        run_model(exemplar_timestep="same", exemplar_mode="replicated"),
        **{
            "data.source": "latents",
            "data.path": str(folder),
            "objective.dropped_exemplar": dropped_exemplar,
            "objective.drop_probability": 0.5,
        },
    )
    loss = make_loss(config)

    def evaluate(params, batch, key):
        return loss.evaluate(params, batch, loss.draw(batch, key))

    return next(open_training_data(config.data, config.model)), evaluate


def test_rows_are_scaled_posterior_means(written):
    config, params, pixels, out = written
    source = LatentsSource(out, num_frames=2)
    assert len(source) == 3
    model = VideoBooth(config)
    video, _ = model.apply({"params": params}, pixels[0]["video"], method="encode")
    image, _ = model.apply({"params": params}, pixels[0]["vae_image"], method="encode")
    np.testing.assert_allclose(source[1]["latents"], video[1], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(source[1]["exemplar_latents"][0], image[1], rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(source[2]["ids"], pixels[1]["ids"][0])


def test_the_manifest_names_the_weights(written):
    _, params, _, out = written
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest == {"count": 3, "autoencoder": fingerprint(params["vae"])}


def test_training_reads_them_and_goes_on_at_a_saved_position(written):
    out = written[-1]
    config = run_config(out, **{"data.source": "latents", "data.path": str(out)})
    data = open_training_data(config.data, config.model)
    next(data)
    position = data.position()
    expected = next(data)
    data = open_training_data(config.data, config.model)
    data.set_position(position)
    np.testing.assert_array_equal(next(data)["latents"], expected["latents"])


def test_dropped_rows_find_the_latents_of_zeros(written):
    config, params, pixels, out = written
    zeros = np.zeros_like(pixels[0]["vae_image"][:1])
    expected, _ = VideoBooth(config).apply({"params": params}, zeros, method="encode")
    source = LatentsSource(out, num_frames=2)
    np.testing.assert_allclose(source.zero_exemplar[0], expected, rtol=2e-3, atol=2e-3)
    batch, loss = batch_and_loss(out)
    assert np.isfinite(jax.jit(loss)(params, batch, jax.random.key(0))[0])


def test_latents_stored_without_zeros_are_refused_where_dropped_rows_need_them(written, tmp_path):
    _, params, _, out = written
    old = tmp_path / "old"
    shutil.copytree(out, old)
    (old / "zero_exemplar.npy").unlink()
    batch, loss = batch_and_loss(old)
    with pytest.raises(ValueError, match="run precompute again"):
        jax.eval_shape(loss, params, batch, jax.random.key(0))
    batch, loss = batch_and_loss(old, dropped_exemplar="none")
    jax.eval_shape(loss, params, batch, jax.random.key(0))


def test_an_existing_folder_is_left_alone(written):
    config, params, pixels, out = written
    with pytest.raises(FileExistsError, match="choose another"):
        precompute_latents(config, params, pixels, 1, out, TOKENIZER_FILE)


def test_data_that_ends_early_leaves_nothing_finished(written, tmp_path):
    config, params, pixels, _ = written
    with pytest.raises(ValueError, match="ended after 4 of 9"):
        precompute_latents(config, params, pixels, 9, tmp_path / "out", TOKENIZER_FILE)
    assert not (tmp_path / "out").exists()


def test_too_many_frames_are_refused(written):
    with pytest.raises(ValueError, match="stores 2 frames"):
        LatentsSource(written[-1], num_frames=3)


def test_an_unfinished_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run precompute first"):
        LatentsSource(tmp_path, num_frames=1)

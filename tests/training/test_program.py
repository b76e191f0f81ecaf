"""What a program is told about its batches, without data, is what the data give."""

import itertools

import jax
import pytest
from tiny_model import TOKENIZER_FILE
from tiny_run import run_config, write_start

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.batches import BatchConfig, batches
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.precompute import precompute_latents
from videobooth_jax.sharding import batch_shardings, make_mesh
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.program import abstract_batch


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    config, params = load_model(write_start(folder / "model"))
    source = SpritesSource(SpritesConfig(resolution=config.height, num_frames=2))
    shape = BatchConfig(batch_size=2, clip_size=16, vae_size=config.height)
    stream = batches(source, Tokenizer.from_file(TOKENIZER_FILE), shape)
    pixels = itertools.islice(stream, 1)
    return precompute_latents(config, params, pixels, 2, folder / "latents", TOKENIZER_FILE)


@pytest.mark.parametrize("source", ["sprites", "latents"])
@pytest.mark.parametrize("frames", [1, 2])
def test_shapes_dtypes_and_places_are_those_of_the_data(latents, source, frames):
    options = {"data.source": source, "data.path": str(latents), "data.num_frames": frames}
    config = run_config(latents, **options, **{"mesh.data": 2})
    mesh = make_mesh(config.mesh)
    batch = next(open_training_data(config.data, config.model))
    places = batch_shardings(mesh, batch)
    assert abstract_batch(config, mesh) == {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=places[name])
        for name, value in batch.items()
    }

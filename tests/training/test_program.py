"""What a program is told about its batches, without data, is what the data give."""

import jax
import pytest
from tiny_clips import record, write_dataset
from tiny_run import run_config, write_start

from videobooth_jax.precompute.writing import PrecomputeConfig, precompute
from videobooth_jax.sharding import batch_shardings, make_mesh
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.program import abstract_batch


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The model to start from, and what each source reads."""
    folder = tmp_path_factory.mktemp("shapes")
    start = write_start(folder / "model")
    asked = PrecomputeConfig(
        num_frames=2, count=2, batch_size=2, shard_size=2, vision_features=True
    )
    precompute(start, folder / "latents", asked)
    clips = write_dataset(folder / "clips", [record(0), record(1)])
    return start, {"sprites": "", "clips": str(clips), "latents": str(folder / "latents")}


@pytest.mark.parametrize(
    ("source", "features"),
    [("sprites", False), ("clips", False), ("latents", False), ("latents", True)],
)
@pytest.mark.parametrize("frames", [1, 2])
def test_shapes_dtypes_and_places_are_those_of_the_data(folders, source, features, frames):
    start, paths = folders
    options = {
        "data.source": source,
        "data.path": paths[source],
        "data.num_frames": frames,
        "data.vision_features": features,
    }
    config = run_config(start, **options, **{"mesh.data": 2})
    mesh = make_mesh(config.mesh)
    batch = next(open_training_data(config.data, config.model, None, config.init_from))
    places = batch_shardings(mesh, batch)
    assert abstract_batch(config, mesh) == {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=places[name])
        for name, value in batch.items()
    }

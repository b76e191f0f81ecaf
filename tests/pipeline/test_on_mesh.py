"""Videos made on a mesh are the ones made on one device."""

import dataclasses

import numpy as np
import pytest
from tiny_model import TOKENIZER_FILE, picture, random_params, tiny_config

from videobooth_jax.checkpointing import save_model
from videobooth_jax.pipeline import VideoBoothPipeline
from videobooth_jax.pipeline.on_mesh import plan_on, rows_at_once
from videobooth_jax.pipeline.requests import make_plan
from videobooth_jax.sharding import MeshSizes, make_mesh

MESHES = [
    MeshSizes(data=4),
    MeshSizes(data=1, fsdp=4),
    MeshSizes(data=1, tensor=2),
    MeshSizes(data=1, frames=2),
    MeshSizes(data=2, fsdp=2, frames=2),
    MeshSizes(data=2, frames=2, tensor=2),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of four frames, whose pictures matter."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    config = dataclasses.replace(tiny_config(), num_frames=4)
    save_model(path, config, random_params(config), tokenizer_file=TOKENIZER_FILE)
    return path


def videos(model, mesh):
    pipe = VideoBoothPipeline.from_pretrained(model, mesh=mesh)
    made = pipe(
        ["a cat moving left over a meadow", "a dog moving up over the sea"],
        [picture(200), picture(40)],
        ["cat", "dog"],
        seed=3,
        progress=lambda done, total: None,
        num_inference_steps=2,
    )
    return made.frames.astype(int)


@pytest.fixture(scope="module")
def alone(model):
    return videos(model, None)


@pytest.mark.parametrize("sizes", MESHES[4:5], ids=str)
def test_three_axes_at_once(model, alone, sizes):
    check(videos(model, make_mesh(sizes)), alone)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [*MESHES[:4], MESHES[5]], ids=str)
def test_each_axis(model, alone, sizes):
    check(videos(model, make_mesh(sizes)), alone)


def check(found, wanted):
    """The same levels but for rounding."""
    assert found.shape == wanted.shape == (2, 4, 16, 16, 3)
    assert np.abs(wanted[0] - wanted[1]).mean() > 1  # two subjects, two videos
    assert np.abs(found - wanted).max() <= 1
    assert (found == wanted).mean() > 0.99


def test_batches_are_what_the_mesh_splits_evenly():
    assert rows_at_once(None, 3) == 3
    assert rows_at_once(make_mesh(MeshSizes(data=2, fsdp=2)), 5) == 8
    assert rows_at_once(make_mesh(MeshSizes(data=2, frames=2)), 5) == 2


def test_where_frames_are_split_the_branches_go_apart():
    plan, _ = make_plan(dataclasses.replace(tiny_config(), num_frames=4), {})
    assert plan_on(None, plan).branches == "together"
    assert plan_on(make_mesh(MeshSizes(data=8)), plan).branches == "together"
    assert plan_on(make_mesh(MeshSizes(data=2, frames=4)), plan).branches == "apart"
    with pytest.raises(ValueError, match="4 frames cannot be split evenly over 8"):
        plan_on(make_mesh(MeshSizes(data=1, frames=8)), plan)

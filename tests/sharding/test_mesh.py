"""Devices in a grid: sizes that fit, and sentences for those that do not."""

import subprocess
import sys
from importlib.util import find_spec

import jax
import pytest

from videobooth_jax.sharding import MeshSizes, make_mesh

TWO_SLICES = """
import os
os.environ.update(TPU_SKIP_MDS_QUERY="1", JAX_PLATFORMS="cpu", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
from jax.experimental.topologies import get_topology_desc
from videobooth_jax.sharding import MeshSizes, make_mesh
topology = get_topology_desc(platform="tpu", topology_name="v5e:2x4", num_slices=2)
mesh = make_mesh(MeshSizes(data=-1, fsdp=4, slices=2), topology.devices)
print(mesh.devices.shape, [{d.slice_index for d in row.flat} for row in mesh.devices])
"""


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (MeshSizes(), (8, 1, 1, 1)),
        (MeshSizes(data=2), (2, 1, 1, 1)),
        (MeshSizes(data=2, fsdp=-1), (2, 4, 1, 1)),
        (MeshSizes(data=-1, frames=2, tensor=2), (2, 1, 2, 2)),
        (MeshSizes(data=1, fsdp=2, frames=2, tensor=2), (1, 2, 2, 2)),
    ],
)
def test_one_axis_takes_the_rest(sizes, shape):
    mesh = make_mesh(sizes)
    assert tuple(mesh.shape.values()) == shape
    assert tuple(mesh.shape) == ("data", "fsdp", "frames", "tensor")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (MeshSizes(data=9), "there are 8 devices"),
        (MeshSizes(data=-1, tensor=3), "must divide 8"),
        (MeshSizes(data=-1, fsdp=-1), "one axis may be -1"),
        (MeshSizes(tensor=0), "every size is 1 or more"),
        (MeshSizes(slices=2), "the devices form 1 slices"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


def test_given_devices_are_used():
    devices = jax.devices()[4:]
    assert set(make_mesh(MeshSizes(fsdp=2), devices).devices.flat) == set(devices)


@pytest.mark.skipif(find_spec("libtpu") is None, reason="describes TPUs through libtpu")
def test_slices_split_the_data_axis():
    run = subprocess.run(
        [sys.executable, "-c", TWO_SLICES], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "(4, 4, 1, 1) [{0}, {0}, {1}, {1}]"

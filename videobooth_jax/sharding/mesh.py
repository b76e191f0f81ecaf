"""Devices in a grid of named axes.

======  =========================================================================
data    the batch; every member holds the whole state
fsdp    the batch too; every member holds a part of the state and gathers a layer's
        weights when it is that layer's turn (Zhao et al. 2023)
frames  the frames of every clip
tensor  heads and hidden channels of every layer (Shoeybi et al. 2019)
======  =========================================================================

Axes to the right talk more, so their members are nearer to each other. Several slices (groups of
devices joined by the data-centre network only) split ``data``, the axis that talks least.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "frames", "tensor")


@dataclass(frozen=True)
class MeshSizes:
    """How many devices each axis has; one axis may be -1 and takes all that are left.

    ``slices`` says over how many slices ``data`` is spread; ``data`` counts all of them.
    """

    data: int = -1
    fsdp: int = 1
    frames: int = 1
    tensor: int = 1
    slices: int = 1


def make_mesh(sizes: MeshSizes, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange ``devices`` (default: all there are) in a mesh of `AXES`.

    A mesh smaller than the machine takes its first devices.

    Raises:
        ValueError: the sizes do not fit the devices, or their slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(sizes, len(devices))
    devices = devices[: math.prod(shape)]
    _check_slices(sizes, shape, devices)
    if sizes.slices == 1:
        types = (AxisType.Auto,) * len(AXES)
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    within = (shape[0] // sizes.slices, *shape[1:])
    across = (sizes.slices, *(1 for _ in shape[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(within, across, devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextlib.contextmanager
def known(mesh: Mesh) -> Iterator[None]:
    """Programs traced within are told their mesh, `jax.sharding.get_abstract_mesh`.

    The partitioner does without; what it cannot split, a hand-written kernel, splits itself by it.
    What such a program is called with must lie on this mesh. Also a decorator of a function to be
    jitted: ``jax.jit(known(mesh)(step))``.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def mesh_shape(sizes: MeshSizes, count: int) -> tuple[int, ...]:
    """The sizes of `AXES` on ``count`` devices, -1 filled in.

    Raises:
        ValueError: they do not fit so many devices.
    """
    given = {axis: getattr(sizes, axis) for axis in AXES}
    wrong = [f.name for f in fields(sizes) if getattr(sizes, f.name) < 1]
    open_axes = [axis for axis in AXES if given[axis] == -1]
    if len(open_axes) > 1 or wrong != open_axes:
        raise ValueError(f"{sizes}: every size is 1 or more; one axis may be -1 and takes the rest")
    taken = math.prod(size for size in given.values() if size != -1)
    text = " x ".join(f"{axis} {size}" for axis, size in given.items())
    if taken > count or (open_axes and count % taken):
        raise ValueError(
            f"the mesh {text} does not fit: there are {count} devices; its sizes must "
            f"{'divide' if open_axes else 'multiply to at most'} {count}"
        )
    for axis in open_axes:
        given[axis] = count // taken
    return tuple(given.values())


def _check_slices(sizes: MeshSizes, shape: tuple[int, ...], devices: list[jax.Device]) -> None:
    found = len({getattr(device, "slice_index", 0) for device in devices})
    if found != sizes.slices:
        raise ValueError(f"mesh.slices is {sizes.slices}, but the devices form {found} slices")
    if shape[0] % sizes.slices:
        raise ValueError(f"mesh.data is {shape[0]}, not a multiple of {sizes.slices} slices")

"""A hand-written kernel on every device of a mesh, each with its own samples, frames and heads.

XLA's partitioner cannot look into a kernel, so the call splits itself with `jax.shard_map`, as the
rest of the network is split. Over which mesh, JAX tells while a program is traced
(`jax.sharding.get_abstract_mesh`); ``sharding.known`` says it there. Attention does not mix samples
or heads, nor the frames of queries, so a device needs nothing of another but keys that frames
share.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from videobooth_jax.typing import Array

ROWS, FRAMES, HEADS = ("data", "fsdp"), ("frames",), ("tensor",)
"""Mesh axes of samples, frames and heads: `sharding.AXES`, all of them."""

Part = tuple[Array, Array]
"""Keys and values, each (b, f, m, h, d), or with one frame for all."""

Attention = Callable[[Array, Sequence[Part]], Array]


def mesh_is_known() -> bool:
    """Whether the program now traced says how it is split: over the axes of this package, which
    are left to the partitioner.
    """
    mesh = jax.sharding.get_abstract_mesh()
    ours = set(mesh.axis_names) == {*ROWS, *FRAMES, *HEADS}
    return ours and all(kind == AxisType.Auto for kind in mesh.axis_types)


def on_every_device(attend: Attention, query: Array, parts: Sequence[Part]) -> Array:
    """``attend(query, parts)``, called on each device's own part of both where a mesh is known;
    elsewhere as it is: on one device, or within a split of somebody else's.

    Args:
        attend: attention as in `attention_ops`, of one device.
        query: (b, f, n, h, d).
        parts: keys and values. An array axis that its mesh axes do not divide is whole everywhere.
            Samples of one frame may be frames of clips, as the autoencoder sees them: such a batch
            is split over ``frames`` too.

    Returns:
        (b, f, n, h, d).
    """
    if not mesh_is_known():
        return attend(query, parts)
    mesh = jax.sharding.get_abstract_mesh()
    rows = (*ROWS, *FRAMES) if query.shape[1] == 1 else ROWS
    if query.shape[0] % _size(mesh, rows):
        rows = ROWS
    specs: Any = jax.tree.map(lambda x: _spec(mesh, x.shape, rows), (query, list(parts)))
    # Whether every device holds the same of what is whole is not for a kernel to tell: no vma.
    split = jax.shard_map(attend, in_specs=specs, out_specs=specs[0], check_vma=False)
    return split(query, list(parts))


def _size(mesh: AbstractMesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def _spec(mesh: AbstractMesh, shape: tuple[int, ...], rows: tuple[str, ...]) -> PartitionSpec:
    """How an array (b, f, n, h, d) lies, its batch over the axes ``rows``."""
    frames = () if set(FRAMES) <= set(rows) else FRAMES
    fitting = (
        axes if axes and size % _size(mesh, axes) == 0 else None
        for axes, size in zip((rows, frames, (), HEADS, ()), shape, strict=True)
    )
    return PartitionSpec(*fitting)

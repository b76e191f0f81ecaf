"""Devices as a mesh, and which array lives where on it."""

from videobooth_jax.sharding.mesh import AXES, MeshSizes, known, make_mesh
from videobooth_jax.sharding.placement import (
    batch_shardings,
    check_batch,
    check_frames,
    place_batch,
    process_rows,
    replicated,
    state_shardings,
    weight_shardings,
)
from videobooth_jax.sharding.rules import RULES, spec_of

__all__ = [
    "AXES",
    "RULES",
    "MeshSizes",
    "batch_shardings",
    "check_batch",
    "check_frames",
    "known",
    "make_mesh",
    "place_batch",
    "process_rows",
    "replicated",
    "spec_of",
    "state_shardings",
    "weight_shardings",
]

"""A request spread over a mesh of devices: how many rows at once, and where they live.

Without a mesh everything stays on the default device.
"""

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import Mesh

from videobooth_jax.pipeline.requests import Plan
from videobooth_jax.sharding import batch_shardings, check_frames, known, replicated


def plan_on(mesh: Mesh | None, plan: Plan) -> Plan:
    """The plan as this mesh wants it: where frames are split, one video at a time on each group of
    devices, so the branches of guidance go apart.

    Raises:
        ValueError: the frames cannot be split evenly.
    """
    frames = 1 if mesh is None else mesh.shape["frames"]
    if plan.num_frames % frames:
        raise ValueError(f"{plan.num_frames} frames cannot be split evenly over {frames} devices")
    return plan if frames == 1 else dataclasses.replace(plan, branches="apart")


def told(mesh: Mesh | None) -> AbstractContextManager[None]:
    """Programs that are called within know the mesh, see `sharding.known`."""
    return contextlib.nullcontext() if mesh is None else known(mesh)


def rows_at_once(mesh: Mesh | None, wanted: int) -> int:
    """How many videos are made at once: ``wanted``, rounded up to what the mesh splits evenly, or
    one for every group of devices where frames are split.
    """
    if mesh is None:
        return wanted
    groups = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = groups if mesh.shape["frames"] > 1 else -(-wanted // groups) * groups
    check_frames(mesh, rows)
    return rows


def place(mesh: Mesh | None, name: str, x: Any) -> Any:
    """Put an array of rows on the mesh, split as a batch array ``name`` is; what does not have a
    row for every group of devices (one subject for all) is whole everywhere.
    """
    if mesh is None:
        return x
    split = x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
    return jax.device_put(x, batch_shardings(mesh, (name,))[name] if split else replicated(mesh))

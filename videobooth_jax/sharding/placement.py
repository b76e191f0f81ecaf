"""Where the state of a run and its batches live on a mesh."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videobooth_jax.sharding.rules import spec_of

ROWS = ("data", "fsdp")
"""The mesh axes a batch is split over."""
CLIPS = ("latents", "latents_deviation", "video")
"""Batch arrays (batch, frames, ...), split over ``frames`` too."""
SHARED = ("null_ids", "zero_exemplar", "zero_exemplar_deviation")
"""Batch arrays that are the same for every row and have no batch axis: whole on every device."""
PARAMETER = re.compile(
    r"(?:.*/)?((?:unet|vae|projector|text_encoder|vision_encoder|contrastive_head)/.*)"
)
"""A leaf of a state that belongs to a parameter: its own path, or that of a moment or average."""


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """A tree like ``state`` of shardings: moments and averages lie where their parameter does,
    counters and keys everywhere.

    Args:
        mesh: of `AXES`.
        state: parameters, or anything that holds trees of them; arrays or ShapeDtypeStructs.

    Raises:
        KeyError: a parameter without a rule.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = PARAMETER.fullmatch(name)
        spec = spec_of(found[1], leaf.shape, dict(mesh.shape)) if found else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, state)


def weight_shardings(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """Where a parameter lives, from its path and shape; raises KeyError without a rule."""
    sizes = dict(mesh.shape)
    return lambda path, shape: NamedSharding(mesh, spec_of(path, shape, sizes))


def check_batch(mesh: Mesh, batch_size: int, num_frames: int) -> None:
    """Raises ValueError unless a batch of clips can be split evenly."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(
            f"a batch of {batch_size} cannot be split evenly over {parts} devices (data x fsdp); "
            f"make data.batch_size a multiple, or set mesh.data and mesh.fsdp"
        )
    if num_frames % mesh.shape["frames"]:
        raise ValueError(
            f"{num_frames} frames cannot be split evenly over {mesh.shape['frames']} devices; "
            f"make data.num_frames a multiple, or set mesh.frames"
        )


def check_frames(mesh: Mesh, rows: int) -> None:
    """Raises ValueError unless frames that are split are of one clip on each group of devices.

    The networks see the frames of all clips as one long batch of pictures; of several clips, a
    device's share of every one would not lie together in it, and XLA would gather them all.
    ``rows`` go through the model at once.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if mesh.shape["frames"] > 1 and rows != parts:
        raise ValueError(
            f"mesh.frames is {mesh.shape['frames']}, which pays only with one clip at a time on "
            f"every group of devices: {rows} clips at once (data.batch_size / accumulate_steps) "
            f"over {parts} groups (data x fsdp); make them equal, or set mesh.frames to 1"
        )


def batch_shardings(mesh: Mesh, names: Iterable[str]) -> dict[str, NamedSharding]:
    """Where the arrays of a batch go, by name."""

    def spec(name: str) -> PartitionSpec:
        if name in SHARED:
            return PartitionSpec()
        return PartitionSpec(ROWS, "frames") if name in CLIPS else PartitionSpec(ROWS)

    return {name: NamedSharding(mesh, spec(name)) for name in names}


def process_rows(mesh: Mesh, batch_size: int) -> range:
    """Which rows of a global batch this process has to supply.

    Processes whose devices share rows (``tensor`` or ``frames`` across processes) supply the same.

    Raises:
        ValueError: this process's devices hold rows that are not next to each other.
    """
    sharding = NamedSharding(mesh, PartitionSpec(ROWS))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    held = [index[0] for index in indices if index is not None]
    rows = sorted({row for part in held for row in range(*part.indices(batch_size))})
    if rows != list(range(rows[0], rows[-1] + 1)):
        raise ValueError(
            f"the devices of process {jax.process_index()} hold rows {rows} of a batch: give a "
            "mesh in which every process has neighbouring rows (data and fsdp across processes, "
            "frames and tensor within)"
        )
    return range(rows[0], rows[-1] + 1)


def place_batch(mesh: Mesh, batch: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Put a batch on the mesh, each array split as `batch_shardings` says.

    Args:
        mesh: of `AXES`.
        batch: this process's rows of it, `process_rows`; `SHARED` arrays are the same everywhere.
        batch_size: rows of the global batch.
    """
    return {
        name: jax.make_array_from_process_local_data(
            sharding,
            np.asarray(batch[name]),
            batch[name].shape if name in SHARED else (batch_size, *batch[name].shape[1:]),
        )
        for name, sharding in batch_shardings(mesh, batch).items()
    }

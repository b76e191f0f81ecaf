"""Devices as a mesh, and where arrays live on it.

One axis so far, ``data``: every device holds the whole state and its share of the batch; XLA adds
the sums over devices. On a CPU of several cores fake devices help too, as each runs on threads of
its own: ``XLA_FLAGS=--xla_force_host_platform_device_count=2``.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh(data: int) -> Mesh:
    """A mesh of ``data`` devices, -1 for all there are.

    Raises:
        ValueError: there are not that many.
    """
    devices = jax.devices()
    count = len(devices) if data == -1 else data
    if not 1 <= count <= len(devices):
        raise ValueError(
            f"mesh.data is {data}, but there are {len(devices)} devices; give 1 to {len(devices)}, "
            "or -1 for all"
        )
    return Mesh(np.array(devices[:count]), (DATA,), axis_types=(AxisType.Auto,))


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises ValueError unless a batch can be split evenly."""
    if batch_size % mesh.shape[DATA]:
        raise ValueError(
            f"a batch of {batch_size} cannot be split evenly over {mesh.shape[DATA]} devices; "
            f"make data.batch_size a multiple, or set mesh.data"
        )


def place_state(mesh: Mesh, state: Any) -> Any:
    """Put a whole pytree on every device."""
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def place_batch(mesh: Mesh, batch: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Split arrays of ``batch_size`` rows over ``data``; put the others whole on every device."""
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((DATA,), ()))
    return {
        name: jax.device_put(value, split if len(value) == batch_size else whole)
        for name, value in batch.items()
    }

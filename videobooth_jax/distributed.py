"""Several processes as one run, through JAX's own distributed runtime.

Every process runs the same program on its own devices; collectives join them. A process that dies
takes the run along: the others cannot go on without its part of the state, so they stop as soon as
they notice, and the whole run is started again from its last checkpoint.
"""

import os
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

HEARTBEAT_SECONDS = 45
"""A process not heard from for so long is taken for dead; well under two minutes."""
CRASH, MISTAKE = 1, 2
"""Exit statuses, those of the command."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def start_distributed(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the processes of a run; call it before JAX is used.

    Without arguments JAX finds them in the environment (Cloud TPU, GKE, Slurm, Open MPI).

    Args:
        coordinator: ``host:port`` of process 0, the same in every process; on a loopback host, only
            this machine can reach it.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ValueError: only some of the three are given, or they do not fit each other; or none is and
            the environment is none JAX knows.
    """
    given = (coordinator, num_processes, process_id)
    if None in given and given != (None, None, None):
        raise ValueError("--coordinator, --num-processes and --process-id go together: give all")
    if coordinator and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator is {coordinator!r}; give host:port")
    # The loop hears SIGTERM itself and agrees on a step; JAX's handler would take its place.
    jax.config.update("jax_enable_preemption_service", False)
    near = coordinator is not None and coordinator.rpartition(":")[0] in LOOPBACK
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if coordinator else None,
            coordinator_bind_address=coordinator if near else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=2 * HEARTBEAT_SECONDS,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the processes of this run cannot be joined: {error} Outside Cloud TPU, GKE, Slurm "
            "and Open MPI give --coordinator HOST:PORT --num-processes N --process-id I"
        ) from error


def is_primary() -> bool:
    """Whether this is the process that reports."""
    return jax.process_index() == 0


def leave(error: BaseException, status: int) -> None:
    """End this process of a run of several at once, without waiting for the others, who may be
    waiting for it.

    Args:
        error: what is told.
        status: of the process; 2 for what starting again does not mend.
    """
    text = f"videobooth: process {jax.process_index()} of {jax.process_count()} stops: {error}\n"
    if status != MISTAKE:
        text += "start all processes again: the run goes on from its last checkpoint\n"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
    os._exit(status)


class StopTogether:
    """All processes stop at the same step: what one of them is asked, all hear.

    Each call sends this process's answer on its way through the devices and returns what was agreed
    on at the call before, so nobody waits for the step under way. Called once a step by everybody.
    """

    def __init__(self, mesh: Mesh, stopped: Callable[[], bool]):
        """``stopped`` is this process's own answer."""
        self._stopped, self._pending = stopped, None
        self._flags = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._size = mesh.devices.size

    def __call__(self) -> bool:
        """Whether all stop now."""
        if jax.process_count() == 1:
            return self._stopped()
        before, mine = self._pending, np.asarray([self._stopped()])
        flags = jax.make_array_from_callback(
            (self._size,), self._flags, lambda index: np.broadcast_to(mine, (1,))
        )
        self._pending = self._any(flags)
        return before is not None and bool(before)

"""Named arrays on disk, through Orbax; the only module that imports it.

A tree travels as a dict from names, ``"unet/conv_in/kernel"``, to arrays, so that every error can
say which parameter it is about and a restored state does not depend on how Orbax rebuilds
containers.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import v1 as ocp

Named = dict[str, Any]
"""Name -> array, or its shape and dtype."""

STATE = "state"
COMMITTED = "commit_success.txt"
"""Orbax writes the absolute path it saved to into this file; its being there is what counts."""
IN_FLIGHT = 2**28
"""Bytes that may wait to be written, where arrays are too large to keep a second time."""


def named_leaves(tree: Any) -> Named:
    """The leaves of a pytree by name, their path with slashes: ``opt_state/0/mu/unet/kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class ProcessText:
    """A text that every process keeps for itself, saved beside the arrays as one unit with them.

    A process that was not there when it was saved (a run resumed with more of them) reads that of
    process 0.
    """

    def __init__(self, text: str = ""):
        self.text = text

    async def save(self, directory: Any) -> Awaitable[None]:
        """Write this process's file once Orbax has made the folder."""

        async def write_text() -> None:
            folder = await directory.await_creation()
            (folder / self._file(jax.process_index())).write_text(self.text)

        return write_text()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Read this process's file."""

        async def load_text() -> None:
            own, first = (epath.Path(directory) / self._file(i) for i in (jax.process_index(), 0))
            self.text = (own if own.exists() else first).read_text()

        return load_text()

    @staticmethod
    def _file(process: int) -> str:
        return f"process_{process}.txt"


def write(path: epath.Path, arrays: Named, dtype: Any = None) -> None:
    """Write arrays, host or device ones, cast to ``dtype`` on the way if given.

    numpy arrays may be views of memory-mapped files. Memory: jax arrays cost at most some hundred
    megabytes besides themselves; numpy arrays are all encoded at once.

    Raises:
        OSError: ``path`` cannot be written.
    """
    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False
    if sum(x.nbytes for x in arrays.values()) > IN_FLIGHT:  # less goes into one file at once
        largest = max(x.nbytes for x in arrays.values())
        context.memory.write_concurrent_bytes = max(IN_FLIGHT, largest)
    if dtype is not None:
        context.array.saving.storage_options.dtype = jnp.dtype(dtype)
    with context:
        ocp.save(path, _tree(arrays), overwrite=True)
    note = path / COMMITTED
    if jax.process_index() == 0 and note.exists():
        note.write_text("committed\n")


def start_write(path: epath.Path, arrays: Named, texts: Mapping[str, str]) -> Callable[[], None]:
    """Begin to write arrays and, per name, a text of each process.

    When this returns the arrays have been copied and may be donated.

    Returns:
        A function that waits for the end and raises what went wrong.
    """
    parts = {name: ProcessText(text) for name, text in texts.items()}
    checkpointables = {STATE: _tree(arrays), **parts}
    return ocp.save_checkpointables_async(path, checkpointables, overwrite=True).result


def _tree(arrays: Named) -> dict[str, Any]:
    """As Orbax takes it: nested, and of exactly two types (no numpy scalars or subclasses)."""
    plain = {n: x if isinstance(x, jax.Array) else np.asarray(x) for n, x in arrays.items()}
    return unflatten_dict(plain, sep="/")


def read(
    path: epath.Path, wanted: dict[str, jax.ShapeDtypeStruct], some: bool = False
) -> dict[str, jax.Array]:
    """Read arrays in the wanted dtypes.

    Args:
        path: what `write` or `start_write` wrote.
        wanted: all names there; a leaf with a sharding is read straight into it, shard by shard,
            the others end up uncommitted on the default device.
        some: ``wanted`` are only some of the names there.
    """
    context = ocp.Context()
    context.pytree.loading.partial_load = some
    with context:
        arrays = flatten_dict(ocp.load(path, unflatten_dict(_abstract(wanted), sep="/")), sep="/")
    return {name: jnp.asarray(arrays.pop(name)) for name in wanted}


def read_text(path: epath.Path, name: str) -> str:
    """The text that this process gave to `start_write`."""
    return ocp.load_checkpointables(path, {name: ProcessText()})[name].text


def _abstract(wanted: dict[str, jax.ShapeDtypeStruct]) -> Named:
    """Tell Orbax where to: a jax struct means into its sharding, a numpy array into host memory."""
    return {
        name: leaf if leaf.sharding else np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for name, leaf in wanted.items()
    }


def differences(found: Named, expected: Named) -> str:
    """What keeps ``found`` from being ``expected``, every name listed; empty if nothing does."""
    there, wanted = _shapes(found), _shapes(expected)
    parts = {
        "missing": [f"{n} {wanted[n]}" for n in wanted.keys() - there.keys()],
        "unexpected": [f"{n} {there[n]}" for n in there.keys() - wanted.keys()],
        "of another shape": [
            f"{n} is {there[n]}, expected {wanted[n]}"
            for n in wanted.keys() & there.keys()
            if there[n] != wanted[n]
        ],
    }
    summary = ", ".join(f"{len(lines)} {what}" for what, lines in parts.items() if lines)
    lists = (
        f"\n{what}:\n  " + "\n  ".join(sorted(lines)) for what, lines in parts.items() if lines
    )
    return summary + "".join(lists)


def _shapes(named: Named) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in named.items()}

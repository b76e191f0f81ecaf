"""Train checkpoints: the state of a run and its position in the data, one unit per step.

``directory/00001200/`` holds the arrays (``state/``), one text per process (``data/``) and, written
last, the manifest that tells a finished checkpoint from an interrupted one.
"""

import base64
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from videobooth_jax.checkpointing import arrays, manifest
from videobooth_jax.checkpointing.manifest import DamagedError

DataPosition = bytes | str | dict[str, Any]
"""Where a data loader stands: its serialised state, or a JSON-able dict."""

DATA = "data"
log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """No checkpoint can be used, or the one there is belongs to another run."""


class TrainCheckpoints:
    """The checkpoints of one run. Use as a context manager, or `close` it: saving goes on in the
    background.

    In a run of several processes, every process makes one and calls the same methods.

    Args:
        directory: where to keep them; made if need be. ``gs://`` works where its file system is
            installed.
        keep: how many of the newest to keep.

    Raises:
        OSError: ``directory`` cannot be written.
        ValueError: ``keep`` is not positive.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint must be kept")
        self.directory, self.keep = manifest.resolve(directory), keep
        probe = self.directory / f".writable_{jax.process_index()}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise type(error)(
                f"checkpoints cannot be written to {directory}: {error.strerror or error}; "
                "give a folder you may write to"
            ) from error
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: Any, data_position: DataPosition) -> None:
        """Save a state and the data position as one step.

        ``state`` is any pytree of arrays, typed PRNG keys among them.
        Returns once the arrays are copied, so they may be donated; the rest happens in the
        background. Waits for the save before it and raises what went wrong in that one. Afterwards
        the oldest beyond ``keep`` are removed.

        Raises:
            OSError: this or the previous checkpoint could not be written.
        """
        self.wait()
        named = {name: _storable(leaf) for name, leaf in arrays.named_leaves(state).items()}
        folder = self._folder(step)
        finish = arrays.start_write(folder, named, {DATA: _encode(data_position)})
        self._pending = self._thread.submit(self._complete, finish, step, _abstract(named))

    def _complete(self, finish: Callable[[], None], step: int, named: arrays.Named) -> None:
        finish()
        if jax.process_index() != 0:
            return
        manifest.seal(self._folder(step), (arrays.STATE, DATA), named)
        for old in [s for s in self.steps() if s <= step][: -self.keep]:
            self._folder(old).rmtree(missing_ok=True)
        for leftover in self._unfinished():
            leftover.rmtree(missing_ok=True)

    def wait(self) -> None:
        """Wait until the last save is on disk; raises what went wrong in it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last save and stop the background thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def steps(self) -> tuple[int, ...]:
        """The steps of all finished checkpoints, ascending."""
        found = (p for p in self.directory.iterdir() if p.name.isdigit() and manifest.is_sealed(p))
        return tuple(sorted(int(p.name) for p in found))

    def latest_step(self) -> int | None:
        """The newest step with a finished checkpoint, or None."""
        return max(self.steps(), default=None)

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, DataPosition]:
        """Read back a state and its data position, bit for bit.

        Args:
            abstract_state: the state to fill, of arrays or ShapeDtypeStructs; a leaf that has a
                sharding (an array that was put somewhere, or a struct with one) is restored into
                it.
            step: which one; None for the newest that is sound. Unfinished and damaged ones are
                named in the log and skipped.

        Raises:
            CheckpointError: none can be used, ``step`` is not there or damaged, or the state there
                has other parameters than ``abstract_state`` (all differences are named).
        """
        self.wait()
        for leftover in self._unfinished():
            log.warning("checkpoint %s was interrupted while being written; skipping it", leftover)
        for candidate in [step] if step is not None else self.steps()[::-1]:
            try:
                manifest.check(self._folder(candidate))
            except DamagedError as error:
                if step is not None:
                    raise CheckpointError(f"checkpoint {self._folder(step)}: {error}") from error
                log.warning("checkpoint %s is damaged: %s; trying the one before", candidate, error)
                continue
            return self._read(self._folder(candidate), abstract_state)
        raise CheckpointError(f"no usable checkpoint in {self.directory}")

    def _read(self, folder: epath.Path, abstract_state: Any) -> tuple[Any, DataPosition]:
        leaves = arrays.named_leaves(abstract_state)
        wanted = {name: _wanted(leaf) for name, leaf in leaves.items()}
        if problems := arrays.differences(manifest.arrays(folder), wanted):
            raise CheckpointError(
                f"checkpoint {folder} is not of this run: its state has other arrays ({problems})"
            )
        values = arrays.read(folder, wanted)
        restored = [_restored(values[name], leaf) for name, leaf in leaves.items()]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), restored)
        return state, _decode(arrays.read_text(folder, DATA))

    def _folder(self, step: int) -> epath.Path:
        return self.directory / f"{step:08d}"

    def _unfinished(self) -> list[epath.Path]:
        """Folders of saves that never came to their end; Orbax marks its own by a suffix after the
        step."""
        folders = (p for p in self.directory.iterdir() if p.name.split(".")[0].isdigit())
        return [p for p in folders if not (p.name.isdigit() and manifest.is_sealed(p))]


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _storable(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(named: arrays.Named) -> arrays.Named:
    """What the manifest needs, without keeping arrays alive that the caller may donate."""
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in named.items()}


def _sharding(leaf: Any) -> jax.sharding.Sharding | None:
    """Where a leaf was put on purpose; None where it merely happens to be."""
    return leaf.sharding if getattr(leaf, "committed", True) else None


def _wanted(leaf: Any) -> jax.ShapeDtypeStruct:
    struct = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    if _is_key(leaf):  # the numbers of a key are one more, unsharded axis
        struct = jax.eval_shape(jax.random.key_data, struct)
    return jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=_sharding(leaf))


def _restored(value: jax.Array, leaf: Any) -> jax.Array:
    if not _is_key(leaf):
        return value
    impl = jax.random.key_impl(jnp.zeros((), leaf.dtype))
    wrap = jax.jit(lambda x: jax.random.wrap_key_data(x, impl=impl), out_shardings=_sharding(leaf))
    return wrap(value)


def _encode(position: DataPosition) -> str:
    if isinstance(position, bytes):
        return json.dumps({"bytes": base64.b64encode(position).decode("ascii")})
    return json.dumps({"json": position})


def _decode(text: str) -> DataPosition:
    content = json.loads(text)
    return base64.b64decode(content["bytes"]) if "bytes" in content else content["json"]

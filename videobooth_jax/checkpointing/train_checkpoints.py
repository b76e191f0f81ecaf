"""Train checkpoints: the state of a run and its position in the data, one unit per step.

``directory/00001200/`` holds the arrays (``state/``), one text per process (``data/``) and, written
last, the manifest that tells a finished checkpoint from an interrupted one.
"""

import base64
import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
from etils import epath

from videobooth_jax import paths
from videobooth_jax.checkpointing import arrays, manifest
from videobooth_jax.checkpointing.manifest import DamagedError

DataPosition = bytes | str | dict[str, Any]
"""Where a data loader stands: its serialised state, or a JSON-able dict."""

DATA = "data"
log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """No checkpoint can be used, or the one there is belongs to another run."""


class SaveError(OSError):
    """A checkpoint could not be written: a full disk, most often."""


class TrainCheckpoints:
    """The checkpoints of one run. Use as a context manager, or `close` it: saving goes on in the
    background.

    In a run of several processes, every process makes one and calls the same methods.

    Args:
        directory: where to keep them; made if need be. ``gs://`` works where its file system is
            installed.
        keep: how many of the newest to keep.
        keep_best: how many of those with the best scores to keep besides.
        best_mode: "min" if the smallest score is the best, "max" if the largest.

    Raises:
        OSError: ``directory`` cannot be written.
        ImportError: its file system is not installed.
        ValueError: ``keep`` is not positive, or ``directory`` is no path of this machine that was
            meant to be (see `paths.resolve`).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        keep: int = 3,
        keep_best: int = 0,
        best_mode: Literal["min", "max"] = "min",
    ):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint must be kept")
        self.directory, self.keep = paths.resolve(directory), keep
        self.keep_best, self._sign = keep_best, {"min": 1.0, "max": -1.0}[best_mode]
        paths.make_writable(self.directory, "checkpoints", jax.process_index())
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self, step: int, state: Any, data_position: DataPosition, score: float | None = None
    ) -> None:
        """Save a state and the data position as one step.

        ``state`` is any pytree of arrays, typed PRNG keys among them; ``score`` says how good it
        is. Returns once the arrays are copied, so they may be donated; the rest happens in the
        background. Waits for the save before it and raises what went wrong in that one. Afterwards
        those beyond the newest ``keep`` and the best ``keep_best`` are removed.

        Raises:
            SaveError: this or the previous checkpoint could not be written; the ones before are
                still there.
        """
        self.wait()
        named = {name: _storable(leaf) for name, leaf in arrays.named_leaves(state).items()}
        try:
            finish = arrays.start_write(self._folder(step), named, {DATA: _encode(data_position)})
        except Exception as error:
            raise self._failed(step, error) from error
        self._pending = self._thread.submit(self._complete, finish, step, _abstract(named), score)

    def _complete(
        self, finish: Callable[[], None], step: int, named: arrays.Named, score: float | None
    ) -> None:
        try:
            finish()
            if jax.process_index() == 0:
                manifest.seal(self._folder(step), (arrays.STATE, DATA), named, score)
                self._prune(step)
        except Exception as error:
            raise self._failed(step, error) from error

    def _prune(self, newest: int) -> None:
        finished = [s for s in self.steps() if s <= newest]
        kept = {*finished[-self.keep :], *self._best(finished)}
        for old in set(finished) - kept:
            self._folder(old).rmtree(missing_ok=True)
        self._remove_unfinished()

    def _best(self, steps: Sequence[int]) -> list[int]:
        """The ``keep_best`` steps with the best scores, best first; the earlier where two tie."""
        if not self.keep_best:
            return []
        scores = {step: manifest.score(self._folder(step)) for step in steps}
        known = {step: self._sign * score for step, score in scores.items() if score is not None}
        return sorted(known, key=lambda step: (known[step], step))[: self.keep_best]

    def _failed(self, step: int, error: Exception) -> "SaveError":
        """What to tell; also makes room by removing what was half written."""
        if jax.process_index() == 0:
            with contextlib.suppress(OSError):
                self._remove_unfinished()
        good = self.latest_step()
        rest = (
            "there is none before it" if good is None else f"the one of step {good} is still good"
        )
        return SaveError(
            f"the checkpoint of step {step} could not be written to {self.directory}: "
            f"{_reason(error)}; {rest}. Make room or give another folder, then start again"
        )

    def _remove_unfinished(self) -> None:
        for leftover in self._unfinished():
            leftover.rmtree(missing_ok=True)

    def poll(self) -> None:
        """Raise what went wrong in the last save if it has ended; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

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

    def best_step(self) -> int | None:
        """The finished step with the best score, or None where none has one."""
        return next(iter(self._best(self.steps())), None)

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


def _reason(error: Exception) -> str:
    """The system's own words where a library has wrapped its error number in a long text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else f"{type(error).__name__}: {error}"


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

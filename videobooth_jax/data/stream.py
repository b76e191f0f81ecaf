"""From random access to batches, through Grain: order, mixture, rows, reading ahead, position.

Everything up to a batch is a pure function of its number. So batches do not depend on how many
processes supply rows or prepare examples, and a position is a number of batches, which means the
same to any number of either.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from videobooth_jax.data.rows import Padded, Source, process_stream

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """How examples become a stream. ``batch_size`` is that of all processes together."""

    batch_size: int
    shuffle: bool = True
    seed: int = 0
    epochs: int | None = None  # None: without end
    rows: range | None = None  # rows of every batch that this process supplies; None: all
    pad_last: bool = (
        False  # fill the last batch up (`valid` tells its rows), else drop what is over
    )
    worker_count: int = 0  # processes that prepare batches; 0: a thread of this one
    read_ahead: int = 2  # batches that each of them keeps ready


def in_order(
    source: Source[Any],
    config: StreamConfig,
    change: Callable[[Any, np.random.Generator], Any] | None = None,
) -> grain.MapDataset[Any]:
    """All examples of a source, epoch after epoch, each epoch in an order of its own.

    ``change(example, rng)`` makes of each what it is to be, with a generator that depends on seed,
    epoch and position in that order only.
    """
    data = grain.MapDataset.source(source).seed(config.seed)
    if config.shuffle:
        data = data.shuffle()
    data = data.repeat(config.epochs)
    return data if change is None else data.random_map(change)


def mixed(parts: Sequence[grain.MapDataset[Any]], weights: Sequence[float]) -> grain.MapDataset:
    """Examples of several datasets by turns, as often as their weights say.

    It ends with the first of them that does.

    Raises:
        ValueError: not one positive weight for each.
    """
    if len(parts) != len(weights) or not all(_is_weight(weight) for weight in weights):
        raise ValueError(
            f"{len(parts)} datasets are mixed by weights {list(weights)}: give one for each, above "
            "0, or none"
        )
    return grain.MapDataset.mix(parts, weights) if len(parts) > 1 else parts[0]


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def batched(
    examples: grain.MapDataset[Any],
    config: StreamConfig,
    stack: Callable[[Sequence[Any]], Batch],
) -> "BatchStream":
    """Batches of examples that are dicts. Where the last one is filled up, with the last example,
    all batches have ``valid`` (b,) bool, False for what was added.
    """
    if config.pad_last:
        examples = grain.MapDataset.source(Padded(examples, config.batch_size))
    size = config.batch_size if config.rows is None else len(config.rows)
    rows = process_stream(examples, config.batch_size, config.rows)
    batches = rows.batch(size, drop_remainder=True, batch_fn=stack)
    return BatchStream(batches, config.worker_count, config.read_ahead)


class BatchStream:
    """Batches one after the other, with a position that can be saved."""

    def __init__(
        self, batches: grain.MapDataset[Batch], worker_count: int = 0, read_ahead: int = 2
    ):
        """``batches`` by number; the rest as in `StreamConfig`. Nothing is read before `next`."""
        self._batches, self._worker_count, self._read_ahead = batches, worker_count, read_ahead
        self._given = 0
        self._running: grain.DatasetIterator[Batch] | None = None

    def __iter__(self) -> "BatchStream":
        return self

    def __next__(self) -> Batch:
        """The next batch; StopIteration after the last."""
        if self._running is None:
            self._running = self._start()
        batch = next(self._running)
        self._given += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position: how many batches were given out."""
        return {"next_index": self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on after as many batches as a state says.

        Raises:
            ValueError: the state is not one of `get_state`.
        """
        given = state.get("next_index")
        if not isinstance(given, int) or given < 0:
            raise ValueError(f"{state} is no position of a stream of batches")
        self.close()
        self._given = given

    def close(self) -> None:
        """End worker processes and threads; `next` starts them again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def _start(self) -> grain.DatasetIterator[Batch]:
        rest = self._batches[self._given :]
        ahead = 1 if self._worker_count else self._read_ahead
        here = rest.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead))
        if not self._worker_count:
            return iter(here)
        if not flags.FLAGS.is_parsed():  # Grain asks for them, and nothing here is an absl program
            flags.FLAGS.mark_as_parsed()
        there = grain.MultiprocessingOptions(self._worker_count, self._read_ahead)
        return iter(here.mp_prefetch(there))

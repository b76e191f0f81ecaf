"""Which rows of every global batch a process supplies.

All processes walk through one order of all examples; batch k of a run is rows [k B, (k + 1) B) of
it, however many processes there are. Each process reads its own rows only, so a run of many
processes sees exactly the batches of a run of one, every example of an epoch once, and a saved
position (a number of batches) means the same to any number of processes.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import grain
import numpy as np

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Anything by index; a ``range`` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


class ProcessRows(Generic[T]):
    """Rows ``rows`` of every batch of ``examples``, one after the other, by index.

    Args:
        examples: the global order, a Grain dataset or anything with ``len`` and indices.
        batch_size: rows of a global batch.
        rows: those this process supplies.
    """

    def __init__(self, examples: Source[T], batch_size: int, rows: range):
        """Refuse rows outside the batch.

        Raises:
            ValueError: ``rows`` are not rows of a batch.
        """
        if not 0 <= rows.start < rows.stop <= batch_size:
            raise ValueError(f"rows {rows.start} to {rows.stop} do not lie in 0 to {batch_size}")
        self._examples, self._batch_size, self._rows = examples, batch_size, rows

    def __len__(self) -> int:
        """Rows in whole batches, and this process's share of a last, smaller one."""
        whole, left = divmod(len(self._examples), self._batch_size)
        share = min(left, self._rows.stop) - min(left, self._rows.start)
        return whole * len(self._rows) + share

    def __getitem__(self, index: int) -> T:
        batch, row = divmod(index, len(self._rows))
        return self._examples[batch * self._batch_size + self._rows[row]]

    def __repr__(self) -> str:
        return f"ProcessRows({self._examples}, {self._batch_size}, {self._rows})"


def process_stream(
    examples: grain.MapDataset[Any], batch_size: int, rows: range | None
) -> grain.MapDataset[Any]:
    """``examples`` in the global order, cut to ``rows`` of every batch (None: all of them)."""
    if rows is None or len(rows) == batch_size:
        return examples
    return grain.MapDataset.source(ProcessRows(examples, batch_size, rows))


class Padded:
    """Examples, dicts by index, with as many copies of the last as make whole batches; each says
    in ``valid`` whether it is one of the examples.
    """

    def __init__(self, examples: Source[Any], batch_size: int):
        self._examples, self._batch_size = examples, batch_size

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size) * self._batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        last = len(self._examples) - 1
        return {**self._examples[min(index, last)], "valid": np.bool_(index <= last)}

    def __repr__(self) -> str:
        return f"Padded({self._examples}, {self._batch_size})"


class Picked(Generic[T]):
    """The examples at ``places`` alone, in that order."""

    def __init__(self, examples: Source[T], places: Sequence[int] | np.ndarray):
        self._examples, self._places = examples, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> T:
        return self._examples[int(self._places[index])]

    def __repr__(self) -> str:
        return f"Picked({self._examples}, {len(self._places)} places)"

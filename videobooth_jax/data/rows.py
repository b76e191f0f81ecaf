"""Which rows of every global batch a process supplies.

All processes walk through one order of all examples; batch k of a run is rows [k B, (k + 1) B) of
it, however many processes there are. Each process reads its own rows only, so a run of many
processes sees exactly the batches of a run of one, every example of an epoch once, and a saved
position (a number of batches) means the same to any number of processes.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import grain

T = TypeVar("T")


class ProcessRows(Generic[T]):
    """Rows ``rows`` of every batch of ``examples``, one after the other, by index.

    Args:
        examples: the global order, a Grain dataset or anything with ``len`` and indices.
        batch_size: rows of a global batch.
        rows: those this process supplies.
    """

    def __init__(self, examples: Sequence[T], batch_size: int, rows: range):
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

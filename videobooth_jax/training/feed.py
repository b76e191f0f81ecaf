"""Batches on the device before they are needed."""

import time
from collections.abc import Callable

from videobooth_jax.training.data import TrainingData
from videobooth_jax.training.losses import Batch


class Feed:
    """Hands out placed batches, one ahead.

    The next batch is read and sent off while the device works on the step just given to it; the
    position is that of the batches handed out, not of the one ahead.
    """

    def __init__(self, data: TrainingData, place: Callable[[Batch], Batch]):
        self._data, self._place = data, place
        self._next: Batch | None = None
        self.position = data.position()
        self._next_position = self.position

    def peek(self) -> Batch:
        """The batch that comes next; it stays the next."""
        if self._next is None:
            self.prefetch()
        assert self._next is not None
        return self._next

    def take(self) -> Batch:
        """The next batch."""
        batch, self._next = self.peek(), None
        self.position = self._next_position
        return batch

    def prefetch(self) -> float:
        """Read and place the batch after the one handed out last; returns the seconds it took."""
        start = time.monotonic()
        self._next = self._place(next(self._data))
        self._next_position = self._data.position()
        return time.monotonic() - start

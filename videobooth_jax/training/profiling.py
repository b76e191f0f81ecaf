"""A window of steps recorded by JAX's profiler, to be opened in XProf or Perfetto."""

import contextlib
from collections.abc import Iterator

import jax
from etils import epath


class ProfilerWindow:
    """Records steps ``start`` .. ``start + steps - 1`` (counted from 0) into ``folder``; none where
    ``steps`` is 0, or where a resumed run begins after them.
    """

    def __init__(self, folder: epath.Path, start: int, steps: int):
        self._folder, self._range = folder, range(start, start + steps)
        self._running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the step ``number``."""
        if number in self._range and not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def end(self, number: int, result: object) -> None:
        """After step ``number`` of the window's last: wait for ``result`` and write the trace."""
        if self._running and number >= self._range[-1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Write what was recorded, if anything."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()

"""Where the time of a run goes: steps, waiting for data, everything else."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Lap:
    """The time between two reports.

    Attributes:
        step_seconds: per step, waiting for data included; compiling, saving and sampling not.
        data_wait_share: of the time of steps, how much the device waited for data.
        goodput: time in steps that count, without waiting for data, over all time since the run
            was first started. Both reach over restarts: a stop, the pause after it, compiling
            again, and work that a crash lost are wall time and not productive.
    """

    step_seconds: float
    data_wait_share: float
    goodput: float


class Clock:
    """Keeps the time of a run.

    Args:
        started: when the run was first started, seconds since 1970.
        productive: seconds in steps that count, of the processes before this one.
    """

    def __init__(self, started: float, productive: float):
        self._started, self._productive = started, productive
        self._mark = time.monotonic()
        self._aside = self._waited = 0.0
        self._steps = 0

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Time that is no training: compiling, saving, sampling."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._aside += time.monotonic() - start

    def waited(self, seconds: float) -> None:
        """Count time the device waited for data."""
        self._waited += seconds

    def step(self) -> None:
        """Count a step."""
        self._steps += 1

    def productive(self) -> float:
        """Seconds in steps that count, up to now."""
        return self._productive + max(0.0, self._stepping() - self._waited)

    def lap(self) -> Lap:
        """End a lap; the next begins."""
        stepping = max(self._stepping(), 1e-9)
        productive = self.productive()
        lap = Lap(
            step_seconds=stepping / max(1, self._steps),
            data_wait_share=min(1.0, self._waited / stepping),
            goodput=min(1.0, productive / max(time.time() - self._started, 1e-9)),
        )
        self._productive, self._mark = productive, time.monotonic()
        self._aside = self._waited = 0.0
        self._steps = 0
        return lap

    def _stepping(self) -> float:
        return time.monotonic() - self._mark - self._aside

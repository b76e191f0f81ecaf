"""What a run tells while it runs: a line on the console, scalars and pictures for TensorBoard."""

import sys
import time
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter


def format_seconds(seconds: float) -> str:
    """7384 -> "2h03m", 75 -> "1m15s"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s"


class Reporter:
    """Averages metrics between reports, keeps the clock, writes the console line and TensorBoard
    events.

    ``first_step`` is where this process started, so that rates after a resume are this process's
    own.
    """

    def __init__(self, workdir: Path, name: str, first_step: int, last_step: int, batch_size: int):
        """Open the event file under ``workdir/tensorboard``."""
        self._writer = SummaryWriter(logdir=str(workdir / "tensorboard"))
        self._name, self._last, self._batch = name, last_step, batch_size
        self._since, self._step = time.monotonic(), first_step
        self._waited = 0.0

    def waited(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited += seconds

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Print one line and write scalars for the interval that ends at ``step``."""
        elapsed = max(time.monotonic() - self._since, 1e-9)
        rate = (step - self._step) / elapsed
        left = (self._last - step) / max(rate, 1e-9)
        speed = {
            "steps_per_second": rate,
            "samples_per_second": rate * self._batch,
            "data_wait_share": self._waited / elapsed,
        }
        for key, value in (metrics | speed).items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()
        terms = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        line = (
            f"{self._name} {step}/{self._last}  {terms}  {rate:.2f} steps/s "
            f"({rate * self._batch:.1f} samples/s, data wait {speed['data_wait_share']:.0%})  "
            f"{format_seconds(left)} left"
        )
        print(line, file=sys.stderr, flush=True)
        self._since, self._step, self._waited = time.monotonic(), step, 0.0

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write a picture, uint8 (height, width, 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

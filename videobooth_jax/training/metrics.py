"""What a run tells while it runs: a line on the console, files of records, and TensorBoard.

``metrics.jsonl`` holds what was computed, exact and the same for equal runs, byte by byte; so does
``validation.jsonl`` of held-out examples, where a run looks at some. ``speed.jsonl`` holds what
time it took, and is never cut.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import jax
import numpy as np
from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from videobooth_jax.costs import PEAK_FLOPS
from videobooth_jax.training.clock import Lap
from videobooth_jax.training.progress import Row
from videobooth_jax.training.records import Records, told


def format_seconds(seconds: float) -> str:
    """7384 -> "2h03m", 75 -> "1m15s"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s"


@dataclass(frozen=True)
class Work:
    """What a step does and on what.

    Attributes:
        samples: rows of the batch, over all devices.
        flops: of the model, of a step, over all devices, see `program.model_flops`.
        devices: how many.
        device_kind: as JAX names it.
    """

    samples: int
    flops: int
    devices: int
    device_kind: str

    def speed(self, lap: Lap) -> Row:
        """Rates of a lap; ``mfu``, model FLOP/s over the device's peak, only where that is known
        (`costs.PEAK_FLOPS`).
        """
        flops = self.flops / lap.step_seconds / self.devices
        rates = {
            "samples_per_second": self.samples / lap.step_seconds,
            "samples_per_second_per_device": self.samples / lap.step_seconds / self.devices,
            "tflops_per_second_per_device": flops / 1e12,
        }
        peak = PEAK_FLOPS.get(self.device_kind)
        return asdict(lap) | rates | ({"mfu": flops / peak} if peak else {})


class Reporter:
    """Writes reports of a run; in a run of several processes, only the first one does."""

    def __init__(self, workdir: epath.Path, name: str, first_step: int, last_step: int):
        """Open the files in ``workdir``; what they say of steps after ``first_step``, where this
        process begins, is dropped.

        Raises:
            OSError: they cannot be written.
        """
        self._name, self._last = name, last_step
        self._primary = jax.process_index() == 0
        self.metrics = Records(workdir / "metrics.jsonl", writes=self._primary)
        self._validation = Records(workdir / "validation.jsonl", writes=self._primary)
        for records in (self.metrics, self._validation):
            records.keep_until(first_step)
        self._speed = Records(workdir / "speed.jsonl", writes=self._primary)
        self._speed.append({"step": first_step, "unix_time": time.time(), "event": "start"})
        self._folder = workdir / "tensorboard"
        with told(self._folder):
            self._events = _open_events(self._folder) if self._primary else None

    @property
    def started(self) -> float:
        """When the run was first started, seconds since 1970."""
        return self._speed.rows[0]["unix_time"]

    def report(self, step: int, metrics: Row, speed: Row) -> None:
        """Print one line and write scalars for the interval that ends at ``step``.

        Raises:
            OSError: they cannot be written.
        """
        self.metrics.append({"step": step} | metrics)
        self._speed.append({"step": step, "unix_time": time.time()} | speed)
        if not self._primary:
            return
        self._write([summary.scalar(key, value) for key, value in (metrics | speed).items()], step)
        terms = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k != "nonfinite_steps")
        skipped = metrics["nonfinite_steps"]
        line = (
            f"{self._name} {step}/{self._last}  {terms}  {speed['step_seconds']:.3g} s/step "
            f"({speed['samples_per_second']:.1f} samples/s, "
            f"data wait {speed['data_wait_share']:.0%}, goodput {speed['goodput']:.0%})  "
            f"{format_seconds((self._last - step) * speed['step_seconds'])} left"
            + (f"  SKIPPED {skipped:.0f} steps that were not finite" if skipped else "")
        )
        print(line, file=sys.stderr, flush=True)

    def validation(self, step: int, metrics: Row) -> None:
        """Print one line and write scalars for the held-out examples.

        Raises:
            OSError: they cannot be written.
        """
        self._validation.append({"step": step} | metrics)
        self._write([summary.scalar(key, value) for key, value in metrics.items()], step)
        terms = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        if self._primary:
            print(f"{self._name} {step}/{self._last}  {terms}", file=sys.stderr, flush=True)

    def average(self, metric: str, after: int) -> float | None:
        """Mean of a metric over the reports of steps beyond ``after``; None without any."""
        rows = [*self.metrics.rows, *self._validation.rows]
        values = [row.get(metric) for row in rows if row["step"] > after]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write a picture, uint8 (height, width, 3)."""
        self._write([summary.image(name, picture, dataformats="HWC")], step)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._events is not None:
            with told(self._folder):
                self._events.close()

    def _write(self, contents: Sequence[summary.Summary], step: int) -> None:
        if self._events is None:
            return
        with told(self._folder):
            for content in contents:
                event = Event(wall_time=time.time(), step=step, summary=content)
                self._events.write_event(event)
            self._events.flush()


def _open_events(folder: epath.Path) -> EventsWriter:
    """TensorBoard's file, written by this thread: on a full disk tensorboardX's own thread would
    die, and the run wait for it for ever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(os.path.join(str(folder), "events"))  # noqa: PTH118 (may be a URL)

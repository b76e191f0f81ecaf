"""Where a run stands beside its state: what a checkpoint must also hold for a resumed run to
report, and to count, exactly what an unbroken one would.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import jax

from videobooth_jax.training.losses import Metrics

Row = dict[str, float]
"""Metrics of one step, or their means over several."""

NONFINITE = "nonfinite"
"""Metric of a step, 1 where it was skipped; summed in reports as ``nonfinite_steps``."""


class NonFiniteError(ValueError):
    """Too many steps in a row had a loss or a gradient that is no number."""


@dataclass(frozen=True)
class Progress:
    """Saved with the state as one unit.

    Attributes:
        data: position of the data stream after the last step, see `TrainingData.position`.
        pending: metrics of the steps since the last report.
        nonfinite_run: how many steps on end were skipped up to the last report.
        productive_seconds: spent in steps that this state is made of, see `Clock`.
    """

    data: str
    pending: tuple[Row, ...] = ()
    nonfinite_run: int = 0
    productive_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, and exact."""
        return asdict(self)

    @classmethod
    def from_saved(cls, saved: Any) -> "Progress":
        """The inverse of `to_dict`.

        Raises:
            ValueError: ``saved`` is of another version of this package.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(saved, dict) or set(saved) != known:
            raise ValueError(
                "the checkpoint is of another version of videobooth_jax: it does not hold "
                f"{', '.join(sorted(known))}; start in an empty workdir, init_from its model"
            )
        return cls(**(saved | {"pending": tuple(saved["pending"])}))


class Pending:
    """Metrics of steps, left on the device until somebody asks.

    The host never waits for the newest step, but for the one before: the device always has work,
    and a signal or a save finds one step under way, not dozens.
    """

    def __init__(self, rows: Iterable[Row] = ()):
        self._rows: list[Metrics | Row] = list(rows)

    def add(self, metrics: Metrics) -> None:
        """Add a step's metrics, scalars on the device."""
        self._rows.append(metrics)

    def settle(self) -> None:
        """Wait for the step before the newest."""
        jax.block_until_ready(self._rows[-2:-1])

    def idle(self) -> bool:
        """Whether the device has finished every step given so far."""
        newest: Any = self._rows[-1] if self._rows else {}
        return all(x.is_ready() for x in newest.values() if hasattr(x, "is_ready"))

    def rows(self) -> tuple[Row, ...]:
        """Read all back, waiting for the newest."""
        self._rows = [{k: float(v) for k, v in row.items()} for row in jax.device_get(self._rows)]
        return tuple(self._rows)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Forget them."""
        self._rows = []


def summarize(rows: tuple[Row, ...]) -> Row:
    """Means over the steps that counted, NaN where none did, and how many were skipped."""
    good = [row for row in rows if not row[NONFINITE]]
    means = {
        name: math.fsum(row[name] for row in good) / len(good) if good else math.nan
        for name in rows[0]
        if name != NONFINITE
    }
    return means | {"nonfinite_steps": float(len(rows) - len(good))}


def check_finite(rows: tuple[Row, ...], run: int, most: int, last_step: int) -> int:
    """Count skipped steps on end.

    Args:
        rows: metrics of the steps up to ``last_step``.
        run: how many on end were skipped before them.
        most: how many on end are too many.
        last_step: the step of the last row.

    Returns:
        How many on end are skipped at the end of ``rows``.

    Raises:
        NonFiniteError: ``most`` were reached.
    """
    for step, row in enumerate(rows, last_step - len(rows) + 1):
        run = run + 1 if row[NONFINITE] else 0
        if run >= most:
            raise NonFiniteError(
                f"{run} steps on end, up to step {step}, had a loss or gradient that is no finite "
                "number, and were skipped (max_nonfinite_steps): lower optimizer.learning_rate or "
                "optimizer.clip_norm, or look at the data; weights and checkpoints are unharmed"
            )
    return run

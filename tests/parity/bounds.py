"""What must hold between an output and its reference: one check per kind of bound, unknown ones
refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity.cases import Case

NOT_BOUNDS = {"key", "params_key", "f64"}

DERIVED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "__first64": lambda x: x.ravel()[:64],
    "__norm": lambda x: np.linalg.norm(x.astype(np.float64)),
}
"""Suffix of a role -> what it takes of the array it is named after, which is in PyTorch's
layout.
"""


def _difference(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    return np.abs(got.astype(np.float64) - want.astype(np.float64))


def _l2(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(x.astype(np.float64)))))


def _worst(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> float:
    """Largest |difference| / bound under `relative`, `absolute` or the looser of both, entry by
    entry.
    """
    allowed = np.maximum(
        spec.get("relative", 0.0) * np.abs(want.astype(np.float64)), spec.get("absolute", 0.0)
    )
    difference = _difference(got, want)
    ratio = np.where(difference == 0, 0.0, difference / np.maximum(allowed, 1e-300))
    return float(np.max(ratio, initial=0.0))


def _max(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> tuple[float, float]:
    if "share_within" in spec:  # the bound then holds for that share only
        return 0.0, spec["max"]
    return float(np.max(_difference(got, want), initial=0.0)), spec["max"]


def _rms(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> tuple[float, float]:
    return float(np.sqrt(np.mean(_difference(got, want) ** 2))), spec["rms"]


def _relative_l2(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> tuple[float, float]:
    return _l2(_difference(got, want)), spec["relative_l2"] * _l2(want)


def _tolerance(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> tuple[float, float]:
    return _worst(got, want, spec), 1.0


def _share_within(
    got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]
) -> tuple[float, float]:
    return float(np.mean(~(_difference(got, want) <= spec["max"]))), 1 - spec["share_within"]


def _share_exact(got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]) -> tuple[float, float]:
    return float(np.mean(got != want)), 1 - spec["share_exact"]


BOUNDS: dict[str, Callable[..., tuple[float, float]]] = {
    "max": _max,
    "rms": _rms,
    "relative": _tolerance,
    "absolute": _tolerance,
    "relative_l2": _relative_l2,
    "share_within": _share_within,
    "share_exact": _share_exact,
}
"""Bound -> (measured, largest allowed)."""


def compare(
    got: np.ndarray, want: np.ndarray, spec: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Bound -> (measured, largest allowed) for every bound of `spec`.

    Raises ValueError where there is no bound, an unknown one, another shape, or anything not
    finite.
    """
    names = spec.keys() - NOT_BOUNDS
    if not names or names - BOUNDS.keys():
        raise ValueError(f"bounds {sorted(names)}: expected some of {sorted(BOUNDS)}")
    if got.shape != want.shape:
        raise ValueError(f"has shape {got.shape}, the reference {want.shape}")
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        raise ValueError("holds values that are not finite")
    return {name: BOUNDS[name](got, want, spec) for name in sorted(names)}


def reference(case: Case, spec: Mapping[str, Any]) -> Any:
    """The stored array of a specification, or the name -> number table of the parameter file it
    points into.
    """
    if "params_key" not in spec:
        return case.array(spec["key"])
    stage, table = spec["params_key"].split(".", 1)
    return case.params[stage][table]


def output(produced: Mapping[str, Any], role: str) -> Any:
    """What a runner produced for a role, derived from the whole array where the role's suffix says
    so.
    """
    if role in produced:
        return produced[role]
    for suffix, derive in DERIVED.items():
        if role.endswith(suffix) and role.removesuffix(suffix) in produced:
            return derive(np.asarray(produced[role.removesuffix(suffix)]))
    raise KeyError(f"the runner produces no {role}; it has {sorted(produced)[:20]}")


def measure(
    case: Case, produced: Mapping[str, Any], precision: str
) -> dict[str, dict[str, tuple[float, float]]]:
    """Role -> bound -> (measured, largest allowed), for every output of a case that has bounds at
    this precision.

    Raises ValueError or KeyError where an output cannot be compared at all.
    """
    results = {}
    for role, spec in case.outputs.items():
        if precision == "float64":
            if "f64" not in spec:
                continue
            spec = spec["f64"]
        got, want = output(produced, role), reference(case, spec)
        if isinstance(want, Mapping):
            if got.keys() != want.keys():
                raise ValueError(
                    f"{role}: other names than stored: {sorted(got.keys() ^ want.keys())}"
                )
            got, want = (np.array([table[n] for n in sorted(want)]) for table in (got, want))
        try:
            results[role] = compare(np.asarray(got), np.asarray(want), spec)
        except ValueError as error:
            raise ValueError(f"{case.name}, {role}: {error}") from error
    return results


def violations(results: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[str]:
    """One line per bound that does not hold."""
    return [
        f"{role}: {bound} {measured:.3g}, allowed {allowed:.3g}"
        for role, bounds in results.items()
        for bound, (measured, allowed) in bounds.items()
        if not measured <= allowed
    ]

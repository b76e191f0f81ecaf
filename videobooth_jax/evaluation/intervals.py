"""How far a figure measured on so many videos can be trusted: 95 % intervals."""

import math

import numpy as np

_NORMAL_975 = 1.959963984540054  # the normal quantile that leaves 2.5 % above


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927): ``right`` out of ``total``, as (low, high).

    It stays inside [0, 1] and is honest at 0 and ``total``, where the usual interval has no width.
    Raises ValueError unless 0 <= right <= total and total > 0.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} out of {total} is no share")
    share, z = right / total, _NORMAL_975
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    low = 0.0 if right == 0 else (middle - reach) / scale
    high = 1.0 if right == total else (middle + reach) / scale
    return low, high


def bootstrap(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over videos, by drawing the videos anew with replacement.

    ``values`` (videos,) holds one number per video. The same values and seed give the same
    interval. Raises ValueError when there is no value.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"one number per video is needed, not an array of shape {values.shape}")
    picks = np.random.default_rng(seed).integers(0, values.size, (draws, values.size))
    low, high = np.quantile(values[picks].mean(1), (0.025, 0.975))
    return float(low), float(high)

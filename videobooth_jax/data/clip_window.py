"""Which frames of a video a training clip shows (Section 4.1 of the paper)."""

import numpy as np


def clip_window(length: int, num_frames: int, span: int, rng: np.random.Generator) -> np.ndarray:
    """Places of ``num_frames`` frames evenly over ``span`` of them: floor(linspace(s, s + span - 1,
    num_frames)), s uniform over all that fit; of a shorter video, over the whole of it.

    Args:
        length: frames of the video.
        num_frames: how many to take; of a single one, the first of the window.
        span: source frames from the first to the last, both included; the paper's is 64.
        rng: draws s.

    Returns:
        (num_frames,) int64, ascending.

    Raises:
        ValueError: the video or the span has fewer than ``num_frames`` frames.
    """
    if min(length, span) < num_frames:
        raise ValueError(
            f"{num_frames} frames cannot be taken from {span} of a video of {length}: both must "
            "have as many"
        )
    span = min(span, length)
    start = int(rng.integers(length - span + 1))
    return start + np.arange(num_frames) * (span - 1) // max(num_frames - 1, 1)

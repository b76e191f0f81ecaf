"""How much a clip moves, measured on small grey copies of its frames."""

import av
import numpy as np

SIDE = 64
"""Width of the copies, px."""
WINDOW, WINDOW_FRAMES = 64, 16
"""The paper trains on 16 frames at floor(linspace(s, s + 63, 16))."""
SAME = 0.1
"""Frames closer than this on average repeat each other, grey levels of 255."""


def small_grey(frame: av.VideoFrame) -> np.ndarray:
    """A frame averaged down to `SIDE` px in width, uint8 (height, width)."""
    height = max(1, round(SIDE * frame.height / frame.width))
    small = frame.reformat(SIDE, height, format="gray", interpolation="AREA")
    return small.to_ndarray()


def motion_of(greys: np.ndarray) -> float:
    """Mean absolute difference of neighbouring frames of windows laid end to end, grey levels.

    A video shorter than a window is one window. Takes uint8 (frames, height, width).
    """
    places: list[int] = []
    for start in range(0, len(greys), WINDOW):
        last = min(start + WINDOW, len(greys)) - 1
        places += np.linspace(start, last, WINDOW_FRAMES).astype(int).tolist()
    return float(_differences(greys[np.unique(places)]).mean())


def frozen_share(greys: np.ndarray) -> float:
    """Share of frames that repeat the one before, of uint8 (frames, height, width)."""
    return float((_differences(greys) < SAME).mean())


def _differences(greys: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame to the one before, (frames - 1,); 0 for one frame."""
    if len(greys) < 2:
        return np.zeros(1)
    return np.abs(np.diff(greys.astype(np.int16), axis=0)).mean(axis=(1, 2))

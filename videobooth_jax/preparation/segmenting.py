"""The one door to `videobooth_jax.segmentation`: where in a frame is the subject?"""

from typing import Any, NamedTuple

import numpy as np

from videobooth_jax.preparation.config import PrepareConfig


class Found(NamedTuple):
    """``mask`` bool (height width), ``box`` x1, y1, x2, y2, px, ``score`` in 0..1 or None."""

    mask: np.ndarray
    box: tuple[float, ...]
    score: float | None


def by_box(picture: np.ndarray, box: tuple[float, ...]) -> Found:
    """What stands out inside a box, by GrabCut.

    Raises:
        ValueError: nothing does.
        ImportError: OpenCV is not installed.
    """
    from videobooth_jax.segmentation import segment

    return _found(segment(picture, "box", box=box))


class ByWords:
    """Subjects found by their words; the models are loaded once."""

    def __init__(self, config: PrepareConfig):
        """Load the models.

        Raises:
            ImportError, OSError, ValueError: libraries or weights are missing.
        """
        from videobooth_jax.segmentation import WordSegmenter

        self._models = WordSegmenter.load(config.detector, config.segmenter)

    def __call__(self, picture: np.ndarray, subject: str) -> Found:
        """The best match.

        Raises:
            ValueError: none is good enough.
        """
        from videobooth_jax.segmentation import segment

        return _found(segment(picture, self._models, subject=subject))


def _found(result: Any) -> Found:
    return Found(result.mask, tuple(result.box), result.score)

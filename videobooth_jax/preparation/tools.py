"""What finds subjects, loaded once by a process and only when an input needs it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import numpy as np

from videobooth_jax.preparation import segmenting
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.nouns import load_nouns
from videobooth_jax.preparation.segmenting import Found


@dataclasses.dataclass(frozen=True)
class Tools:
    """The models that a configuration names, loaded on first use."""

    config: PrepareConfig

    @functools.cached_property
    def nouns(self) -> Callable[[str], list[str]]:
        """From a caption to candidates for its subject."""
        return load_nouns(self.config.noun_model)

    @functools.cached_property
    def by_words(self) -> Callable[[np.ndarray, str], Found]:
        """From a frame and words to where they are."""
        return segmenting.ByWords(self.config)

    def by_box(self, picture: np.ndarray, box: tuple[float, ...]) -> Found:
        """What stands out in a box of a frame."""
        return segmenting.by_box(picture, box)


def check_tools(inputs: Iterable[ClipInput], config: PrepareConfig) -> None:
    """Load, before any work, whatever one of the inputs will need.

    Raises:
        ImportError, ValueError, OSError: something is missing; the sentence says what to install
            or what to give instead.
    """
    tools = Tools(config)
    needs = {need for given in inputs if given.refused is None for need in _needs(given, config)}
    if "nouns" in needs:
        _ = tools.nouns
    if "box" in needs:
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "boxes are refined to masks by OpenCV: pip install 'videobooth_jax[photo]', or "
                "give masks"
            ) from error
    if "auto" in needs:
        _ = tools.by_words


def _needs(given: ClipInput, config: PrepareConfig) -> Iterable[str]:
    if not given.subjects:
        yield "nouns"
    if not given.mask:
        yield "box" if given.box else config.segment

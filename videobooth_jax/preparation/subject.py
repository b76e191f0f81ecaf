"""The subject of a clip: its words, its frame, its mask."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from videobooth_jax.data.image_prompt import mask_box, read_mask
from videobooth_jax.data.videos import Video
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput, SetAside, existing
from videobooth_jax.preparation.segmenting import Found

SLACK = 2.0
"""Detectors round: a box may stick out by so much and is clipped, px."""


class Subject(NamedTuple):
    """``words`` as in the caption; ``frame`` of the video, and ``picture`` it, uint8 (height width
    3); ``found`` where in it; ``method`` how.
    """

    words: str
    frame: int
    picture: np.ndarray
    found: Found
    method: str


class Finders(Protocol):
    """As `preparation.tools.Tools`."""

    @property
    def nouns(self) -> Callable[[str], list[str]]:
        """From a caption to candidates for its subject."""

    @property
    def by_words(self) -> Callable[[np.ndarray, str], Found]:
        """From a frame and words to where they are."""

    def by_box(self, picture: np.ndarray, box: tuple[float, ...]) -> Found:
        """What stands out in a box of a frame."""


def words_in_caption(words: str, caption: str) -> str | None:
    """``words`` as they stand in ``caption``, whole words in any case; None if they do not."""
    found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", caption, re.IGNORECASE)
    return found[0] if found and words else None


def candidates(given: ClipInput, tools: Finders) -> list[str]:
    """Words of the caption to be tried, in order.

    Raises:
        SetAside: there is no caption, or no candidate in it.
    """
    if not given.caption:
        raise SetAside("no_caption", "the caption is empty")
    if given.subjects:
        found = [words_in_caption(words, given.caption) for words in given.subjects]
        if not any(found):
            raise SetAside(
                "subject_not_in_caption",
                f"{' or '.join(map(repr, given.subjects))} does not occur in {given.caption!r}",
            )
        return [words for words in found if words]
    if nouns := tools.nouns(given.caption):
        return nouns
    raise SetAside("no_subject", f"{given.caption!r} has no noun")


def find_subject(video: Video, given: ClipInput, config: PrepareConfig, tools: Finders) -> Subject:
    """The first candidate that is found, by the mask or box given or else by its words.

    Raises:
        SetAside: none is, or mask and box are no use.
    """
    words = candidates(given, tools)
    if given.mask or given.box:
        return _given_subject(video, words[0], given, tools)
    if config.segment == "given":
        raise SetAside("no_subject", "neither a mask nor a box was given")
    count = video.info.num_frames
    frames = [0]
    if config.mask_frame == "best":
        frames = np.unique(np.linspace(0, count - 1, config.mask_candidates).astype(int)).tolist()
    pictures = video.read(frames)
    missed = []
    for candidate in words:
        try:
            frame, picture, found = _best(candidate, frames, pictures, tools)
        except ValueError as error:
            missed.append(str(error))
            continue
        return Subject(candidate, frame, picture, found, "auto")
    raise SetAside("no_subject", "; ".join(missed))


def _best(
    words: str, frames: Sequence[int], pictures: Iterable[np.ndarray], tools: Finders
) -> tuple[int, np.ndarray, Found]:
    """Where the words score highest; the earlier frame of equals."""
    found, missed = [], None
    for frame, picture in zip(frames, pictures, strict=True):
        try:
            found.append((frame, picture, tools.by_words(picture, words)))
        except ValueError as error:
            missed = error
    if not found and missed:
        raise missed
    return max(found, key=lambda item: item[2].score or 0.0)


def _given_subject(video: Video, words: str, given: ClipInput, tools: Finders) -> Subject:
    if given.mask_frame >= video.info.num_frames:
        raise SetAside(
            "bad_mask" if given.mask else "bad_box",
            f"mask_frame is {given.mask_frame} of a video with {video.info.num_frames} frames",
        )
    picture = video.read([given.mask_frame])[0]
    box = None if given.box is None else _clipped(given.box, picture.shape[:2])
    if not given.mask:
        assert box is not None
        try:
            found = tools.by_box(picture, box)
        except ValueError as error:
            raise SetAside("no_subject", str(error)) from error
        return Subject(words, given.mask_frame, picture, found, "box")
    mask = _read_mask(given, picture.shape[:2])
    if box is None:
        box = mask_box(mask)
    left, top, right, bottom = (int(corner) for corner in box)
    if not mask[top:bottom, left:right].any():
        raise SetAside("bad_box", f"the mask is empty inside the box {list(box)}")
    return Subject(words, given.mask_frame, picture, Found(mask, box, None), "mask")


def _read_mask(given: ClipInput, size: tuple[int, ...]) -> np.ndarray:
    path = existing(given.mask_root, given.mask)
    try:
        return read_mask(path, (size[1], size[0]))
    except ValueError as error:
        raise SetAside("bad_mask", str(error).replace(str(path), given.mask)) from error


def _clipped(box: tuple[float, ...], size: tuple[int, ...]) -> tuple[float, ...]:
    """A box cut to the picture's edges, if it lies inside up to `SLACK`."""
    height, width = size
    limits = (width, height, width, height)
    if all(-SLACK <= corner <= limit + SLACK for corner, limit in zip(box, limits, strict=True)):
        cut = tuple(min(max(c, 0.0), float(n)) for c, n in zip(box, limits, strict=True))
        if int(cut[0]) < int(cut[2]) and int(cut[1]) < int(cut[3]):
            return cut
    raise SetAside(
        "bad_box",
        f"the box {list(box)} is none inside the picture of {width}x{height} px: corners are x1, "
        "y1, x2, y2 with x1 < x2 and y1 < y2",
    )

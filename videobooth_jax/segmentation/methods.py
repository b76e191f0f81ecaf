"""`segment`: any picture and a hint in, the subject's mask and box out.

A hint is a mask, an alpha channel, a box, a click or a word; `METHODS` has one row for each way.
What is found becomes the image prompt by `image_prompt.square_cutout`, the published preparation.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from videobooth_jax.data.image_prompt import (
    Box,
    Picture,
    check_box,
    checked_cutout,
    inside_white_margin,
    mask_box,
    on_white,
    open_picture,
    read_mask,
    used_alpha,
)
from videobooth_jax.segmentation.grab_cut import Corners, Pixel, grab_cut
from videobooth_jax.segmentation.words import WordSegmenter

Point = Sequence[float]

PLAIN = (
    "nothing tells what of the picture is the subject, so all of it is: for a better likeness give "
    "a box around the subject (--box), a click on it (--point), a mask (--mask), a picture with a "
    "transparent or white background, or have it found by its word (--segment auto)"
)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A picture and what of it is the subject.

    Attributes:
        picture: uint8 (h, w, 3), upright, transparent parts white.
        mask: bool (h, w), set where the subject is.
        box: x1, y1, x2, y2 in px around the subject: what is cropped to.
        method: how it was found, a key of `METHODS`.
        score: how sure the detector was of it, 0..1; None where nothing was detected.
    """

    picture: np.ndarray
    mask: np.ndarray
    box: Corners
    method: str
    score: float | None = None

    @property
    def share(self) -> float:
        """How much of the picture the subject takes, 0..1."""
        left, top, right, bottom = self.box
        return float(self.mask[top:bottom, left:right].sum() / self.mask.size)

    def square(self) -> np.ndarray:
        """The image prompt: the subject alone on white in a square, uint8 (side, side, 3).

        Raises ValueError when hardly anything of the subject is left.
        """
        return checked_cutout(self.picture, self.mask, self.box)


@dataclasses.dataclass(frozen=True)
class _Hints:
    """What is known of the subject beside the picture, checked."""

    mask: Picture | None
    box: Corners | None
    point: Pixel | None
    subject: str | None
    segmenter: WordSegmenter | None


Found = tuple[np.ndarray, Corners, float | None]


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to tell the subject.

    ``find`` takes the opened picture, its colours on white and the hints. ``needs`` names hints of
    which at least one must be given, ``takes`` the others it can use.
    """

    find: Callable[[Image.Image, np.ndarray, _Hints], Found]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def _by_mask(image: Image.Image, pixels: np.ndarray, hints: _Hints) -> Found:
    assert hints.mask is not None, "checked before"
    shown = read_mask(hints.mask, image.size)
    return shown, hints.box or mask_box(shown), None


def _by_alpha(image: Image.Image, pixels: np.ndarray, hints: _Hints) -> Found:
    shown = used_alpha(image)
    if shown is None:
        raise ValueError(
            "the picture has no transparent parts to tell the subject by: choose another method "
            f"than alpha: {', '.join(METHODS)}"
        )
    if not shown.any():
        raise ValueError("the picture shows nothing: it is transparent everywhere")
    return shown, hints.box or mask_box(shown), None


def _by_box(image: Image.Image, pixels: np.ndarray, hints: _Hints) -> Found:
    shown = grab_cut(pixels, hints.box, hints.point)
    return shown, mask_box(shown), None


def _by_word(image: Image.Image, pixels: np.ndarray, hints: _Hints) -> Found:
    assert hints.subject is not None, "checked before"
    segmenter = hints.segmenter or WordSegmenter.load()
    shown, score = segmenter.find(pixels, hints.subject)
    return shown, mask_box(shown), score


def _by_margin(image: Image.Image, pixels: np.ndarray, hints: _Hints) -> Found:
    if hints.box is not None:
        return np.ones(pixels.shape[:2], bool), hints.box, None
    shown = inside_white_margin(pixels)
    if not shown.any():
        raise ValueError("the picture shows nothing: it is white everywhere")
    return shown, mask_box(shown), None


METHODS: dict[str, Method] = {
    "auto": Method(_by_word, needs=("subject",)),
    "mask": Method(_by_mask, needs=("mask",), takes=("box",)),
    "alpha": Method(_by_alpha, takes=("box",)),
    "box": Method(_by_box, needs=("box", "point")),
    "none": Method(_by_margin, takes=("box",)),
}
"""How to tell the subject: found by its word, as a mask says, as transparency says, by its colours
in a box or around a click, or not at all: the whole picture, or box, less a plain white margin."""


def segment(
    picture: Picture,
    method: str | WordSegmenter | None = None,
    *,
    mask: Picture | None = None,
    box: Box | None = None,
    point: Point | None = None,
    subject: str | None = None,
) -> Segmentation:
    """Tell what of a picture is the subject.

    Args:
        picture: a file, a Pillow image or a uint8 array (h, w, 3 or 4).
        method: a key of `METHODS`; or a loaded `WordSegmenter`, which is "auto" for many pictures.
            None: "mask" if one is given, else "alpha" if the picture has transparent parts, else
            "box" if a box or point is given, else "none", with a warning if the picture has no
            white margin either.
        mask: a picture of the same size, set where the subject is.
        box: (x1, y1, x2, y2) around the subject, px. "box" looks for the subject inside, the
            others crop to it.
        point: (x, y) of a px of the subject.
        subject: the word for it.

    Raises:
        ValueError: a picture or hint that cannot be used, a hint that is missing or of no use to
            the method, or nothing is found.
        ImportError: the method needs a library that is not installed.
    """
    segmenter = method if isinstance(method, WordSegmenter) else None
    name = "auto" if isinstance(method, WordSegmenter) else method
    check_method(name, mask=mask, box=box, point=point, subject=subject)
    image = open_picture(picture)
    corners = None if box is None else check_box(box, image.size)
    pixel = None if point is None else _check_point(point, corners, image.size)
    pixels = on_white(image)
    chosen = name or _own_method(image, mask, box, point)
    check_method(chosen, mask=mask, box=box, point=point, subject=subject)
    hints = _Hints(mask, corners, pixel, subject, segmenter)
    shown, found, score = METHODS[chosen].find(image, pixels, hints)
    if name is None and chosen == "none" and box is None and shown.all():
        warnings.warn(PLAIN, stacklevel=2)
    return Segmentation(pixels, shown, found, chosen, score)


def check_method(
    method: str | None,
    *,
    mask: object = None,
    box: object = None,
    point: object = None,
    subject: str | None = None,
) -> None:
    """Raise ValueError for an unknown method, and for hints it lacks or cannot use.

    A subject's word is always welcome.
    """
    if method is None:
        return
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    row = METHODS[method]
    hints = {"mask": mask, "box": box, "point": point, "subject": subject or None}
    given = {name for name, value in hints.items() if value is not None}
    if row.needs and not given & set(row.needs):
        raise ValueError(f"method {method} needs a {' or a '.join(row.needs)}")
    if unused := sorted(given - {*row.needs, *row.takes, "subject"}):
        raise ValueError(f"method {method} has no use for a {unused[0]}: leave it away")


def _own_method(image: Image.Image, mask: object, box: object, point: object) -> str:
    if mask is not None:
        return "mask"
    if used_alpha(image) is not None:
        return "alpha"
    return "none" if box is None and point is None else "box"


def _check_point(point: Point, box: Corners | None, size: tuple[int, int]) -> Pixel:
    """The px a point lies in. Raises ValueError unless it is inside the picture and the box."""
    if len(point) != 2 or not np.isfinite(point).all():
        raise ValueError(f"a point is two numbers x, y in pixels, not {list(point)}")
    x, y = (int(np.floor(place)) for place in point)
    left, top, right, bottom = box or (0, 0, *size)
    if not (left <= x < right and top <= y < bottom):
        where = "picture" if box is None else "box"
        raise ValueError(
            f"the point {list(point)} does not lie inside the {where}: x goes from {left} to "
            f"{right - 1} and y from {top} to {bottom - 1}"
        )
    return x, y

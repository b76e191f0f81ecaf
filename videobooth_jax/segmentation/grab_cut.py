"""GrabCut: the subject of a box or of a click, from the colours inside and outside.

Colours of subject and background are mixtures of Gaussians, and a minimum cut finds the edge
between them, in turns: Rother, Kolmogorov and Blake, "GrabCut", SIGGRAPH 2004, as OpenCV has it. It
runs on CIELAB colours of a copy of `WORK_SIDE` px at most, around the box. Nothing is learnt: a
subject with the colours of its surroundings is not found.
"""

from types import ModuleType

import numpy as np

from videobooth_jax.data.image_prompt import mask_box
from videobooth_jax.segmentation.cleaning import clean, enlarge

WORK_SIDE = 480
"""Longer side that the picture, or the part around the box, is scaled down to, px."""
MARGIN = 0.25
"""How much around the box tells the background's colours, in sides of the box."""
EDGE = 0.005
"""Strips between box and edge of the picture up to this share of its longer side are inside the
box: rounding left them, or a hand, and as background they would teach the subject's own colours."""
ITERATIONS = 8
CLICKED = 0.02
"""Radius around a click that is subject for sure, in shorter sides."""
AROUND_CLICK = 0.4
"""Radius around a click that may be subject at first, in shorter sides."""
GROWTH, GROWTHS = 0.15, 2
"""Around what a click gave a box is drawn, this much larger, and cut again, so many times."""
FULL = 0.99
"""Share of a box that a subject cannot have: then nothing was told apart."""

Corners = tuple[int, int, int, int]
Pixel = tuple[int, int]


def grab_cut(
    pixels: np.ndarray, box: Corners | None = None, point: Pixel | None = None
) -> np.ndarray:
    """The subject as a mask, bool (h, w); the same for the same input, whatever ran before.

    Args:
        pixels: uint8 (h, w, 3).
        box: (x1, y1, x2, y2) px around the subject; up to the picture's edge where that cuts the
            subject off.
        point: (x, y) of a px of the subject; with it only the piece that holds it is kept. Needed
            without a box.

    Raises:
        ValueError: nothing is told from the background, or no background from the subject.
        ImportError: OpenCV is not installed.
    """
    cv2 = _opencv()
    height, width = pixels.shape[:2]
    box = box and _to_the_edge(box, width, height)
    left, top, right, bottom = _around(box or (0, 0, width, height), MARGIN, width, height)
    crop = pixels[top:bottom, left:right]
    scale = min(1.0, WORK_SIDE / max(crop.shape[:2]))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    small = cv2.cvtColor(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    click = None
    if point is not None:
        click = tuple(
            min(int((place - first) * scale), side - 1)
            for place, first, side in zip(point, (left, top), size, strict=True)
        )
    if box is not None:
        first, last = np.subtract(box[:2], (left, top)), np.subtract(box[2:], (left, top))
        inner = (*np.floor(first * scale).astype(int), *np.ceil(last * scale).astype(int))
        shown = _cut(small, _box_marks(size, inner, click), click)
        _check(shown, box, (inner[2] - inner[0]) * (inner[3] - inner[1]))
    else:
        assert click is not None, "grab_cut needs a box or a point"
        shown = _grown(small, click)
        _check(shown, point, shown.size)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = enlarge(shown, right - left, bottom - top)
    return mask


def _grown(small: np.ndarray, click: Pixel) -> np.ndarray:
    """From a click outwards: a cut around it, then of a box around what was found, and again."""
    size = (small.shape[1], small.shape[0])
    shown = _cut(small, _click_marks(size, click), click)
    for _ in range(GROWTHS):
        if not shown.any():
            break
        box = _around(mask_box(shown), GROWTH, *size)
        wider = _cut(small, _box_marks(size, box, click), click)
        if not wider.any() or np.array_equal(wider, shown):
            break
        shown = wider
    return shown


def _cut(small: np.ndarray, marks: np.ndarray, click: Pixel | None) -> np.ndarray:
    """GrabCut from ``marks`` uint8 (h, w), cleaned: bool (h, w)."""
    cv2 = _opencv()
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, marks, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return clean((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD), click)


def _box_marks(size: tuple[int, int], box: Corners, click: Pixel | None) -> np.ndarray:
    """Background outside of the box; if that is nowhere, perhaps in the corners."""
    cv2 = _opencv()
    left, top, right, bottom = box
    marks = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    marks[top:bottom, left:right] = cv2.GC_PR_FGD
    if (marks == cv2.GC_PR_FGD).all():
        marks[:] = cv2.GC_PR_BGD
        axes = (size[0] // 2, size[1] // 2)
        cv2.ellipse(marks, axes, axes, 0, 0, 360, cv2.GC_PR_FGD, -1)
    return marks if click is None else _with_click(marks, click)


def _click_marks(size: tuple[int, int], click: Pixel) -> np.ndarray:
    """Perhaps subject near the click, perhaps background elsewhere, surely so on the rim."""
    cv2 = _opencv()
    marks = np.full(size[::-1], cv2.GC_PR_BGD, np.uint8)
    rim = max(1, round(CLICKED * min(size)))
    cv2.rectangle(marks, (0, 0), (size[0] - 1, size[1] - 1), cv2.GC_BGD, rim)
    cv2.circle(marks, click, max(2, round(AROUND_CLICK * min(size))), cv2.GC_PR_FGD, -1)
    return _with_click(marks, click)


def _with_click(marks: np.ndarray, click: Pixel) -> np.ndarray:
    cv2 = _opencv()
    radius = max(1, round(CLICKED * min(marks.shape)))
    return cv2.circle(marks, click, radius, cv2.GC_FGD, -1)


def _to_the_edge(box: Corners, width: int, height: int) -> Corners:
    """The box with its sides moved onto the picture's edges that they all but touch."""
    near = max(1, round(EDGE * max(width, height)))
    left, top = (0 if place <= near else place for place in box[:2])
    right, bottom = (
        end if end - place <= near else place
        for place, end in zip(box[2:], (width, height), strict=True)
    )
    return left, top, right, bottom


def _around(box: Corners, share: float, width: int, height: int) -> Corners:
    """The box made larger by a share of its sides all around, within the picture."""
    left, top, right, bottom = box
    x, y = (max(8, round(share * side)) for side in (right - left, bottom - top))
    return max(0, left - x), max(0, top - y), min(width, right + x), min(height, bottom + y)


def _check(shown: np.ndarray, where: Corners | Pixel | None, area: int) -> None:
    """Raise ValueError unless something was told from something else."""
    ways = "give another box, a --mask, or --segment auto"
    if not shown.any():
        raise ValueError(
            f"no subject was found at {where}: its colours are those of its surroundings; {ways}"
        )
    if shown.sum() >= FULL * area:
        raise ValueError(
            f"the subject could not be told from its background at {where}: all of it looks like "
            f"subject; leave some background around it, {ways}, or take all with --segment none"
        )


def _opencv() -> ModuleType:
    """OpenCV, imported when first needed. Raises ImportError."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "finding the subject in a box needs OpenCV: pip install 'videobooth_jax[photo]'; or "
            "give a --mask, or take the whole box with --segment none"
        ) from error
    return cv2

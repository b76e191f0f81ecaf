"""From a picture of the subject to what the networks see: cut out on white, squared, resized,
scaled.

`square_cutout` and `resize` follow the published preparation: background white, cropped to the box,
padded white to a square, bilinear with half-pixel centres and no antialiasing, rounded half to
even. `cut_out` is the door for people's pictures: it takes files, alpha channels, masks and boxes,
and says plainly what is wrong with them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from videobooth_jax.data.pictures import (
    MIN_SIDE,
    Picture,
    on_white,
    open_picture,
    read_mask,
    used_alpha,
)

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

MAX_SIDE = 10_000
"""Of a subject's square, px: it takes 300 MB."""

Box = Sequence[float]


def cut_out(picture: Picture, mask: Picture | None = None, box: Box | None = None) -> np.ndarray:
    """The subject alone on white, in the middle of a square, uint8 (side, side, 3).

    What is subject: where ``mask`` is set (an index other than 0 in a palette picture, the brighter
    half otherwise) or else the picture's alpha channel; cropped to ``box`` (x1, y1, x2, y2 in
    px) or else to what the mask shows. With none of them it is the whole picture less a plain
    white margin. Pictures are files, Pillow images or uint8 arrays (h, w, 3 or 4).

    Raises ValueError for files that cannot be read, have no pixels to speak of or far too many,
    masks that are empty or of another size, and boxes that do not lie inside the picture.
    """
    image = open_picture(picture)
    if box is not None:
        check_box(box, image.size)
    pixels, alpha = on_white(image), used_alpha(image)
    if mask is not None:
        shown = read_mask(mask, image.size)
    elif alpha is not None:
        shown = alpha
    elif box is not None:
        shown = np.ones(pixels.shape[:2], bool)
    else:
        shown = inside_white_margin(pixels)
    if not shown.any():
        raise ValueError("the picture shows nothing: its mask or alpha channel is empty everywhere")
    return checked_cutout(pixels, shown, mask_box(shown) if box is None else box)


def checked_cutout(pixels: np.ndarray, shown: np.ndarray, box: Box) -> np.ndarray:
    """`square_cutout`, refused with a ValueError when hardly anything is left in it, or when its
    side would be longer than `MAX_SIDE`.
    """
    left, top, right, bottom = (int(corner) for corner in box)
    if max(right - left, bottom - top) > MAX_SIDE:
        raise ValueError(
            f"the subject takes {right - left}x{bottom - top} px, and a square around it at most "
            f"{MAX_SIDE}x{MAX_SIDE}: scale the picture down, or give a smaller box"
        )
    square = square_cutout(pixels, shown, box)
    if len(square) < MIN_SIDE or (square == 255).all():
        raise ValueError(
            f"hardly anything of the subject is left ({len(square)} px wide after cutting it out): "
            "check that mask and box show it"
        )
    return square


def inside_white_margin(pixels: np.ndarray) -> np.ndarray:
    """True inside the box around everything that is not white, as bool (h, w)."""
    shown = np.zeros(pixels.shape[:2], bool)
    painted = pixels.min(-1) < 250
    if painted.any():
        left, top, right, bottom = mask_box(painted)
        shown[top:bottom, left:right] = True
    return shown


def check_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in whole px, truncated as published.

    Raises ValueError unless it holds some px and lies inside the picture of ``size`` (width,
    height).
    """
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError(f"a box is four numbers x1, y1, x2, y2 in pixels, not {list(box)}")
    left, top, right, bottom = (int(corner) for corner in box)
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise ValueError(
            f"the box {list(box)} does not lie inside the picture: with x1 < x2 and y1 < y2, x "
            f"goes from 0 to {size[0]} and y from 0 to {size[1]}"
        )
    return left, top, right, bottom


def mask_box(shown: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box (x1, y1, x2, y2) around the set pixels of a mask that is not empty."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def square_cutout(image: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Published cut-out: white where ``mask`` (h, w) is 0, cropped to ``box``, padded to a square.

    ``image`` is uint8 (h, w, 3); the box's corners are truncated to whole px. Uneven padding puts
    the smaller half left or above. Returns uint8 (side, side, 3).
    """
    left, top, right, bottom = (int(corner) for corner in box)
    white = np.uint8(255)
    crop = np.where(mask[..., None] > 0, image, white)[top:bottom, left:right]
    height, width = crop.shape[:2]
    side = max(height, width)
    y, x = (side - height) // 2, (side - width) // 2
    return np.pad(
        crop, ((y, side - height - y), (x, side - width - x), (0, 0)), constant_values=white
    )


def place_on_canvas(square: np.ndarray, side: int, share: float) -> np.ndarray:
    """A square cut-out in the middle of a white canvas, filling ``share`` of its side, antialiased.

    This is how the sprite world shows subjects: at the size they have in the video. Takes uint8
    (n, n, 3), returns uint8 (side, side, 3).
    """
    inner = round(side * share)
    if not 1 <= inner <= side:
        raise ValueError(f"a share of {share} of {side} px does not fit: use one in (0, 1]")
    small = Image.fromarray(square).resize((inner, inner), Image.Resampling.HAMMING)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(small, ((side - inner) // 2, (side - inner) // 2))
    return np.asarray(canvas)


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """`resize_bilinear` to a square, rounded half to even, uint8; as it is if it has that size."""
    if image.shape[:2] == (side, side):
        return image
    return np.rint(resize_bilinear(image, side, side)).astype(np.uint8)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of (h, w, c), float32: half-pixel centres, edges repeated, no
    antialiasing."""
    top, bottom, y = _neighbours(image.shape[0], height)
    left, right, x = _neighbours(image.shape[1], width)
    image = image.astype(np.float32)
    y, x = y[:, None, None], x[:, None]
    rows = image[top] * (1 - y) + image[bottom] * y
    return rows[:, left] * (1 - x) + rows[:, right] * x


def clip_input(image: Any) -> Any:
    """uint8 (..., 3), of NumPy or JAX, to the image tower's input, float32."""
    return clip_normalised(image.astype(np.float32) / 255)


def clip_normalised(image: Any) -> Any:
    """Floats 0..1 (..., 3), of NumPy or JAX, less CLIP's mean, over its deviation."""
    channels = (1,) * (image.ndim - 1) + (3,)
    return (image - CLIP_MEAN.reshape(channels)) / CLIP_STD.reshape(channels)


def vae_input(image: Any) -> Any:
    """uint8 (..., 3), of NumPy or JAX, to the autoencoder's range [-1, 1], float32."""
    return image.astype(np.float32) / np.float32(127.5) - 1


def _neighbours(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every wanted sample its two nearest source samples and the weight of the second."""
    half = np.float32(0.5)
    where = (np.arange(wanted, dtype=np.float32) + half) * np.float32(length / wanted) - half
    where = np.clip(where, 0, length - 1)
    first = np.floor(where).astype(np.int64)
    weight = where - first.astype(np.float32)
    return first, np.minimum(first + 1, length - 1), weight

"""From a picture of the subject to what the networks see: cut out on white, squared, resized,
scaled.

`square_cutout` and `resize` follow the published preparation: background white, cropped to the box,
padded white to a square, bilinear with half-pixel centres and no antialiasing, rounded half to
even. `cut_out` is the door for people's pictures: it takes files, alpha channels, masks and boxes,
and says plainly what is wrong with them.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded."""
MIN_SIDE = 8
"""Smaller pictures, and subjects whose longer side is smaller, show nothing, px."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

Picture = str | Path | Image.Image | np.ndarray
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
    size = image.size
    if box is not None:
        _check_box(box, size)
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    pixels = np.asarray(_on_white(image))
    if mask is not None:
        shown = read_mask(mask, size)
    elif alpha is not None and (alpha < 255).any():
        shown = alpha > 0
    elif box is not None:
        shown = np.ones(pixels.shape[:2], bool)
    else:
        shown = _inside_white_margin(pixels)
    if not shown.any():
        raise ValueError("the picture shows nothing: its mask or alpha channel is empty everywhere")
    square = square_cutout(pixels, shown, mask_box(shown) if box is None else box)
    if len(square) < MIN_SIDE or (square == 255).all():
        raise ValueError(
            f"hardly anything of the subject is left ({len(square)} px wide after cutting it out): "
            "check that mask and box show it"
        )
    return square


def open_picture(source: Picture) -> Image.Image:
    """Read a picture, upright, its size checked before it is decoded. Raises ValueError."""
    name = "the picture" if isinstance(source, Image.Image | np.ndarray) else str(source)
    image = _as_image(source, name)
    try:
        return _decoded(image, name)
    except ValueError:
        if image is not source:
            image.close()
        raise


def read_mask(source: Picture, size: tuple[int, int]) -> np.ndarray:
    """A mask as bool (h, w). ``size`` is the picture's (width, height).

    Palette masks count every index but 0, others what is brighter than half their brightest value.
    Raises ValueError when it is unreadable, of another size or empty.
    """
    if isinstance(source, np.ndarray) and source.ndim == 2:
        source = Image.fromarray(source.astype(np.uint8) if source.dtype == bool else source)
    image = open_picture(source)
    if image.size != size:
        raise ValueError(
            f"the mask is {image.width}x{image.height} px and the picture {size[0]}x{size[1]}: "
            "a mask must have the size of its picture"
        )
    values = np.asarray(image if image.mode == "P" else image.convert("L"))
    shown = values > (0 if image.mode == "P" else values.max() / 2)
    if not shown.any():
        raise ValueError("the mask is empty: it marks no pixel as subject")
    return shown


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


def clip_input(image: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) to the image tower's input: 0..1 less CLIP's mean over its deviation,
    float32."""
    return (image.astype(np.float32) / 255 - CLIP_MEAN) / CLIP_STD


def vae_input(image: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) to the autoencoder's range [-1, 1], float32."""
    return image.astype(np.float32) / np.float32(127.5) - 1


def _neighbours(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every wanted sample its two nearest source samples and the weight of the second."""
    half = np.float32(0.5)
    where = (np.arange(wanted, dtype=np.float32) + half) * np.float32(length / wanted) - half
    where = np.clip(where, 0, length - 1)
    first = np.floor(where).astype(np.int64)
    weight = where - first.astype(np.float32)
    return first, np.minimum(first + 1, length - 1), weight


def _as_image(source: Picture, name: str) -> Image.Image:
    """An undecoded Pillow image of a file, or the given image or array as one."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] not in (3, 4):
            raise ValueError(
                f"an array picture must be uint8 (height, width, 3 or 4), not {source.dtype} "
                f"{source.shape}"
            )
        return Image.fromarray(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large: {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {name}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"{name} cannot be read as a picture ({', '.join(FORMATS)}): {error}"
        ) from error


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """The picture decoded and upright, once its size and depth have been accepted."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} is too large: {width}x{height} px, at most {MAX_PIXELS // 1_000_000} million "
            "pixels are read; scale it down first"
        )
    if min(width, height) < MIN_SIDE:
        raise ValueError(
            f"{name} is too small: {width}x{height} px, it needs at least {MIN_SIDE}x{MIN_SIDE}"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{name} has more than 8 bits per colour: save it as an 8-bit picture")
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} is damaged and cannot be read: {error}") from error
    return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    """Colours of a picture, its transparent parts white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _inside_white_margin(pixels: np.ndarray) -> np.ndarray:
    """True inside the box around everything that is not white, as bool (h, w)."""
    shown = np.zeros(pixels.shape[:2], bool)
    painted = pixels.min(-1) < 250
    if painted.any():
        left, top, right, bottom = mask_box(painted)
        shown[top:bottom, left:right] = True
    return shown


def _check_box(box: Box, size: tuple[int, int]) -> None:
    """Raise ValueError unless the box holds some px and lies inside the picture."""
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError(f"a box is four numbers x1, y1, x2, y2 in pixels, not {list(box)}")
    left, top, right, bottom = (int(corner) for corner in box)
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise ValueError(
            f"the box {list(box)} does not lie inside the picture: with x1 < x2 and y1 < y2, x "
            f"goes from 0 to {size[0]} and y from 0 to {size[1]}"
        )

"""Any picture that people have, opened: upright, 8 bits per colour, its size checked first.

What cameras, scanners and drawing programs write is read as a person sees it: rotated as its EXIF
block says, CMYK (also inverted, as Adobe writes it) as RGB, 16 bits scaled to 8, palettes with and
without transparency, one-bit pictures, and of an animation its first frame. Colour profiles are not
applied.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded."""
MIN_SIDE = 8
"""Smaller pictures, and subjects whose longer side is smaller, show nothing, px."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
"""Pillow's names of the kinds of pixels read, beside 16-bit grey."""

Picture = str | Path | Image.Image | np.ndarray


def open_picture(source: Picture) -> Image.Image:
    """Read a picture, upright and 8-bit, its size checked before it is decoded.

    Files, Pillow images or uint8 arrays (h, w, 3 or 4). Raises ValueError for what cannot be read,
    has no pixels to speak of, far too many, or 32 bits each.
    """
    return _eight_bits(_open(source), _name(source))


def read_mask(source: Picture, size: tuple[int, int]) -> np.ndarray:
    """A mask as bool (h, w). ``size`` is the picture's (width, height).

    Palette masks count every index but 0, others what is brighter than half their brightest value.
    Raises ValueError when it is unreadable, of another size or empty.
    """
    if isinstance(source, np.ndarray) and source.ndim == 2:
        source = Image.fromarray(source.astype(np.uint8) if source.dtype == bool else source)
    image = _open(source)
    if image.size != size:
        raise ValueError(
            f"the mask is {image.width}x{image.height} px and the picture {size[0]}x{size[1]}: "
            "a mask must have the size of its picture"
        )
    indexed = image.mode == "P"
    values = np.asarray(image if indexed or _is_deep(image) else image.convert("L"))
    shown = values > (0 if indexed else values.max() / 2)
    if not shown.any():
        raise ValueError("the mask is empty: it marks no pixel as subject")
    return shown


def on_white(image: Image.Image) -> np.ndarray:
    """Colours of an opened picture, its transparent parts white: uint8 (h, w, 3)."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def used_alpha(image: Image.Image) -> np.ndarray | None:
    """Where an opened picture is not clear, bool (h, w); None if it is opaque everywhere."""
    if not image.has_transparency_data:
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return alpha > 0 if (alpha < 255).any() else None


def _name(source: Picture) -> str:
    return "the picture" if isinstance(source, Image.Image | np.ndarray) else str(source)


def _open(source: Picture) -> Image.Image:
    """The picture upright, as deep as it is. Raises ValueError."""
    name = _name(source)
    image = _as_image(source, name)
    try:
        return _decoded(image, name)
    finally:
        if image is not source:
            image.close()


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
    except Exception as error:  # readers of damaged files raise almost anything
        raise ValueError(
            f"{name} cannot be read as a picture ({', '.join(FORMATS)}): {error}"
        ) from error


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """A copy of the picture, decoded and upright, once its size and depth have been accepted."""
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
    if image.mode not in MODES and not _is_deep(image):
        raise ValueError(
            f"{name} has pixels of a kind that is not read ({image.mode!r}): save it with 8 or 16 "
            "bits per colour, as RGB or grey"
        )
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # as above
        raise ValueError(f"{name} is damaged and cannot be read: {error}") from error


def _is_deep(image: Image.Image) -> bool:
    """Whether this is 16-bit grey; Pillow reads 16-bit colours as 8-bit ones."""
    return image.mode.startswith("I;16")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey as 8-bit grey: the upper byte, as of colours."""
    if not _is_deep(image):
        return image
    values = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is None:
        return grey
    grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey

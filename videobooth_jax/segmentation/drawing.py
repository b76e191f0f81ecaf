"""A segmentation as pictures: the cut-out, and the photo with what was taken for the subject."""

import numpy as np
from PIL import Image, ImageDraw

from videobooth_jax.data.pictures import MIN_SIDE
from videobooth_jax.segmentation.methods import Segmentation

TINT, STRENGTH = (255, 0, 160), 0.45


def cutout(found: Segmentation) -> Image.Image:
    """The subject alone, cropped to its box: RGBA, clear where it is not.

    Read as a picture again it gives the same image prompt, cropped to what is not clear; a closer
    one only where a box was given that is larger than the mask. Where nothing would be clear, a
    clear rim of 1 px tells that it is a cut-out; a clear rim also makes narrow ones as wide as the
    pictures that are read.
    """
    left, top, right, bottom = found.box
    alpha = np.where(found.mask, 255, 0).astype(np.uint8)
    rgba = np.dstack([found.picture, alpha])[top:bottom, left:right]
    if found.mask[top:bottom, left:right].all():
        rgba = np.pad(rgba, ((1, 1), (1, 1), (0, 0)))
    narrow = [max(0, MIN_SIDE - side) for side in rgba.shape[:2]]
    return Image.fromarray(np.pad(rgba, (*((0, more) for more in narrow), (0, 0))))


def overlay(found: Segmentation) -> Image.Image:
    """The photo with the subject tinted and its box drawn, RGB, as large as the photo."""
    tinted = found.picture.copy()
    subject = found.picture[found.mask] * (1 - STRENGTH) + np.array(TINT) * STRENGTH
    tinted[found.mask] = np.rint(subject).astype(np.uint8)
    image = Image.fromarray(tinted)
    left, top, right, bottom = found.box
    width = max(1, max(image.size) // 300)
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=TINT, width=width)
    return image

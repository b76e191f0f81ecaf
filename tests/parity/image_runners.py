"""Runner of the image prompt's preparation."""

from typing import Any

import numpy as np

from parity.cases import Case
from videobooth_jax.data.image_prompt import (
    clip_input,
    resize,
    resize_bilinear,
    square_cutout,
    vae_input,
)

CLIP_SIDE, VAE_SIDE = 224, 256
STORED_ROWS = slice(None, None, 16)


def _chw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 0)


def _rows(x: np.ndarray) -> np.ndarray:
    return _chw(x)[:, STORED_ROWS]


def run_image_prompt(case: Case, dtype: str) -> dict[str, Any]:
    """Inputs of the networks start from the stored uint8 pictures, so that a rounding tie counts
    once.
    """
    x = case.inputs(dtype)
    square = square_cutout(x["image_rgb"], x["mask"], x["bbox"])
    stored = {
        side: np.moveaxis(case.reference(f"resized{side}_u8"), 0, -1)
        for side in (CLIP_SIDE, VAE_SIDE)
    }
    out = {
        "square_u8": _chw(square),
        "clip_normalized_rows": _rows(clip_input(stored[CLIP_SIDE])),
        "vae_input_rows": _rows(vae_input(stored[VAE_SIDE])),
    }
    for side in (CLIP_SIDE, VAE_SIDE):
        out[f"resized{side}_u8"] = _chw(resize(square, side))
        out[f"interp{side}_f32_rows"] = _rows(resize_bilinear(square, side, side))
    return out

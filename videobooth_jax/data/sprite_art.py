"""The artwork of the sprite world: 624 nouns, each in four designs, packed in the package (credits
in NOTICE).

Designs are kept as premultiplied 48 px tiles with a clear margin and drawn at any place, size and
angle by one affine map into a canvas of up to a few times the wanted resolution, which is then
averaged down. The clear margin keeps edges smooth.
"""

import dataclasses
import functools
import json
from importlib import resources

import numpy as np
from PIL import Image

_FOLDER = resources.files("videobooth_jax") / "assets" / "sprites"
_MARGIN = 2

STYLES = ("noto", "fluent-flat", "fluent-color", "twemoji")
"""The four designs of every noun, by the teams that drew them."""


@dataclasses.dataclass(frozen=True)
class Noun:
    """A noun: its key, its words and phrase in a caption ("police car", "a police car"), its
    split."""

    key: str
    words: str
    phrase: str
    split: str


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where and how a design is drawn: centre (x, y) and longer side in px, angle in degrees
    counter-clockwise, mirrored or not."""

    x: float
    y: float
    size: float
    angle: float = 0.0
    flip: bool = False


@functools.cache
def nouns() -> dict[str, Noun]:
    """All nouns by key, in atlas order."""
    return {key: Noun(key, **entry) for key, entry in _table()["nouns"].items()}


@functools.cache
def split_nouns(split: str) -> tuple[str, ...]:
    """Keys of the nouns of a split, "train", "validation" or "test". Raises ValueError for
    another name."""
    found = tuple(key for key, noun in nouns().items() if noun.split == split)
    if not found:
        known = sorted({noun.split for noun in nouns().values()})
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(known)}")
    return found


@functools.cache
def design(noun: str, style: str) -> Image.Image:
    """One design as a premultiplied tile with a clear margin. Raises ValueError for an unknown
    noun or style."""
    if noun not in nouns():
        raise ValueError(f"unknown noun {noun!r}: the sprite world has {len(nouns())}, see nouns()")
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
    tile, columns = _table()["tile"], _table()["columns"]
    row, column = divmod(list(nouns()).index(noun), columns)
    box = (column * tile, row * tile, (column + 1) * tile, (row + 1) * tile)
    framed = Image.new("RGBA", (tile + 2 * _MARGIN, tile + 2 * _MARGIN))
    framed.paste(_atlas(style).crop(box), (_MARGIN, _MARGIN))
    return framed.convert("RGBa")


def draw(art: Image.Image, pose: Pose, side: int) -> np.ndarray:
    """A design on a clear canvas: premultiplied RGBA in 0..1, float32 (side, side, 4)."""
    inner = art.width - 2 * _MARGIN
    finer = max(
        1, round(inner / pose.size)
    )  # samples per pixel, so that a step in the canvas is about a step in the tile
    step = inner / (pose.size * finer)
    turn = np.deg2rad(pose.angle)
    across, along = step * np.cos(turn), step * np.sin(turn)
    mirror = -1.0 if pose.flip else 1.0
    x, y, middle = pose.x * finer, pose.y * finer, art.width / 2
    matrix = (
        mirror * across,
        mirror * -along,
        middle - mirror * (across * x - along * y),
        along,
        across,
        middle - (along * x + across * y),
    )
    canvas = art.transform(
        (side * finer, side * finer), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(canvas.reduce(finer), np.float32) / 255


def over(foreground: np.ndarray, background: np.ndarray | float) -> np.ndarray:
    """Premultiplied RGBA (..., 4) laid over colours (..., 3) in 0..1, as uint8 (..., 3)."""
    colour = foreground[..., :3] + (1 - foreground[..., 3:]) * background
    return np.rint(255 * np.clip(colour, 0, 1)).astype(np.uint8)


@functools.cache
def _table() -> dict:
    return json.loads((_FOLDER / "nouns.json").read_text(encoding="utf-8"))


@functools.cache
def _atlas(style: str) -> Image.Image:
    with (_FOLDER / f"{style}.webp").open("rb") as file:
        return Image.open(file).convert("RGBA")

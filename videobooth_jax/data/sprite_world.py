"""What the sprite world is made of: motions, backgrounds and the sentences about them, as tables.

A background is a painter: random generator and side length in, one still picture out, float32
(side, side, 3) in 0..1. All are plain colour fields with a fine texture, told apart by colour, and
hold nothing that could be taken for a subject.
"""

from collections.abc import Callable

import numpy as np

Painter = Callable[[np.random.Generator, int], np.ndarray]

MOTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Name -> direction on the screen, (x to the right, y down)."""

TEMPLATES: tuple[str, ...] = (
    "{subject} moving {motion} {place}",
    "{subject} going {motion} {place}",
    "{subject} is moving {motion} {place}",
    "{place}, {subject} moving {motion}",
)
"""Forms of a caption. None names the style of the drawing: only the picture can tell which
design is meant."""


def caption(phrase: str, motion: str, background: str, template: str) -> str:
    """The sentence for a noun phrase ("a panda"), a motion and a background; ``template`` is one
    of `TEMPLATES`."""
    place = BACKGROUNDS[background][0]
    return template.format(subject=phrase, motion=motion, place=place)


def _shades(side: int, *stops: tuple[float, float, float]) -> np.ndarray:
    """Colours from top to bottom through evenly spaced stops, float32 (side, 1, 3)."""
    where = np.linspace(0, len(stops) - 1, side)
    channels = [
        np.interp(where, range(len(stops)), channel) for channel in zip(*stops, strict=True)
    ]
    return np.stack(channels, -1).astype(np.float32)[:, None]


def _grain(rng: np.random.Generator, side: int, rows: int, columns: int) -> np.ndarray:
    """Noise in [-1, 1] of the given cells per frame side, enlarged linearly, float32 (side,
    side, 1)."""
    coarse = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return (_stretch(side, rows) @ coarse @ _stretch(side, columns).T)[..., None]


def _stretch(side: int, cells: int) -> np.ndarray:
    """Linear interpolation from ``cells + 1`` knots to ``side`` pixels, float32 (side, cells +
    1)."""
    where = (np.arange(side) + 0.5) * cells / side
    weights = 1 - np.abs(where[:, None] - np.arange(cells + 1))
    return np.clip(weights, 0, 1).astype(np.float32)


def _waves(rng: np.random.Generator, side: int, count: float, bend: float) -> np.ndarray:
    """Horizontal waves in [-1, 1], ``count`` per frame, bent by ``bend`` of a wave, float32
    (side, side, 1)."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    phase, swing = rng.uniform(0, 2 * np.pi, 2)
    turn = 2 * np.pi * (count * y + bend * np.sin(2 * np.pi * x + swing))
    return np.sin(turn + phase)[..., None].astype(np.float32)


def _tint(rng: np.random.Generator, strength: float = 0.04) -> np.ndarray:
    """A small shift of colour, the light of the day, float32 (3,)."""
    return rng.uniform(-strength, strength, 3).astype(np.float32)


def _meadow(rng: np.random.Generator, side: int) -> np.ndarray:
    field = _shades(side, (0.55, 0.78, 0.38), (0.36, 0.64, 0.25), (0.25, 0.52, 0.18))
    blades = _grain(rng, side, side // 4, side // 2)
    return field + _tint(rng) + 0.07 * blades * np.array([0.8, 1.0, 0.5], np.float32)


def _desert(rng: np.random.Generator, side: int) -> np.ndarray:
    sand = _shades(side, (0.93, 0.78, 0.55), (0.86, 0.64, 0.38), (0.78, 0.53, 0.30))
    dunes = _waves(rng, side, rng.uniform(2.0, 3.0), rng.uniform(0.1, 0.2))
    return sand + _tint(rng) + 0.05 * dunes + 0.02 * _grain(rng, side, side // 2, side // 2)


def _sea(rng: np.random.Generator, side: int) -> np.ndarray:
    water = _shades(side, (0.42, 0.70, 0.86), (0.22, 0.52, 0.76), (0.12, 0.36, 0.62))
    waves = _waves(rng, side, rng.uniform(5.0, 7.0), rng.uniform(0.05, 0.15))
    return water + _tint(rng) + 0.05 * waves


def _night(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _shades(side, (0.05, 0.04, 0.14), (0.12, 0.08, 0.26), (0.26, 0.14, 0.36))
    stars = (rng.random((side, side, 1)) > 0.985) * rng.uniform(0.2, 0.5, (side, side, 1))
    return sky + _tint(rng, 0.02) + stars.astype(np.float32)


def _snow(rng: np.random.Generator, side: int) -> np.ndarray:
    field = _shades(side, (0.74, 0.82, 0.90), (0.84, 0.90, 0.95), (0.78, 0.85, 0.93))
    drifts = _grain(rng, side, side // 6, side // 12)
    return field + _tint(rng, 0.02) + 0.05 * drifts


def _lavender(rng: np.random.Generator, side: int) -> np.ndarray:
    field = _shades(side, (0.72, 0.62, 0.86), (0.62, 0.49, 0.79), (0.50, 0.36, 0.68))
    rows = _waves(rng, side, rng.uniform(3.0, 4.0), 0.0)
    return field + _tint(rng) + 0.03 * rows + 0.04 * _grain(rng, side, side // 2, side // 2)


BACKGROUNDS: dict[str, tuple[str, Painter]] = {
    "meadow": ("over a meadow", _meadow),
    "sea": ("over the sea", _sea),
    "night": ("across the night sky", _night),
    "lavender": ("over a lavender field", _lavender),
    "desert": ("over a desert", _desert),
    "snow": ("over a field of snow", _snow),
}
"""Name -> (words in a caption, painter)."""


def paint(background: str, rng: np.random.Generator, side: int) -> np.ndarray:
    """One still background, float32 (side, side, 3) in 0..1."""
    return np.clip(BACKGROUNDS[background][1](rng, side), 0, 1)

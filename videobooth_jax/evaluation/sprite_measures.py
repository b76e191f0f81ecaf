"""What a video of the sprite world shows, measured without any learned weights.

Three answers for a video uint8 (frames, height, width, 3): which of a noun's designs it shows,
which way the subject moves, over which background. All start from the still background under the
subject, a smooth surface fitted to the border of the frames, and from what differs from it.

`identity` lays every design over that background, in every pose of a grid (angle, size, half
pixels) and at every place, and takes the squared difference to the whole frame: missing and
superfluous parts count like wrong colours. Each frame may choose its pose and its focus (a soft
picture would otherwise pass for the design of least contrast); the sums over the frames decide.
`motion` follows the centre of whatever is foreground, recognisable or not. `background` compares
colours of the border.
"""

import dataclasses
import functools
import itertools

import numpy as np

from videobooth_jax.data import sprite_art, sprite_world
from videobooth_jax.data.sprite_art import Pose
from videobooth_jax.data.sprites import SpritesConfig

FOREGROUND = 0.12  # colour difference (root mean square, 0..1) from which a pixel counts
MIN_TRAVEL = 1 / 16  # of the frame's side: anything less is no motion
STRAIGHTNESS = 1.5  # the way along the axis of motion over the way across it
_ANGLES, _SCALES = 7, 3  # steps of the fine grid
_FOCUS = (0.0, 0.025, 0.05)  # blurs tried, standard deviation in frame sides
_RING = 2  # px


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which design a video shows, and the distance to each: root mean square colour error, 0..1."""

    style: str
    distances: dict[str, float]


def identity(video: np.ndarray, noun: str, config: SpritesConfig) -> Identity:
    """The design of ``noun`` closest to a video of the world ``config`` describes."""
    frames = video.astype(np.float32) / 255
    still = still_background(frames)
    patch = _patch_side(config)
    windows = _windows(_planes(frames, still, patch), patch)
    residual = ((frames - still) ** 2).sum((1, 2, 3))
    coarse = np.concatenate([_bank(noun, style, config, "coarse") for style in config.styles])
    places = _best_places(windows, coarse, len(config.styles), _reach(config))
    errors = {}
    for style, place in zip(config.styles, places, strict=True):
        best = residual + _errors_around(windows, _bank(noun, style, config, "fine"), place)
        errors[style] = float(np.sqrt(np.maximum(best, 0).sum() / frames.size))
    return Identity(min(errors, key=lambda style: errors[style]), errors)


def motion(video: np.ndarray) -> str:
    """Which way the subject moves: a key of `sprite_world.MOTIONS`, or "none".

    Measured is the straight line fitted to the centres of the foreground. A way shorter than a
    sixteenth of the frame, or hardly longer along one axis than across it, is "none".
    """
    frames = video.astype(np.float32) / 255
    x, y = _centres(frames).T
    if not np.isfinite(x + y).all():
        return "none"
    time = np.linspace(-0.5, 0.5, len(x))
    way = {axis: time @ values / (time @ time) for axis, values in (("x", x), ("y", y))}
    along, across = sorted(way, key=lambda axis: -abs(way[axis]))
    if abs(way[along]) < max(MIN_TRAVEL, STRAIGHTNESS * abs(way[across])):
        return "none"
    step = {along: int(np.sign(way[along])), across: 0}
    names = {direction: name for name, direction in sprite_world.MOTIONS.items()}
    return names[step["x"], step["y"]]


def background(video: np.ndarray) -> str:
    """The known background whose usual border colours are nearest."""
    seen = _border_colours(np.median(video.astype(np.float32) / 255, 0))
    usual = _usual_colours(video.shape[1])
    return min(usual, key=lambda name: float(((usual[name] - seen) ** 2).sum()))


def still_background(frames: np.ndarray) -> np.ndarray:
    """The background under the subject: a surface fitted to the border, float32 (height, width, 3).

    ``frames`` are float (frames, height, width, 3). A subject that touches the border in a few
    frames is outvoted by the median over time.
    """
    height, width = frames.shape[1:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    basis = np.stack([np.ones_like(x), x, y, y * y], -1)
    ring = _ring(height, width)
    weights, *_ = np.linalg.lstsq(basis[ring], np.median(frames, 0)[ring], rcond=None)
    return np.clip(basis @ weights, 0, 1).astype(np.float32)


def _ring(height: int, width: int) -> np.ndarray:
    ring = np.ones((height, width), bool)
    ring[_RING:-_RING, _RING:-_RING] = False
    return ring


def _centres(frames: np.ndarray) -> np.ndarray:
    """Centre (x, y) of the foreground in every frame, in frame sides; nan where there is none."""
    difference = np.sqrt(((frames - still_background(frames)) ** 2).mean(-1))
    weight = np.maximum(difference - FOREGROUND, 0)
    height, width = weight.shape[1:]
    mass = weight.sum((1, 2))
    with np.errstate(invalid="ignore"):
        x = weight.sum(1) @ (np.arange(width) / width) / mass
        y = weight.sum(2) @ (np.arange(height) / height) / mass
    return np.stack([x, y], -1)


def _border_colours(image: np.ndarray) -> np.ndarray:
    """Median colour of the border in the upper, middle and lower third, (3, 3)."""
    ring = _ring(*image.shape[:2])
    thirds = zip(np.array_split(image, 3), np.array_split(ring, 3), strict=True)
    return np.stack([np.median(part[edge], 0) for part, edge in thirds])


@functools.cache
def _usual_colours(side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: np.mean([_border_colours(sprite_world.paint(name, rng, side)) for _ in range(64)], 0)
        for name in sprite_world.BACKGROUNDS
    }


def _patch_side(config: SpritesConfig) -> int:
    """Side that holds the largest design at any angle, px; even, so that it has a middle."""
    largest = config.resolution * config.subject_size * config.scale[1]
    turn = np.deg2rad(config.rotation + config.rocking)
    return 2 * int(np.ceil(largest * (np.cos(turn) + np.sin(turn)) / 2 + 0.5))


def _reach(config: SpritesConfig) -> int:
    """How far from the middle a subject's centre is looked for, px: its way and an eighth more."""
    side, shift = config.resolution, config.cell * config.jitter_cells
    return min(side // 2 - 1, int(np.ceil(side * (config.travel / 2 + 1 / 8) + shift)))


def _coarse_poses(config: SpritesConfig) -> list[Pose]:
    """Two angles in the middle of a patch: enough to find the place."""
    middle, size = _patch_side(config) / 2, _sizes(config, 1)[0]
    swing = (config.rotation + config.rocking) / 2
    return [
        Pose(middle, middle, size, angle, flip)
        for angle in (-swing, swing)
        for flip in _flips(config)
    ]


def _fine_poses(config: SpritesConfig) -> list[Pose]:
    """A grid over every pose that the world draws, in steps of half pixels."""
    middle, swing = _patch_side(config) / 2, config.rotation + config.rocking
    angles = np.linspace(-swing, swing, _ANGLES)
    grid = itertools.product((0, 0.5), (0, 0.5), _sizes(config, _SCALES), angles, _flips(config))
    return [Pose(middle + x, middle + y, size, angle, flip) for x, y, size, angle, flip in grid]


def _soften(drawn: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur in space of (poses, side, side, 4); clear beyond the patch. Deviation in px."""
    if not deviation:
        return drawn
    steps = np.arange(drawn.shape[1])
    bell = np.exp(-(((steps[:, None] - steps) / deviation) ** 2) / 2)
    weights = (bell / (deviation * np.sqrt(2 * np.pi))).astype(np.float32)
    along_y = np.tensordot(drawn, weights, (1, 0))  # poses x channel y
    return np.tensordot(along_y, weights, (1, 0)).transpose(0, 2, 3, 1)


_POSES = {"coarse": _coarse_poses, "fine": _fine_poses}


def _sizes(config: SpritesConfig, count: int) -> np.ndarray:
    """Evenly spaced sizes of the subject's longer side, px."""
    low, high = config.scale
    steps = np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
    return config.resolution * config.subject_size * steps


def _flips(config: SpritesConfig) -> tuple[bool, ...]:
    return (False, True) if config.flip_probability else (False,)


@functools.lru_cache(maxsize=16)
def _bank(noun: str, style: str, config: SpritesConfig, grid: str) -> np.ndarray:
    """Templates of one design as rows for `_planes`, float32 (templates, patch * patch * 9).

    With G = frame - B, and a template of premultiplied colour T and opacity a over the background
    B, the squared difference |G - (T - a B)|^2 is |G|^2 plus products of planes of the frame (G,
    G.B, B, |B|^2, 1) with planes of the template (-2 T, 2 a, -2 a T, a^2, |T|^2).
    """
    art, side = sprite_art.design(noun, style), _patch_side(config)
    sharp = np.stack([sprite_art.draw(art, pose, side) for pose in _POSES[grid](config)])
    drawn = np.concatenate([_soften(sharp, focus * config.resolution) for focus in _FOCUS])
    colour, opacity = drawn[..., :3], drawn[..., 3:]
    planes = [
        -2 * colour,
        2 * opacity,
        -2 * opacity * colour,
        opacity**2,
        (colour**2).sum(-1, keepdims=True),
    ]
    return np.concatenate(planes, -1).reshape(len(drawn), -1)


def _planes(frames: np.ndarray, still: np.ndarray, patch: int) -> np.ndarray:
    """The frame's side of the products in `_bank`, zero outside the frame: (frames, h', w', 9)."""
    over = frames - still
    planes = [
        over,
        (over * still).sum(-1, keepdims=True),
        np.broadcast_to(still, frames.shape),
        np.broadcast_to((still**2).sum(-1, keepdims=True), (*frames.shape[:3], 1)),
        np.ones((*frames.shape[:3], 1), np.float32),
    ]
    margin = patch // 2
    return np.pad(np.concatenate(planes, -1), ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def _windows(planes: np.ndarray, patch: int) -> np.ndarray:
    """All patches of padded planes, one per pixel of the frame: (frames, y, x, patch, patch, 9)."""
    views = np.lib.stride_tricks.sliding_window_view(planes, (patch, patch), (1, 2))
    return views.transpose(0, 1, 2, 4, 5, 3)


def _best_places(windows: np.ndarray, bank: np.ndarray, designs: int, reach: int) -> np.ndarray:
    """Where each design's coarse templates fit best: (y, x), as (designs, frames, 2).

    Every other pixel within ``reach`` of the middle is tried; ``bank`` holds the templates of one
    design after the other.
    """
    first = windows.shape[1] // 2 - reach
    tried = slice(first, first + 2 * reach + 1, 2)
    windows = windows[:, tried, tried]
    frames, height, width = windows.shape[:3]
    errors = windows.reshape(frames, height * width, -1) @ bank.T
    place = errors.reshape(frames, height * width, designs, -1).min(-1).argmin(1).T
    return 2 * np.stack(np.divmod(place, width), -1) + first


def _errors_around(windows: np.ndarray, bank: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For every frame the smallest template error within a pixel of its place (y, x), (frames,)."""
    around = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    y, x = np.moveaxis(places[:, None] + around, -1, 0)
    patches = windows[np.arange(len(places))[:, None], y, x]
    return (patches.reshape(len(places), len(around), -1) @ bank.T).min((1, 2))

"""The sprite world as a random-access source.

In a video one subject crosses a still background; a picture beside it shows the subject alone. The
same word has four designs and the caption never says which, so only the picture can tell. Example
``i`` is a pure function of the configuration and ``i``. Any run of examples is nearly balanced:
``i`` walks through all nouns, and with every round each noun moves on to the next of all
combinations of design, motion and background.
"""

import dataclasses
import math
from typing import TypedDict

import numpy as np

from videobooth_jax.data import sprite_art, sprite_world
from videobooth_jax.data.sprite_art import Pose

_SPLIT_SEEDS = {"train": 0, "validation": 1, "test": 2}


class SpriteExample(TypedDict):
    """One example: pictures uint8, words, and what they were made of."""

    video: np.ndarray  # (frames, height, width, 3)
    image_prompt: np.ndarray  # (height, width, 3), on white
    prompt: str
    subject: str
    noun: str
    style: str
    motion: str
    background: str


@dataclasses.dataclass(frozen=True)
class SpritesConfig:
    """Sizes are shares of the frame's side unless named otherwise; angles are degrees."""

    split: str = "train"
    resolution: int = 32  # px
    num_frames: int = 8
    subject_size: float = 20 / 32  # longer side at scale 1
    travel: float = 8 / 32  # way from first to last frame; starts half of it before the middle
    cell: int = 4  # px per cell of the latent grid: starts move by whole cells
    jitter_cells: int = 0  # largest shift of the whole track, either way
    rotation: float = 3.0  # the video's angle is drawn from +-this
    rocking: float = 3.0  # swing around that angle, once to and fro
    scale: tuple[float, float] = (0.97, 1.03)
    flip_probability: float = 0.0
    prompt_rotation: float = 10.0  # the same for the image prompt, drawn on its own
    prompt_scale: tuple[float, float] = (0.9, 1.1)
    prompt_shift: float = 0.0  # largest shift off the middle, both ways
    prompt_flip_probability: float = 0.0
    min_rotation_gap: float = 4.0  # by which the image prompt's pose differs from the video's
    min_scale_gap: float = 0.04
    styles: tuple[str, ...] = sprite_art.STYLES
    motions: tuple[str, ...] = ("left", "right", "up", "down")
    backgrounds: tuple[str, ...] = ("meadow", "sea", "night", "lavender")
    variants: int = 8  # examples of every combination of noun, style, motion and background
    seed: int = 0

    def __post_init__(self):
        """Raise ValueError for names the world does not have and sizes it cannot draw."""
        tables = {
            "split": ((self.split,), _SPLIT_SEEDS),
            "styles": (self.styles, sprite_art.STYLES),
            "motions": (self.motions, sprite_world.MOTIONS),
            "backgrounds": (self.backgrounds, sprite_world.BACKGROUNDS),
        }
        for field, (given, known) in tables.items():
            if unknown := sorted(set(given) - set(known)) or not given:
                raise ValueError(
                    f"SpritesConfig.{field}: {unknown or given}; known are {', '.join(known)}"
                )
        for field in ("resolution", "num_frames", "variants", "cell"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"SpritesConfig.{field} must be at least 1, not {getattr(self, field)}"
                )
        for low, high, gap in (
            (-self.prompt_rotation, self.prompt_rotation, self.min_rotation_gap),
            (*self.prompt_scale, self.min_scale_gap),
        ):
            if gap > 0 and high - low <= 2 * gap:
                raise ValueError(
                    f"the image prompt's range {low}..{high} leaves no room for a pose {gap} away "
                    "from the video's: widen the range or lower the gap"
                )

    def __len__(self) -> int:
        """Number of examples of the split."""
        kinds = len(self.styles) * len(self.motions) * len(self.backgrounds)
        return len(sprite_art.split_nouns(self.split)) * kinds * self.variants


class SpritesSource:
    """Grain random-access source of `SpriteExample`."""

    def __init__(self, config: SpritesConfig):
        """Pictures are drawn on access: 2 ms for 8 frames of 32 px."""
        self.config = config

    def __len__(self) -> int:
        return len(self.config)

    def __getitem__(self, index: int) -> SpriteExample:
        """Example ``index``; negative and too large ones raise IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        config = self.config
        noun, style, motion, background = content(config, index)
        rng = np.random.default_rng((config.seed, _SPLIT_SEEDS[config.split], index))
        art, side = sprite_art.design(noun.key, style), config.resolution
        poses = video_poses(config, motion, rng)
        frames = np.stack([sprite_art.draw(art, pose, side) for pose in poses])
        alone = sprite_art.draw(art, prompt_pose(config, poses[0], rng), side)
        template = sprite_world.TEMPLATES[rng.integers(len(sprite_world.TEMPLATES))]
        return SpriteExample(
            video=sprite_art.over(frames, sprite_world.paint(background, rng, side)),
            image_prompt=sprite_art.over(alone, 1.0),
            prompt=sprite_world.caption(noun.phrase, motion, background, template),
            subject=noun.words,
            noun=noun.key,
            style=style,
            motion=motion,
            background=background,
        )

    def __repr__(self) -> str:
        return f"SpritesSource({self.config})"  # Grain shows it when a saved position is restored


def content(config: SpritesConfig, index: int) -> tuple[sprite_art.Noun, str, str, str]:
    """Noun, style, motion and background of example ``index``.

    Round r = index // nouns gives noun n the combination (n + r * stride) mod all combinations. The
    stride shares no factor with their number, so that a noun meets each once in as many rounds, and
    moves style, motion and background on by one each.
    """
    keys = sprite_art.split_nouns(config.split)
    styles, motions, backgrounds = config.styles, config.motions, config.backgrounds
    kinds = len(styles) * len(motions) * len(backgrounds)
    stride = 1 + len(styles) + len(styles) * len(motions)
    while math.gcd(stride, kinds) > 1:
        stride += 1
    turn, noun = divmod(index, len(keys))
    rest, style = divmod((noun + turn * stride) % kinds, len(styles))
    background, motion = divmod(rest, len(motions))
    return sprite_art.nouns()[keys[noun]], styles[style], motions[motion], backgrounds[background]


def video_poses(config: SpritesConfig, motion: str, rng: np.random.Generator) -> list[Pose]:
    """The subject's pose in every frame: straight on at even speed, rocking once around an
    angle."""
    side, cells = config.resolution, config.jitter_cells
    shift = config.cell * rng.integers(-cells, cells, 2, endpoint=True)
    angle = rng.uniform(-config.rotation, config.rotation)
    size = side * config.subject_size * rng.uniform(*config.scale)
    flip = bool(rng.random() < config.flip_probability)
    way = config.travel * side * np.linspace(-0.5, 0.5, config.num_frames)
    swing = config.rocking * np.sin(2 * np.pi * np.arange(config.num_frames) / config.num_frames)
    dx, dy = sprite_world.MOTIONS[motion]
    return [
        Pose(side / 2 + shift[0] + dx * w, side / 2 + shift[1] + dy * w, size, angle + s, flip)
        for w, s in zip(way, swing, strict=True)
    ]


def prompt_pose(config: SpritesConfig, video: Pose, rng: np.random.Generator) -> Pose:
    """The image prompt's own pose: another angle and another scale than the video's first frame."""
    side, reach = config.resolution, config.prompt_shift * config.resolution
    unit = side * config.subject_size
    bound, gap = config.prompt_rotation, config.min_rotation_gap
    angle = _apart(rng, -bound, bound, video.angle, gap)
    scale = _apart(rng, *config.prompt_scale, video.size / unit, config.min_scale_gap)
    x, y = side / 2 + rng.uniform(-reach, reach, 2)
    flip = video.flip ^ bool(rng.random() < config.prompt_flip_probability)
    return Pose(x, y, unit * scale, angle, flip)


def _apart(rng: np.random.Generator, low: float, high: float, centre: float, gap: float) -> float:
    """Uniform over [low, high] without (centre - gap, centre + gap)."""
    left = min(max(centre - gap, low), high) - low
    right = high - min(max(centre + gap, low), high)
    draw = rng.uniform(0, left + right)
    return low + draw if draw < left else high - (draw - left)

"""Sprites on backgrounds: pictures whose true masks are known."""

import dataclasses

import numpy as np

from videobooth_jax.data import sprite_art, sprite_world
from videobooth_jax.data.image_prompt import mask_box


@dataclasses.dataclass(frozen=True)
class Scene:
    name: str
    picture: np.ndarray
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        return mask_box(self.mask)


def scenes(count: int, side: int = 128) -> list[Scene]:
    """Test nouns, styles and backgrounds in turn, at drawn places, sizes and angles."""
    rng = np.random.default_rng(0)
    keys, backgrounds = sprite_art.split_nouns("test"), list(sprite_world.BACKGROUNDS)
    return [scene(keys[int(rng.integers(len(keys)))], sprite_art.STYLES[i % 4],
                  backgrounds[i % len(backgrounds)], rng, side) for i in range(count)]  # fmt: skip


def scene(noun: str, style: str, background: str, rng: np.random.Generator, side: int) -> Scene:
    x, y = side / 2 + rng.uniform(-0.1, 0.1, 2) * side
    pose = sprite_art.Pose(x, y, side * rng.uniform(0.4, 0.75), rng.uniform(-20, 20))
    art = sprite_art.draw(sprite_art.design(noun, style), pose, side)
    picture = sprite_art.over(art, sprite_world.paint(background, rng, side))
    return Scene(f"{noun}, {style}, {background}", picture, art[..., 3] > 0.5)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((found & true).sum() / (found | true).sum())

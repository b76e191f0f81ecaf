"""The measures see the truth in true videos, and nothing in videos that show nothing."""

import numpy as np
import pytest

from videobooth_jax.data import sprite_art, sprite_world
from videobooth_jax.data.sprite_art import Pose
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.evaluation import sprite_measures

WORLD = SpritesConfig(split="test")


def track(motion: str) -> list[Pose]:
    dx, dy = sprite_world.MOTIONS[motion]
    return [Pose(16 + dx * w, 16 + dy * w, 20) for w in np.linspace(-4, 4, 8)]


def film(art_or_colour, poses: list[Pose], background: str = "sea") -> np.ndarray:
    """A design, or a disc of one colour, over a background, uint8 (8, 32, 32, 3)."""
    still = sprite_world.paint(background, np.random.default_rng(5), 32)
    y, x = np.mgrid[:32, :32] + 0.5
    if isinstance(art_or_colour, tuple):
        discs = [np.clip(8.5 - np.hypot(x - p.x, y - p.y), 0, 1)[..., None] for p in poses]
        drawn = [np.concatenate([d * np.array(art_or_colour), d], -1) for d in discs]
    else:
        drawn = [sprite_art.draw(art_or_colour, pose, 32) for pose in poses]
    return sprite_art.over(np.stack(drawn), still)


def blurred(video: np.ndarray, radius: int) -> np.ndarray:
    """Box-blurred in space."""
    out = video.astype(float)
    width = 2 * radius + 1
    for axis in (1, 2):
        pad = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(out, pad, "edge"), width, axis)
        out = windows.mean(-1)
    return np.rint(out).astype(np.uint8)


def agreement(examples) -> np.ndarray:
    """Shares of right answers: identity, motion, background."""
    return np.mean(
        [
            (
                sprite_measures.identity(e["video"], e["noun"], WORLD).style == e["style"],
                sprite_measures.motion(e["video"]) == e["motion"],
                sprite_measures.background(e["video"]) == e["background"],
            )
            for e in examples
        ],
        0,
    )


def test_truth_is_seen() -> None:
    source = SpritesSource(WORLD)
    assert (agreement([source[i] for i in range(0, 320, 41)]) == 1).all()


@pytest.mark.slow
def test_truth_is_seen_in_97_of_100() -> None:
    source = SpritesSource(WORLD)
    assert (agreement(source[i] for i in range(400)) > 0.97).all()


def test_identity_survives_wobble_noise_and_a_soft_focus() -> None:
    rng = np.random.default_rng(0)
    right = 0
    for i, noun in enumerate(("panda", "dog", "sailboat", "penguin", "teapot", "tiger")):
        style = sprite_art.STYLES[i % 4]
        poses = [
            Pose(
                p.x + rng.normal(),
                p.y + rng.normal(),
                p.size * rng.uniform(0.9, 1.1),
                rng.normal(0, 6),
            )
            for p in track("left")
        ]
        video = blurred(film(sprite_art.design(noun, style), poses), 1)
        video = np.clip(video + rng.normal(0, 12, video.shape), 0, 255).astype(np.uint8)
        right += sprite_measures.identity(video, noun, WORLD).style == style
        assert sprite_measures.motion(video) == "left"
    assert right == 6


def test_distance_is_the_colour_error_of_the_best_pose() -> None:
    """A copy on a plain ground is at no distance: the products sum up to the difference."""
    pose = Pose(16, 16, 20)
    drawn = sprite_art.draw(sprite_art.design("panda", "noto"), pose, 32)
    video = sprite_art.over(np.stack([drawn] * 8), np.full((32, 32, 3), 0.4, np.float32))
    found = sprite_measures.identity(video, "panda", WORLD)
    assert found.style == "noto"
    assert found.distances["noto"] < 0.01
    assert all(d > 0.05 for style, d in found.distances.items() if style != "noto")


def test_empty_video_favours_no_subject() -> None:
    video = sprite_art.over(np.zeros((8, 32, 32, 4)), np.full((32, 32, 3), 0.4))
    distances = sprite_measures.identity(video, "panda", WORLD).distances
    assert min(distances.values()) > 0.1
    assert sprite_measures.motion(video) == "none"


@pytest.mark.parametrize("motion", sprite_world.MOTIONS)
@pytest.mark.parametrize("background", sprite_world.BACKGROUNDS)
def test_motion_and_background_need_no_recognisable_subject(motion: str, background: str) -> None:
    video = film((0.9, 0.1, 0.1), track(motion), background)
    assert sprite_measures.motion(video) == motion
    assert sprite_measures.background(video) == background
    assert sprite_measures.motion(video[::-1]) != motion


def test_no_motion() -> None:
    still = film((0.9, 0.1, 0.1), [Pose(16, 16, 20)] * 8)
    slow = film((0.9, 0.1, 0.1), [Pose(16 + w, 16, 20) for w in np.linspace(-0.6, 0.6, 8)])
    diagonal = film((0.9, 0.1, 0.1), [Pose(16 + w, 16 + w, 20) for w in np.linspace(-4, 4, 8)])
    assert [sprite_measures.motion(v) for v in (still, slow, diagonal)] == ["none"] * 3


def test_still_background_ignores_the_subject() -> None:
    ground = np.full((32, 32, 3), 0.5, np.float32) + np.linspace(-0.2, 0.2, 32)[:, None, None]
    drawn = np.stack(
        [sprite_art.draw(sprite_art.design("dog", "noto"), p, 32) for p in track("up")]
    )
    frames = sprite_art.over(drawn, ground).astype(np.float32) / 255
    assert np.abs(sprite_measures.still_background(frames) - ground).max() < 0.02


def test_larger_world() -> None:
    world = SpritesConfig(
        split="test", resolution=48, jitter_cells=1, subject_size=0.4, flip_probability=0.5
    )
    example = SpritesSource(world)[44]
    found = sprite_measures.identity(example["video"], example["noun"], world)
    assert found.style == example["style"]
    assert sprite_measures.motion(example["video"]) == example["motion"]

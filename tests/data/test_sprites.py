"""The world is what its configuration says, and only the picture knows the design."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from videobooth_jax.data import sprite_art, sprite_world
from videobooth_jax.data.sprite_art import Pose
from videobooth_jax.data.sprites import (
    SpritesConfig,
    SpritesSource,
    content,
    prompt_pose,
    video_poses,
)

TEST = SpritesConfig(split="test")


def test_splits_share_no_noun() -> None:
    splits = {s: set(sprite_art.split_nouns(s)) for s in ("train", "validation", "test")}
    assert {s: len(n) for s, n in splits.items()} == {"train": 504, "validation": 40, "test": 80}
    assert not any(a & b for a, b in itertools.combinations(splits.values(), 2))
    assert {"panda", "dog", "sailboat", "penguin"} <= splits["test"]
    with pytest.raises(ValueError, match="unknown split 'tset': choose one of test, train"):
        sprite_art.split_nouns("tset")


def test_example_is_a_pure_function_of_configuration_and_index() -> None:
    one, two = SpritesSource(TEST), SpritesSource(TEST)
    for index in (0, 44, 4321):
        first, again = one[index], two[index]
        assert all(np.array_equal(first[key], again[key]) for key in first)
    other = SpritesSource(dataclasses.replace(TEST, seed=1))[44]
    assert not np.array_equal(one[44]["video"], other["video"])
    assert one[44]["noun"] == other["noun"]


def test_shapes_and_bounds() -> None:
    source = SpritesSource(TEST)
    example = source[0]
    assert example["video"].shape == (8, 32, 32, 3)
    assert example["image_prompt"].shape == (32, 32, 3)
    assert example["video"].dtype == example["image_prompt"].dtype == np.uint8
    assert len(source) == 80 * 64 * 8
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


def test_rounds_cover_every_combination_once_and_runs_are_balanced() -> None:
    seen = Counter((noun.key, *rest) for noun, *rest in (content(TEST, i) for i in range(80 * 64)))
    assert len(seen) == 80 * 64
    assert set(seen.values()) == {1}
    run = [content(TEST, i) for i in range(320)]
    assert set(Counter(row[1] for row in run).values()) == {80}
    for part in (2, 3):
        assert all(60 <= count <= 100 for count in Counter(row[part] for row in run).values())
    styles = {noun.key: set() for noun, *_ in run}
    for noun, style, *_ in run:
        styles[noun.key].add(style)
    assert all(len(found) == 4 for found in styles.values())


def test_caption_names_all_but_the_style() -> None:
    source = SpritesSource(TEST)
    for index in range(0, 640, 37):
        example = source[index]
        place = sprite_world.BACKGROUNDS[example["background"]][0]
        prompt = example["prompt"]
        assert all(part in prompt for part in (example["subject"], example["motion"], place))
        assert example["style"] not in prompt


def test_same_caption_different_designs() -> None:
    """What makes the picture needed: one sentence, four looks."""
    poses = [Pose(16, 16, 20)]
    looks = [
        sprite_art.draw(sprite_art.design("panda", s), poses[0], 32) for s in sprite_art.STYLES
    ]
    for one, other in itertools.combinations(looks, 2):
        assert np.sqrt(((one - other) ** 2).mean()) > 0.05


@pytest.mark.parametrize("motion", sprite_world.MOTIONS)
def test_track(motion: str) -> None:
    rng = np.random.default_rng(0)
    poses = video_poses(SpritesConfig(), motion, rng)
    way = np.array([(p.x, p.y) for p in poses])
    assert np.allclose(way[-1] - way[0], 8 * np.array(sprite_world.MOTIONS[motion]))
    assert np.allclose(way.mean(0), 16)
    assert np.allclose(way[0] % 4, 0)  # starts on the latent grid
    jittered = SpritesConfig(jitter_cells=1)
    starts = {video_poses(jittered, motion, rng)[0].x % 4 for _ in range(20)}
    assert starts == {0.0}


def test_image_prompt_is_another_pose() -> None:
    config, rng = SpritesConfig(), np.random.default_rng(0)
    for _ in range(300):
        video = video_poses(config, "left", rng)[0]
        prompt = prompt_pose(config, video, rng)
        assert abs(prompt.angle - video.angle) >= config.min_rotation_gap - 1e-9
        assert abs(prompt.size - video.size) >= config.min_scale_gap * 20 - 1e-9
        assert abs(prompt.angle) <= config.prompt_rotation
        assert 0.9 * 20 - 1e-9 <= prompt.size <= 1.1 * 20 + 1e-9
        assert (prompt.x, prompt.y) == (16, 16)


def test_draw_places_turns_and_mirrors() -> None:
    art = sprite_art.design("sailboat", "noto")
    upright = sprite_art.draw(art, Pose(16, 16, 20), 32)
    rows, columns = (np.flatnonzero(upright[..., 3].max(axis) > 0.5) for axis in (1, 0))
    assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - 20) <= 1
    moved = sprite_art.draw(art, Pose(19, 14, 20), 32)
    assert np.allclose(np.roll(upright, (-2, 3), (0, 1)), moved, atol=2 / 255)
    mirrored = sprite_art.draw(art, Pose(16, 16, 20, flip=True), 32)
    assert np.allclose(upright[:, ::-1], mirrored, atol=3 / 255)
    quarter = sprite_art.draw(art, Pose(16, 16, 20, angle=90), 32)
    assert np.allclose(np.rot90(upright), quarter, atol=3 / 255)
    assert (upright[..., :3] <= upright[..., 3:] + 2 / 255).all()  # premultiplied


def test_image_prompt_is_on_white_and_background_stands_still() -> None:
    example = SpritesSource(TEST)[44]
    assert (example["image_prompt"][[0, -1]] == 255).all()
    corner = example["video"][:, :2, :2]
    assert (corner == corner[0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "all"}, "SpritesConfig.split"),
        ({"backgrounds": ("meadow", "moon")}, "moon"),
        ({"motions": ()}, "SpritesConfig.motions"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"prompt_rotation": 4.0}, "leaves no room"),
    ],
)
def test_configurations_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpritesConfig(**change)


def test_world_grows() -> None:
    config = SpritesConfig(
        resolution=64,
        num_frames=16,
        backgrounds=tuple(sprite_world.BACKGROUNDS),
        flip_probability=0.5,
        prompt_shift=0.1,
        prompt_flip_probability=0.5,
        prompt_rotation=0.0,
        min_rotation_gap=0.0,
    )
    example = SpritesSource(config)[100]
    assert example["video"].shape == (16, 64, 64, 3)
    assert len({content(config, i)[1:] for i in range(0, 504 * 96, 504)}) == 96


def test_unknown_designs() -> None:
    with pytest.raises(ValueError, match="unknown noun 'wug'"):
        sprite_art.design("wug", "noto")
    with pytest.raises(ValueError, match="unknown style 'crayon'"):
        sprite_art.design("panda", "crayon")

"""Image prompts of training: points go where the matrix says, draws keep to their bounds, and
nothing changes nothing."""

import dataclasses

import numpy as np
import pytest

from videobooth_jax.data.image_prompt import cut_out
from videobooth_jax.data.prompt_augment import (
    AUGMENTS,
    PromptAugment,
    augment_prompt,
    move,
    placement,
    trimmed_box,
)


def subject(height: int = 40, width: int = 30) -> np.ndarray:
    """An RGBA picture without symmetry."""
    picture = np.random.default_rng(0).integers(0, 200, (height, width, 4), dtype=np.uint8)
    picture[..., 3] = 255
    picture[: height // 3, : width // 2, 3] = 0
    return picture


def draws(augment: PromptAugment, shift=(0.0, 0.0), count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([placement(100, augment, shift, rng) for _ in range(count)])


def blob(x: float, y: float, side: int = 96) -> np.ndarray:
    """A dark Gaussian spot on white, centred at a point in px."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    dark = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
    return np.repeat(np.rint(255 - 200 * dark).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_dark(image: np.ndarray) -> np.ndarray:
    dark = 255.0 - image[..., 0]
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(dark * columns).sum(), (dark * rows).sum()]) / dark.sum()


def test_none_is_the_plain_path_bit_for_bit():
    picture = subject()
    for_clip, for_vae = augment_prompt(picture, AUGMENTS["none"], np.random.default_rng(0))
    plain = cut_out(picture, box=(0, 0, 30, 40))
    assert np.array_equal(for_clip, plain)
    assert np.array_equal(for_vae, plain)


@pytest.mark.parametrize(
    "augment",
    [
        PromptAugment(flip=1.0),
        PromptAugment(rotation=30.0),
        PromptAugment(scale=(0.8, 1.2)),
        PromptAugment(flip=0.5, rotation=30.0, scale=(0.8, 1.2)),
    ],
)
def test_a_point_goes_where_the_matrix_says(augment):
    rng = np.random.default_rng(3)
    for _ in range(4):
        matrix = placement(96, augment, (0.1, 0.1), rng)
        point = np.array([58.0, 41.0])
        moved = move(blob(*point), matrix)
        assert np.abs(centre_of_dark(moved) - (matrix @ [*point, 1])).max() < 0.05


def test_whole_pixel_shifts_and_mirrors_are_exact():
    square = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    shifted = move(square, np.array([[1.0, 0, 3], [0, 1.0, -2]]))
    assert np.array_equal(shifted[:14, 3:], square[2:, :13])
    assert (shifted[14:] == 255).all()
    assert (shifted[:, :3] == 255).all()
    mirror = placement(16, PromptAugment(flip=1.0), (0.0, 0.0), np.random.default_rng(0))
    assert np.array_equal(move(square, mirror), square[:, ::-1])


def test_positive_angles_turn_counter_clockwise():
    augment = PromptAugment(rotation=90.0)
    angle = 0.0
    rng = np.random.default_rng(0)
    while angle < 45:
        matrix = placement(96, augment, (0.0, 0.0), rng)
        angle = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))
    right = np.array([80.0, 48.0, 1.0])
    assert (matrix @ right)[1] < 48  # what was right of the centre is now above it


def test_draws_keep_to_the_papers_bounds_and_reach_them():
    turn = draws(AUGMENTS["coarse"])[:, :, :2]
    scale = np.sqrt(np.abs(np.linalg.det(turn)))
    assert 0.8 <= scale.min() < 0.81
    assert 1.19 < scale.max() <= 1.2
    angle = np.degrees(np.arctan2(turn[:, 0, 1], turn[:, 1, 1]))
    assert -30 <= angle.min() < -29
    assert 29 < angle.max() <= 30
    assert 0.4 < (np.linalg.det(turn) < 0).mean() < 0.6


def test_the_clip_copy_shifts_down_and_up_only_the_other_both_ways():
    still = dataclasses.replace(AUGMENTS["coarse"], flip=0.0, rotation=0.0, scale=(1.0, 1.0))
    for_clip, for_vae = (draws(still, s)[:, :, 2] for s in (still.clip_shift, still.vae_shift))
    assert (for_clip[:, 0] == 0).all()
    for shifts in (for_clip[:, 1], for_vae[:, 0], for_vae[:, 1]):
        assert -10 <= shifts.min() < -9.5
        assert 9.5 < shifts.max() <= 10


def test_one_side_is_trimmed_by_its_share():
    rng = np.random.default_rng(0)
    boxes = np.array([trimmed_box((200, 100), AUGMENTS["fine"].trim, rng) for _ in range(400)])
    cut = np.abs(boxes - (0, 0, 200, 100)) / (200, 100, 200, 100)
    assert ((cut > 0).sum(1) == 1).all()
    assert (cut > 0).sum(0).min() > 70  # each side about as often
    assert 0.01 <= cut.max(1).min() < 0.02
    assert 0.19 < cut.max() <= 0.2


def test_the_two_copies_are_drawn_independently_of_each_other():
    augment = dataclasses.replace(AUGMENTS["coarse"], vae_shift=AUGMENTS["coarse"].clip_shift)
    rng = np.random.default_rng(0)
    pairs = [augment_prompt(subject(), augment, rng) for _ in range(5)]
    assert not any(np.array_equal(*pair) for pair in pairs)


def test_what_is_drawn_next_does_not_depend_on_the_options():
    after = set()
    for augment in AUGMENTS.values():
        rng = np.random.default_rng(5)
        augment_prompt(subject(), augment, rng)
        after.add(rng.random())
    assert len(after) == 1


def test_white_comes_in_from_outside():
    for_clip, _ = augment_prompt(subject(), AUGMENTS["fine"], np.random.default_rng(2))
    assert (for_clip[0, 0] == 255).all()
    assert for_clip.shape[0] == for_clip.shape[1]

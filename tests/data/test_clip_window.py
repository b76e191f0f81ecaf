"""The frames a training clip shows are the paper's."""

import numpy as np
import pytest

from videobooth_jax.data.clip_window import clip_window


def windows(length: int, count: int, span: int, draws: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([clip_window(length, count, span, rng) for _ in range(draws)])


def test_sixteen_of_sixty_four_evenly_from_anywhere():
    drawn = windows(70, 16, 64)
    for window in drawn:
        start = window[0]
        assert window.tolist() == np.floor(np.linspace(start, start + 63, 16)).tolist()
    assert np.bincount(drawn[:, 0], minlength=7).min() > 20  # all seven starts, about as often
    assert drawn[:, 0].max() == 6
    assert drawn.max() == 69


@pytest.mark.parametrize("length", [64, 40, 16])
def test_the_whole_of_a_video_that_is_no_longer(length):
    expected = np.floor(np.linspace(0, length - 1, 16) + 1e-9).astype(int)
    assert (windows(length, 16, 64, 5) == expected).all()


def test_a_single_frame_is_any_of_the_first_of_a_window():
    assert set(windows(10, 1, 8)[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize(("length", "span"), [(15, 64), (100, 15)])
def test_too_few_frames_are_refused(length, span):
    with pytest.raises(ValueError, match="16 frames cannot be taken"):
        clip_window(length, 16, span, np.random.default_rng(0))

"""GrabCut on pictures whose true masks are known, and what it says when it cannot tell."""

import sys

import numpy as np
import pytest
from photos import overlap, scene, scenes

from videobooth_jax.segmentation.cleaning import clean, enlarge
from videobooth_jax.segmentation.grab_cut import grab_cut


@pytest.fixture(scope="module")
def panda():
    return scene("panda", "noto", "meadow", np.random.default_rng(3), 160)


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return y**2 + x**2 <= radius**2


def test_subjects_of_a_dozen_scenes_are_found_from_their_boxes():
    overlaps = {s.name: overlap(grab_cut(s.picture, s.box), s.mask) for s in scenes(12)}
    assert np.mean(list(overlaps.values())) > 0.9, overlaps
    assert np.median(list(overlaps.values())) > 0.94, overlaps


def test_subjects_of_scenes_are_found_from_a_click_more_or_less():
    import cv2

    overlaps = {}
    for s in scenes(8):
        inside = cv2.distanceTransform(s.mask.astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        overlaps[s.name] = overlap(grab_cut(s.picture, point=(int(x), int(y))), s.mask)
    assert np.median(list(overlaps.values())) > 0.85, overlaps


def test_the_same_whatever_ran_before(panda):
    import cv2

    first = grab_cut(panda.picture, panda.box)
    cv2.setRNGSeed(77)
    cv2.kmeans(np.random.default_rng(0).random((50, 3), np.float32), 3, None,
               (cv2.TERM_CRITERIA_EPS, 3, 1.0), 2, cv2.KMEANS_PP_CENTERS)  # fmt: skip
    assert np.array_equal(grab_cut(panda.picture, panda.box), first)


def test_huge_photos_are_cut_small_and_their_edges_stay_smooth():
    """A disc of 1200 px in 2400 px, worked on at a fifth of that: edges within a few px, no
    stairs."""
    size = 2400
    true = disc(size, 600)
    picture = np.where(true[..., None], (200, 60, 40), (40, 120, 90)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-12, 12, picture.shape)
    picture = (picture + noise).astype(np.uint8)
    found = grab_cut(picture, (580, 580, 1820, 1820))
    assert overlap(found, true) > 0.985
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    wrong = np.hypot(y, x)[found != true]
    assert np.abs(wrong - 600).max() < 8


def test_a_box_up_to_the_edge_holds_what_the_picture_cuts_off():
    true = np.zeros((120, 120), bool)
    true[60:, 20:100] = True
    rng = np.random.default_rng(0)
    colours = np.where(true[..., None], (180, 60, 40), (40, 100, 160))
    picture = (colours + rng.integers(-20, 20, colours.shape)).astype(np.uint8)
    assert overlap(grab_cut(picture, (12, 50, 108, 119)), true) > 0.97  # 1 px is as good as none


def test_where_nothing_can_be_told_it_is_said():
    rng = np.random.default_rng(0)
    flat = rng.integers(100, 104, (60, 60, 3), np.uint8)
    with pytest.raises(ValueError, match=r"no subject was found|could not be told"):
        grab_cut(flat, (10, 10, 50, 50))
    filled = flat.copy()
    filled[10:50, 10:50] = (250, 20, 20)
    with pytest.raises(ValueError, match=r"could not be told.*--segment none"):
        grab_cut(filled, (10, 10, 50, 50))


def test_without_opencv_it_is_said_what_to_do(monkeypatch, panda):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"videobooth_jax\[photo\].*--mask.*--segment none"):
        grab_cut(panda.picture, panda.box)


def test_cleaning_drops_specks_fills_pinholes_and_keeps_rings():
    mask = disc(100, 40) & ~disc(100, 20)  # a ring
    dirty = mask.copy()
    dirty[2:4, 2:4] = True
    dirty[50, 80] = False
    assert np.array_equal(clean(dirty), mask)
    pair = np.zeros((60, 60), bool)
    pair[5:25, 5:55] = pair[35:55, 5:35] = True
    assert np.array_equal(clean(pair), pair)
    lower = clean(pair, (10, 40))
    assert lower[40, 10]
    assert not lower[:30].any()
    assert not clean(pair, (58, 58)).any()
    assert not clean(np.zeros((9, 9), bool)).any()


def test_enlarged_edges_are_no_stairs():
    small, large = disc(60, 20), disc(600, 200)
    assert overlap(enlarge(small, 600, 600), large) > 0.985
    stairs = small.repeat(10, 0).repeat(10, 1)
    assert overlap(enlarge(small, 600, 600), large) > overlap(stairs, large)

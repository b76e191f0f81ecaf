"""The door: which hint is used, what comes out, and what is refused."""

import warnings

import numpy as np
import pytest
from photos import scene
from PIL import Image

from videobooth_jax.data.image_prompt import cut_out
from videobooth_jax.segmentation import METHODS, segment
from videobooth_jax.segmentation.drawing import cutout, overlay


@pytest.fixture(scope="module")
def photo():
    return scene("panda", "noto", "meadow", np.random.default_rng(3), 128)


def clear_around(photo) -> np.ndarray:
    return np.dstack([photo.picture, np.where(photo.mask, 255, 0).astype(np.uint8)])


def test_the_best_hint_given_is_used(photo):
    on_white = np.where(photo.mask[..., None], photo.picture, np.uint8(255))
    given = {
        "mask": ({"picture": clear_around(photo), "mask": photo.mask}, photo.mask),
        "alpha": ({"picture": clear_around(photo), "box": photo.box}, photo.mask),
        "box": ({"picture": photo.picture, "box": photo.box}, None),
        "none": ({"picture": on_white}, None),
    }
    for method, (hints, mask) in given.items():
        found = segment(**hints)
        assert (found.method, found.score) == (method, None)
        assert found.mask.shape == photo.mask.shape
        assert found.mask.dtype == bool
        assert mask is None or np.array_equal(found.mask, mask)
    assert segment(photo.picture, "none", box=photo.box).mask.all()


@pytest.mark.parametrize("hints", [{}, {"box": (20, 10, 100, 90)}])
@pytest.mark.parametrize("kind", ["mask", "alpha", "none"])
def test_published_ways_give_the_published_square(photo, kind, hints):
    picture = clear_around(photo) if kind == "alpha" else photo.picture
    mask = {"mask": photo.mask} if kind == "mask" else {}
    square = segment(picture, kind, **mask, **hints).square()
    assert np.array_equal(square, cut_out(picture, **mask, **hints))


def test_a_plain_photo_is_shown_whole_with_advice(photo):
    with pytest.warns(UserWarning, match=r"--box.*--point.*--mask.*--segment auto"):
        found = segment(photo.picture)
    assert found.box == (0, 0, 128, 128)
    assert found.share == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segment(photo.picture, "none")
        segment(clear_around(photo))


@pytest.mark.parametrize(
    ("message", "hints"),
    [
        ("unknown method 'magic'; choose one of auto, mask", {"method": "magic"}),
        ("method mask needs a mask", {"method": "mask"}),
        ("method box needs a box or a point", {"method": "box"}),
        ("method auto needs a subject", {"method": "auto"}),
        ("method box has no use for a mask", {"method": "box", "box": (0, 0, 9, 9), "mask": "m"}),
        ("method none has no use for a point", {"method": "none", "point": (3, 3)}),
        ("method mask has no use for a point", {"mask": "m", "point": (3, 3)}),
        ("no transparent parts", {"method": "alpha"}),
        ("does not lie inside the picture", {"box": (0, 0, 200, 20)}),
        ("four numbers", {"box": (0, 0, 20)}),
        ("point .* does not lie inside the picture", {"point": (128, 3)}),
        ("point .* does not lie inside the box", {"point": (3, 3), "box": (10, 10, 50, 50)}),
        ("two numbers", {"point": (3, 3, 3)}),
    ],
)
def test_hints_that_cannot_be_used(photo, message, hints):
    with pytest.raises(ValueError, match=message):
        segment(photo.picture, **hints)


def test_clear_and_white_pictures_show_nothing(photo):
    with pytest.raises(ValueError, match="transparent everywhere"):
        segment(np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(ValueError, match="white everywhere"):
        segment(np.full((20, 20, 3), 255, np.uint8))


@pytest.mark.parametrize("way", ["mask", "alpha", "box", "none", "rectangle"])
def test_a_cut_out_read_again_gives_the_same_prompt(photo, way, tmp_path):
    rectangle = np.zeros((128, 128), bool)
    rectangle[20:90, 30:70] = True
    found = {
        "mask": lambda: segment(photo.picture, mask=photo.mask),
        "alpha": lambda: segment(clear_around(photo)),
        "box": lambda: segment(photo.picture, box=photo.box),
        "none": lambda: segment(photo.picture, "none", box=photo.box),
        "rectangle": lambda: segment(photo.picture, mask=rectangle),
    }[way]()
    image = cutout(found)
    image.save(tmp_path / "cut.png")
    assert np.array_equal(segment(tmp_path / "cut.png").square(), found.square())
    assert image.mode == "RGBA"


def test_the_overlay_shows_mask_and_box_alone(photo):
    found = segment(photo.picture, mask=photo.mask)
    changed = (np.asarray(overlay(found)) != photo.picture).any(-1)
    left, top, right, bottom = found.box
    edge = np.zeros_like(changed)
    edge[top:bottom, left:right] = True
    edge[top + 1 : bottom - 1, left + 1 : right - 1] = False
    assert not changed[~photo.mask & ~edge].any()
    assert changed[photo.mask | edge].mean() > 0.99


def test_every_picture_that_can_be_read_can_be_segmented(photo, tmp_path):
    Image.fromarray(photo.picture).convert("CMYK").save(tmp_path / "p.jpg", quality=95)
    found = segment(str(tmp_path / "p.jpg"), box=photo.box)
    assert found.picture.shape == photo.picture.shape
    assert set(METHODS) == {"auto", "mask", "alpha", "box", "none"}


@pytest.mark.parametrize(("height", "width"), [(4, 60), (60, 3), (7, 60)])
def test_a_narrow_subject_is_cut_out_as_a_picture_that_can_be_read(photo, height, width, tmp_path):
    mask = np.zeros((128, 128), bool)
    mask[20 : 20 + height, 30 : 30 + width] = True
    mask[20, 30] = False
    found = segment(photo.picture, mask=mask)
    cutout(found).save(tmp_path / "cut.png")
    assert np.array_equal(segment(tmp_path / "cut.png").square(), found.square())


def test_a_subject_whose_square_would_fill_the_memory_is_refused():
    strip = segment(np.zeros((8, 10_001, 3), np.uint8), "none")
    with pytest.raises(ValueError, match="10001x8 px, and a square around it at most 10000x10000"):
        strip.square()

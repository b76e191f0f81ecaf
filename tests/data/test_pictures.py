"""Whatever cameras, scanners and drawing programs write is read as people see it, or refused."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videobooth_jax.data.pictures import FORMATS, on_white, open_picture, read_mask, used_alpha

SIDES = (40, 30)


def colours() -> np.ndarray:
    """Red left, blue right, 30x40: large fields, so that JPEG keeps them."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :20] = (250, 0, 0)
    image[:, 20:] = (0, 0, 250)
    return image


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file


def seen(file: io.BytesIO, tmp_path: Path) -> np.ndarray:
    path = tmp_path / "picture"
    path.write_bytes(file.getvalue())
    return on_white(open_picture(path)).astype(int)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind, tmp_path):
    got = seen(saved(Image.fromarray(colours()), kind), tmp_path)
    assert np.abs(got[:, [5, 35]] - colours()[:, [5, 35]]).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright(kind, orientation, tmp_path):
    """EXIF 2.32, tag 0x0112: where the stored row 0 and column 0 lie."""
    upright = colours()
    upright[:10, :10] = (0, 250, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    got = seen(
        saved(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})), tmp_path
    )
    assert got.shape == upright.shape
    for y, x in ((5, 5), (25, 5), (5, 35)):
        assert np.abs(got[y, x] - upright[y, x]).max() < 60


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_looks_as_it_prints(kind, tmp_path):
    """JPEG stores it inverted, with Adobe's marker; TIFF as it is."""
    inks = np.zeros((30, 40, 4), np.uint8)
    inks[:, :20] = (0, 255, 255, 0)
    inks[:, 20:] = (255, 255, 0, 100)
    file = saved(Image.fromarray(inks, "CMYK"), kind)
    assert (b"Adobe" in file.getvalue()) == (kind == "JPEG")
    got = seen(file, tmp_path)
    assert np.abs(got[15, 5] - (255, 0, 0)).max() < 12
    assert np.abs(got[15, 35] - (0, 0, 155)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut(kind, tmp_path):
    ramp = np.linspace(0, 65535, 40).astype(np.uint16)[None].repeat(30, 0)
    got = seen(saved(Image.fromarray(ramp), kind), tmp_path)
    assert np.array_equal(got[..., 0], ramp >> 8)
    assert (got[..., 0] == got[..., 2]).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_colours(kind, channels, tmp_path):
    """Pillow reads but does not write them; OpenCV writes them (blue first)."""
    cv2 = pytest.importorskip("cv2")
    pixels = np.full((30, 40, channels), 65535, np.uint16)
    pixels[..., :3] = (0x8000, 0x4000, 0x2000)  # blue, green, red
    path = tmp_path / f"deep.{kind}"
    assert cv2.imwrite(str(path), pixels)
    image = open_picture(path)
    assert used_alpha(image) is None
    assert np.abs(on_white(image)[3, 3].astype(int) - (0x20, 0x40, 0x80)).max() <= 1


def test_a_clear_value_of_sixteen_bit_grey(tmp_path):
    values = np.full((30, 40), 1000, np.uint16)
    values[:, :20] = 77
    got = saved(Image.fromarray(values), "PNG", transparency=77)
    assert seen(got, tmp_path)[3, [3, 30], 0].tolist() == [255, 3]


def test_transparency_of_every_kind_is_white(tmp_path):
    alpha = np.zeros((30, 40), np.uint8)
    alpha[5:25, 5:35] = 255
    rgba = Image.fromarray(np.dstack([colours(), alpha]))
    palette = rgba.convert("RGB").quantize(8)
    palette.info.clear()
    clear = np.asarray(palette)[0, 0]
    cases = {
        "rgba": (saved(rgba, "PNG"), alpha > 0),
        "grey": (saved(rgba.convert("LA"), "PNG"), alpha > 0),
        "palette": (
            saved(palette, "PNG", transparency=int(clear)),
            np.asarray(palette) != clear,
        ),
        "animation": (saved(rgba, "GIF"), alpha > 0),
        "webp": (saved(rgba, "WEBP", lossless=True), alpha > 0),
    }
    for name, (file, shown) in cases.items():
        (tmp_path / name).write_bytes(file.getvalue())
        image = open_picture(tmp_path / name)
        assert np.array_equal(used_alpha(image), shown), name
        assert (on_white(image)[~shown] == 255).all(), name
        assert (on_white(image)[shown] != 255).any(-1).all(), name
    opaque = rgba.copy()
    opaque.putalpha(255)
    assert used_alpha(open_picture(opaque)) is None
    assert used_alpha(open_picture(palette)) is None


def test_one_bit(tmp_path):
    bits = np.zeros((30, 40), bool)
    bits[:, :20] = True
    for kind in ("PNG", "TIFF", "BMP"):
        got = seen(saved(Image.fromarray(bits), kind), tmp_path)
        assert np.array_equal(got[..., 0], bits * 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_show_their_first_frame(kind, tmp_path):
    frames = [Image.new("RGB", SIDES, colour) for colour in ("red", "lime", "blue")]
    file = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(seen(file, tmp_path)[3, 3] - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV"])
def test_other_kinds_of_pixels_are_refused(mode):
    with pytest.raises(ValueError, match="pixels of a kind that is not read"):
        open_picture(Image.new(mode, SIDES))


@pytest.mark.parametrize("kind", FORMATS)
def test_files_cut_anywhere_are_read_or_refused(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    whole = saved(Image.fromarray(noise), kind).getvalue()
    path = tmp_path / "cut"
    said = []
    for part in np.linspace(0, 0.9, 19):
        path.write_bytes(whole[: int(part * len(whole))])
        said.append(why_refused(path))
    refusals = [sentence for sentence in said if sentence is not None]
    assert len(refusals) >= 15
    assert all(str(path) in sentence for sentence in refusals)


def why_refused(path: Path) -> str | None:
    try:
        open_picture(path)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_never_end_in_anything_but_a_sentence(kind, tmp_path):
    rng = np.random.default_rng(1)
    whole = bytearray(saved(Image.fromarray(colours()), kind).getvalue())
    path = tmp_path / "damaged"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        said = why_refused(path)
        assert said is None or re.search("cannot be read|too large|too small|of a kind", said)


def test_masks_of_any_depth():
    marked = np.zeros((30, 40), bool)
    marked[5:15, 10:30] = True
    for values in (marked * np.uint16(1), marked * np.uint16(65535)):
        assert np.array_equal(read_mask(Image.fromarray(values), SIDES), marked)
    assert np.array_equal(read_mask(Image.fromarray(marked), SIDES), marked)

"""Cut-outs and resizes against known answers, and every picture that must be refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videobooth_jax.data import image_prompt
from videobooth_jax.data.image_prompt import cut_out

GOLDENS = Path(__file__).parents[1] / "goldens" / "image_prompt.npz"


@pytest.fixture
def picture() -> np.ndarray:
    """A red 20x10 rectangle on blue, 40x30."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 2] = 255
    image[5:15, 10:30] = (255, 0, 0)
    return image


@pytest.fixture
def mask() -> np.ndarray:
    marked = np.zeros((30, 40), bool)
    marked[5:15, 10:30] = True
    return marked


def red(square: np.ndarray) -> np.ndarray:
    return (square == (255, 0, 0)).all(-1)


@pytest.mark.parametrize("name", ["bicycle", "giraffe"])
def test_published_preparation(name: str) -> None:
    with np.load(GOLDENS) as stored:
        array = {k.removeprefix(f"{name}_"): stored[k] for k in stored if k.startswith(name)}
    square = image_prompt.square_cutout(array["image_rgb_u8"], array["mask_u8"], array["bbox"])
    assert np.array_equal(square.transpose(2, 0, 1), array["square_u8"])
    for side in (224, 256):
        resized = image_prompt.resize(square, side).transpose(2, 0, 1)
        assert (resized == array[f"resized{side}_u8"]).mean() >= 0.9999
        exact = image_prompt.resize_bilinear(square, side, side).transpose(2, 0, 1)[:, ::16]
        assert np.abs(exact - array[f"interp{side}_f32_rows"]).max() < 1e-3
    clip = image_prompt.clip_input(array["resized224_u8"].transpose(1, 2, 0))
    assert np.abs(clip.transpose(2, 0, 1)[:, ::16] - array["clip_normalized_rows"]).max() < 1e-6
    vae = image_prompt.vae_input(array["resized256_u8"].transpose(1, 2, 0))
    assert np.abs(vae.transpose(2, 0, 1)[:, ::16] - array["vae_input_rows"]).max() < 1e-6


def test_resize_halves_round_to_even() -> None:
    image = np.array([[0, 1], [0, 1]], np.uint8)[..., None].repeat(3, -1)
    assert image_prompt.resize(np.array([[[1] * 3, [2] * 3]], np.uint8), 1).tolist() == [[[2] * 3]]
    assert image_prompt.resize(image, 1).tolist() == [[[0] * 3]]


def test_uneven_padding_is_smaller_above() -> None:
    square = image_prompt.square_cutout(
        np.zeros((7, 10, 3), np.uint8), np.ones((7, 10)), (0, 0, 10.9, 7.2)
    )
    assert square.shape == (10, 10, 3)
    assert (square.max((1, 2)) == 255).nonzero()[0].tolist() == [0, 8, 9]


def test_mask_alpha_box_or_white_margin_show_the_same(picture, mask) -> None:
    rgba = np.dstack([picture, np.where(mask, 255, 0).astype(np.uint8)])
    on_white = np.where(mask[..., None], picture, np.uint8(255))
    squares = [
        cut_out(picture, mask=mask),
        cut_out(picture, mask=mask.astype(np.uint8) * 255),
        cut_out(picture, box=(10, 5, 30.7, 15.2)),
        cut_out(rgba),
        cut_out(on_white),
    ]
    for square in squares:
        assert square.shape == (20, 20, 3)
        assert red(square).sum() == 200
        assert red(square)[5:15].all()
        assert (square[:5] == 255).all()


def test_files_palette_masks_and_plain_pictures(picture, mask, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "p.png")
    palette = Image.fromarray(mask.astype(np.uint8) * 3, "L").convert("P")
    indices = Image.new("P", palette.size)
    indices.putdata((mask * 1).flatten().tolist())
    indices.putpalette([0, 0, 0, 9, 9, 9])
    indices.save(tmp_path / "m.png")
    assert red(cut_out(tmp_path / "p.png", mask=tmp_path / "m.png")).sum() == 200
    whole = cut_out(str(tmp_path / "p.png"))
    assert whole.shape == (40, 40, 3)
    assert (whole[5:35] != 255).any(-1).all()


def test_place_on_canvas() -> None:
    square = np.zeros((101, 101, 3), np.uint8)
    placed = image_prompt.place_on_canvas(square, 32, 20 / 32)
    assert (placed[6:26, 6:26] == 0).all()
    assert (placed.sum((0, 1)) == 255 * (32 * 32 - 20 * 20)).all()
    stripes = np.tile(np.array([0, 255], np.uint8), 200)[None, :, None].repeat(400, 0).repeat(3, -1)
    small = image_prompt.place_on_canvas(stripes, 32, 20 / 32)[8:24, 8:24]
    assert np.abs(small.astype(int) - 127).max() <= 2  # averaged, not sampled
    with pytest.raises(ValueError, match="does not fit"):
        image_prompt.place_on_canvas(square, 32, 1.5)


def bomb(path: Path, side: int = 60_000) -> Path:
    """A PNG of a few bytes that claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_gigantic_pictures_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    with pytest.raises(ValueError, match="too large"):
        cut_out(bomb(tmp_path / "bomb.png", side))


def test_unreadable_files(tmp_path: Path, picture) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        cut_out(tmp_path / "none.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    Image.fromarray(picture).resize((400, 300)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n")
    for name in ("empty.png", "text.png", "page.eps", "."):
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            cut_out(tmp_path / name)
    with pytest.raises(ValueError, match="is damaged"):
        cut_out(tmp_path / "cut.png")


def test_unusable_pictures_and_masks(picture, mask) -> None:
    refused = [
        ("too small: 1x1", {"picture": picture[:1, :1]}),
        ("an array picture must be", {"picture": picture.astype(np.float32)}),
        ("of a kind that is not read", {"picture": Image.new("F", (40, 30))}),
        ("mask is empty", {"picture": picture, "mask": np.zeros((30, 40), bool)}),
        ("must have the size", {"picture": picture, "mask": mask[:, :-1]}),
        ("shows nothing", {"picture": np.dstack([picture, np.zeros((30, 40), np.uint8)])}),
        ("shows nothing", {"picture": np.full((30, 40, 3), 255, np.uint8)}),
        ("hardly anything", {"picture": picture, "box": (0, 0, 3, 3)}),
        ("hardly anything", {"picture": picture, "mask": mask, "box": (31, 16, 40, 30)}),
    ]
    for message, given in refused:
        with pytest.raises(ValueError, match=message):
            cut_out(**given)


@pytest.mark.parametrize(
    "box", [(30, 5, 10, 15), (10, 5, 41, 15), (-2, 0, 9, 9), (50, 50, 60, 60), (0, 0, 9, np.nan)]
)
def test_boxes_outside_the_picture(picture, box) -> None:
    with pytest.raises(ValueError, match=r"does not lie inside|four numbers"):
        cut_out(picture, box=box)
    with pytest.raises(ValueError, match="four numbers"):
        cut_out(picture, box=(1, 2, 3))

"""Everything that cannot be done is refused in plain words, and nothing is compiled for it."""

import dataclasses
import struct
import zlib

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_model import picture, tiny_config, tiny_pipeline

from videobooth_jax.pipeline import VideoBoothPipeline, requests
from videobooth_jax.pipeline.requests import make_columns, make_plan, read_pictures, read_texts

GOOD = {"prompt": "a panda moving left over a meadow", "image": picture(), "subject": "panda"}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(autouse=True)
def no_compiling(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("something was compiled")

    jax.block_until_ready(jax.numpy.zeros(1))
    monkeypatch.setattr(jax._src.compiler, "compile_or_get_cached", fail)


def saved(tmp_path, content, name="picture.png"):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    return path


def bomb(tmp_path):
    """A small file that says it holds 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return saved(tmp_path, content, "bomb.png")


def truncated(tmp_path):
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    return path


LONG = "a very " + "big " * 40 + "panda moving left"

REFUSALS = {
    "subject not in prompt": ({"subject": "tiger"}, "'tiger' does not occur in the prompt"),
    "part of a word": ({"prompt": "a pandas", "subject": "panda"}, "does not occur"),
    "empty subject": ({"subject": ""}, "subject is empty"),
    "subject cut off": ({"prompt": LONG}, "cut off"),
    "words cut off": ({"prompt": " ".join("abcdefghijklmnopqrstuvwxyz1234"), "subject": "4"},
                      "the picture takes 2 positions"),
    "prompt no text": ({"prompt": 3}, "prompt must be text"),
    "no picture": ({"image": None}, "picture of the subject is missing"),
    "one pixel": ({"image": picture()[:1, :1]}, "too small"),
    "empty array": ({"image": np.zeros((0, 0, 3), np.uint8)}, "too small"),
    "float picture": ({"image": picture() / 255.0}, "uint8"),
    "nothing but white": ({"image": np.full((20, 20, 3), 255, np.uint8)}, "nothing|hardly"),
    "empty mask": ({"mask": np.zeros((24, 24), np.uint8)}, "mask is empty"),
    "mask of another size": ({"mask": np.ones((20, 24), np.uint8)}, "mask must have the size"),
    "box outside": ({"box": (4, 4, 30, 20)}, "box"),
    "box inside out": ({"box": (14, 4, 6, 20)}, "box"),
    "point outside": ({"point": (24, 3)}, "point .* does not lie inside"),
    "method": ({"segment": "magic"}, "unknown method 'magic'; choose one of auto"),
    "no use for a mask": ({"segment": "box", "point": (3, 3), "mask": np.ones((24, 24), bool)},
                          "method box has no use for a mask"),
    "point, but no cutting": ({"point": (1, 1), "cut_out": False}, "leave them away"),
    "box of three": ({"box": (1, 2, 3)}, "box"),
    "sampler": ({"sampler": "euler"}, "unknown sampler 'euler'; choose one of ddpm"),
    "injection": ({"injection": "both"}, "unknown injection 'both'; choose one of fine"),
    "no frames": ({"num_frames": 0}, "num_frames must be between 1 and 24, not 0"),
    "too many frames": ({"num_frames": 25}, "num_frames must be between 1 and 24"),
    "half a frame": ({"num_frames": 2.5}, "num_frames must be a whole number"),
    "odd height": ({"height": 15}, "height must be a multiple of 2"),
    "huge width": ({"width": 1000}, "width must be between 2 and 64"),
    "no steps": ({"num_inference_steps": 0}, "between 1 and 1000"),
    "too many steps": ({"num_inference_steps": 1001}, "between 1 and 1000"),
    "guidance": ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number"),
    "negative seed": ({"seed": -1}, "seed must be between 0 and"),
    "no count": ({"count": 0}, "count must be between 1"),
    "batch size": ({"batch_size": 0}, "batch_size must be between 1"),
    "lengths": ({"prompt": ["a panda"] * 2, "image": [picture()] * 3}, "2 of prompt, 3 of image"),
    "empty list": ({"prompt": []}, "prompt is an empty list"),
    "one bad of many": ({"prompt": ["a panda", "a tiger"]}, "not occur in the prompt 'a tiger"),
    "wide image prompt": ({"image": picture()[:20], "cut_out": False}, "must be square, not 24x20"),
    "box, but no cutting": ({"box": (1, 1, 20, 20), "cut_out": False}, "leave them away"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(pipe, name):
    change, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        pipe(**(GOOD | change))


@pytest.mark.parametrize("make", [truncated, bomb])
def test_bad_files_are_refused(pipe, tmp_path, make):
    with pytest.raises(ValueError, match=r"damaged|large"):
        pipe(**(GOOD | {"image": make(tmp_path)}))


def test_missing_and_foreign_files_are_refused(pipe, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="none"):
        pipe(**(GOOD | {"image": tmp_path / "none.png"}))
    with pytest.raises(ValueError, match="text"):
        pipe(**(GOOD | {"image": saved(tmp_path, b"no picture", "text.png")}))
    with pytest.raises(ValueError, match="empty"):
        pipe(**(GOOD | {"image": saved(tmp_path, b"", "empty.png")}))


def test_unknown_options_are_named(pipe):
    with pytest.raises(TypeError, match="unknown option 'steps'; the options are num_frames"):
        pipe(**GOOD, steps=3)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no model 'nowhere'"):
        VideoBoothPipeline.from_pretrained("nowhere")
    with pytest.raises(ValueError, match="not a model directory"):
        VideoBoothPipeline.from_pretrained(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(pipe):
    text = pipe.config.text_encoder
    other = requests.dataclasses.replace(text, max_position_embeddings=16)
    config = requests.dataclasses.replace(pipe.config, text_encoder=other)
    with pytest.raises(ValueError, match="ids and 32 positions"):
        VideoBoothPipeline(config, pipe.params, pipe.tokenizer)


def test_options_left_out_are_the_models_own():
    plan, scale = make_plan(tiny_config(), {"height": None, "sampler": "ddpm"})
    assert (plan.num_frames, plan.height, plan.width) == (3, 16, 16)
    assert (plan.sampler, plan.num_inference_steps, plan.injection) == ("ddpm", 3, "fine")
    assert (scale, plan.guided) == (2.0, True)
    assert not make_plan(tiny_config(), {"guidance_scale": 1})[0].guided


def test_one_item_goes_with_all():
    columns = make_columns(["a", "b", "c"], "s", ("x.png", "y.png", "z.png"), None, (1, 2, 3, 4))
    assert columns.subjects == ["s"] * 3
    assert columns.images == ["x.png", "y.png", "z.png"]
    assert columns.boxes == [(1, 2, 3, 4)] * 3
    boxes = make_columns("a", "s", "x.png", None, [(1, 2, 3, 4), None]).boxes
    assert boxes == [(1, 2, 3, 4), None]
    assert len(make_columns("a", "s", "x.png", None, np.ones((2, 4))).prompts) == 2


def test_equal_pictures_are_kept_once():
    columns = make_columns("p", "s", [picture(), picture(90), picture()], None, None)
    config = tiny_config()
    pictures = read_pictures(config, columns, make_plan(config, {"width": 32})[0])
    assert pictures.rows == (0, 1, 0)
    assert pictures.vae_images.shape == (2, 16, 16, 3)
    assert pictures.clip_images.shape == (2, 16, 16, 3)
    assert pictures.vae_images.min() >= -1
    assert pictures.vae_images.max() <= 1


def test_methods_and_points_reach_the_pictures():
    """A red disc on noise: told by a click, and the same as when cut out before."""
    y, x = np.mgrid[:40, :60]
    disc = (y - 20) ** 2 + (x - 25) ** 2 < 100
    noise = np.random.default_rng(0).integers(60, 110, (40, 60, 3), np.uint8)
    image = np.where(disc[..., None], np.array([220, 30, 30], np.uint8), noise)
    config = tiny_config()
    plan = make_plan(config, {})[0]

    def read(method=None, **hints):
        given = {"mask": None, "box": None, "point": None} | hints
        return read_pictures(config, make_columns("p", "s", image, **given), plan, method=method)

    clicked = read(point=(25, 20)).vae_images
    masked = read(mask=disc).vae_images
    assert np.abs(clicked - masked).mean() < 0.02
    whole = read("none", box=(10, 5, 50, 35)).vae_images
    assert np.abs(whole - masked).mean() > 0.1


def test_finished_image_prompts_are_left_as_they_are():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    config = tiny_config()
    columns = make_columns("p", "s", image, None, None)
    pictures = read_pictures(config, columns, make_plan(config, {})[0], cut_out=False)
    np.testing.assert_allclose((pictures.vae_images[0] + 1) * 127.5, image, atol=1e-4)


def test_subjects_are_shown_at_the_size_they_have_in_the_videos():
    config = dataclasses.replace(tiny_config(), subject_share=0.5)
    image = np.full((40, 40, 4), 0, np.uint8)
    image[10:34, 5:17] = (200, 0, 0, 255)  # twice as high as wide, off the middle
    columns = make_columns("p", "s", image, None, None)
    pictures = read_pictures(config, columns, make_plan(config, {})[0])
    subject = np.argwhere(pictures.vae_images[0].mean(axis=-1) < 0.9)
    np.testing.assert_array_equal(subject.min(axis=0), [4, 6])
    np.testing.assert_array_equal(subject.max(axis=0), [11, 9])


def test_the_placeholder_takes_the_place_of_the_subject(pipe):
    config = tiny_config(placeholder="sdksd")
    texts = read_texts(
        config, pipe.tokenizer, ["The Red  Panda moving", "a panda"], ["red panda", "panda"]
    )
    written = pipe.tokenizer.encode(["the sdksd moving", "a sdksd"])
    np.testing.assert_array_equal(texts.ids, written)
    np.testing.assert_array_equal(texts.placeholder, pipe.tokenizer.placeholder(["sdksd"] * 2))
    assert texts.prompts == ("The Red  Panda moving", "a panda")


def test_without_a_placeholder_the_word_itself_stands(pipe):
    texts = read_texts(tiny_config(), pipe.tokenizer, ["a panda moving"], ["panda"])
    np.testing.assert_array_equal(texts.ids, pipe.tokenizer.encode(["a panda moving"]))
    np.testing.assert_array_equal(texts.placeholder, pipe.tokenizer.placeholder(["panda"]))

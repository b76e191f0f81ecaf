"""The released size by names and shapes, and the memory a conversion takes."""

import contextlib
import dataclasses
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest
from published import (
    clip_file,
    image_unet,
    new_spelling,
    respell,
    shapes_of,
    small_config,
    write_tokenizer,
)
from safetensors.numpy import save_file

from videobooth_jax.conversion import convert_model
from videobooth_jax.conversion.convert import WeightsMismatchError
from videobooth_jax.conversion.reading import LazyTensor
from videobooth_jax.models.sizes import SIZES


def unread() -> np.ndarray:
    raise AssertionError("looking at names and shapes must not read numbers")


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(SIZES["sd14"])


@pytest.fixture
def plan(monkeypatch):
    """Plan the conversion of files given as name -> shape."""

    @contextlib.contextmanager
    def open_shapes(files):
        yield {n: LazyTensor(tuple(s), unread) for file in files for n, s in file.items()}

    def run(**files):
        monkeypatch.setattr(convert_model, "open_weights", open_shapes)
        given = {name: [shapes] for name, shapes in files.items()}
        return convert_model._plan(given, SIZES["sd14"], "bfloat16")

    return run


def numbers(shapes):
    return sum(prod(shape) for shape in shapes.values())


def test_tensor_and_parameter_counts_are_the_published_ones(shapes):
    image = image_unet(shapes["unet"])
    assert (len(image), numbers(image)) == (686, 859_520_964)
    assert (len(shapes["vae"]), numbers(shapes["vae"])) == (248, 83_653_863)
    assert (len(shapes["text_encoder"]), numbers(shapes["text_encoder"])) == (196, 123_060_480)
    assert (len(shapes["vision_encoder"]), numbers(shapes["vision_encoder"])) == (391, 303_179_776)
    coarse = {n: s for n, s in shapes["mapper"].items() if "_attn1_" not in n}
    assert round(numbers(coarse) / 1e6, 1) == 48.1
    assert round(numbers(shapes["mapper"]) / 1e6, 1) == 97.6


def test_released_files_fit(plan, shapes):
    whole = {n: np.shape(x) for n, x in clip_file(shapes).items()} | {
        n: s for tower in ("text_encoder", "vision_encoder") for n, s in shapes[tower].items()
    }
    files = {
        **shapes,
        "vae": respell(shapes["vae"], new_spelling),
        "text_encoder": whole,
        "vision_encoder": whole,
    }
    planned = plan(**files)
    assert planned.notes == ()
    assert planned.started == {}
    assert planned.config == SIZES["sd14"]
    assert sum(len(part.names) for part in planned.parts.values()) == len(planned.leaves)


def test_stable_diffusion_fits(plan, shapes):
    del (files := dict(shapes))["mapper"]
    planned = plan(**{**files, "unet": image_unet(shapes["unet"])})
    assert len(planned.notes) == 5
    assert planned.config.unet.watermark_channels is None
    started = sum(prod(planned.leaves[path].shape) for path in planned.started)
    assert started == 49_599_040 + numbers(shapes["mapper"])


def test_a_half_width_unet_does_not_fit(plan, shapes):
    half = {n: tuple(d // 2 for d in s) for n, s in shapes["unet"].items()}
    with pytest.raises(WeightsMismatchError) as error:
        plan(**{**shapes, "unet": half})
    assert len(error.value.misshapen) == len(half)
    assert not error.value.missing
    assert not error.value.unused


def wide_config():
    """Some 400 million parameters, most of them in the UNet: one large file, as published."""
    config = small_config()
    unet = dataclasses.replace(
        config.unet,
        block_out_channels=(320, 640, 1280),
        cross_attention_levels=(True, True, False),
        injection_levels=(True, True, True),
        watermark_channels=None,
        norm_num_groups=32,
        num_heads=8,
    )
    return dataclasses.replace(config, unet=unet)


MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_full_size import wide_config
from videobooth_jax.conversion.convert_model import convert_checkpoints

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder = Path(sys.argv[2])
files = {file.stem: file for file in folder.glob("*.safetensors")}
before = peak()
convert_checkpoints(folder / "model", size=wide_config(), tokenizer=folder, **files)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_stays_below_the_result_and_one_file(tmp_path):
    config = wide_config()
    noise = np.random.default_rng(0).standard_normal(2**20, np.float32)
    for name, part in shapes_of(config).items():
        state_dict = {n: np.resize(noise, s) for n, s in part.items()}
        save_file(state_dict, tmp_path / f"{name}.safetensors")
        del state_dict
    write_tokenizer(tmp_path, config)
    largest = (tmp_path / "unet.safetensors").stat().st_size
    result = 4 * sum(numbers(part) for part in shapes_of(config).values())
    command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent), str(tmp_path)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(measured.stdout) < 1.3 * largest + result

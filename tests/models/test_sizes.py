import functools

import jax
import pytest

from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import abstract_params

abstract = functools.cache(lambda name: abstract_params(SIZES[name]))


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_released_parameter_counts():
    """UNet: image part, temporal attention, watermark branch, trained keys and values."""
    counts = {name: count(tree) for name, tree in abstract("sd14").items()}
    assert counts == {
        "unet": 859_520_964 + 49_599_040 + 133_090_560 + 19_169_280 + 49_561_600,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "vision_encoder": 303_179_776,
        "projector": 28_904_960,
    }


def test_published_choices():
    settings = SIZES["sd14"].diffusion
    published = ("epsilon", "linear", "same", 3, "replicated", "ddpm", 250)
    chosen = (
        settings.prediction_type,
        settings.beta_schedule,
        settings.exemplar_timestep,
        settings.guided_channels,
        settings.exemplar_mode,
        settings.sampler,
        settings.num_inference_steps,
    )
    assert chosen == published
    assert SIZES["sd14"].latent_shape() == (16, 32, 32, 4)


def test_small_size_is_small():
    assert count(abstract("sprites")) < 11_000_000


@pytest.mark.parametrize("name", SIZES)
def test_names(name):
    assert SIZES[name].name == name

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from model_checks import random_array, random_params

from videobooth_jax.models.autoencoder_kl import (
    AttentionBlock,
    AutoencoderKL,
    AutoencoderKLConfig,
    Downsample,
    ResnetBlock,
    Upsample,
)

CONFIG = AutoencoderKLConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


def apply(module, params, x, **options):
    return module.apply({"params": params}, x, **options)


def convolution_that_picks(row: int, column: int, channels: int):
    kernel = np.zeros((3, 3, channels, channels), np.float32)
    kernel[row, column] = np.eye(channels)
    return {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(channels)}}


@pytest.mark.parametrize(("levels", "factor"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_every_level_but_the_last_halves_the_picture(levels, factor):
    config = dataclasses.replace(CONFIG, block_out_channels=(8, 12, 16, 16)[:levels])
    model = AutoencoderKL(config)
    assert config.downsampling == factor
    images = jax.ShapeDtypeStruct((2, 16, 24, 3), jnp.float32)
    outputs = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, method=model.encode)[0], images
    )
    assert [x.shape for x in outputs] == [(2, 16 // factor, 24 // factor, 4)] * 2
    decoded = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, method=model.decode)[0],
        jax.ShapeDtypeStruct((2, 3, 5, 4), jnp.float32),
    )
    assert decoded.shape == (2, 3 * factor, 5 * factor, 3)


def test_downsampling_pads_right_and_bottom_only():
    x = random_array(0, (1, 6, 8, 4))
    first = apply(Downsample(CONFIG), convolution_that_picks(0, 0, 4), x)
    np.testing.assert_array_equal(first, x[:, ::2, ::2])
    last = apply(Downsample(CONFIG), convolution_that_picks(2, 2, 4), x)
    np.testing.assert_array_equal(last[:, :-1, :-1], x[:, 2::2, 2::2])
    np.testing.assert_array_equal(last[:, -1], 0)
    np.testing.assert_array_equal(last[:, :, -1], 0)


def test_upsampling_repeats_pixels():
    x = random_array(0, (2, 3, 2, 4))
    doubled = apply(Upsample(CONFIG), convolution_that_picks(1, 1, 4), x)
    np.testing.assert_array_equal(doubled[:, 1::2, ::2], x)
    np.testing.assert_array_equal(doubled[:, ::2, 1::2], x)


def test_resnet_block_is_its_skip_when_the_last_convolution_is_zero():
    x = random_array(0, (1, 4, 4, 8))
    same = unfreeze(random_params(ResnetBlock(CONFIG, 8), x))
    assert "conv_shortcut" not in same
    same["conv2"] = jax.tree.map(jnp.zeros_like, same["conv2"])
    np.testing.assert_array_equal(apply(ResnetBlock(CONFIG, 8), same, x), x)

    wider = unfreeze(random_params(ResnetBlock(CONFIG, 12), x))
    wider["conv2"] = jax.tree.map(jnp.zeros_like, wider["conv2"])
    shortcut = wider["conv_shortcut"]
    expected = np.asarray(x) @ np.asarray(shortcut["kernel"]) + np.asarray(shortcut["bias"])
    np.testing.assert_allclose(apply(ResnetBlock(CONFIG, 12), wider, x), expected, atol=1e-5)


def test_attention_block_follows_the_formula():
    """x + softmax(q k^T / sqrt(c)) v over pixels, in float64, group norm with epsilon 1e-6."""
    x = 1e-2 * random_array(0, (1, 2, 3, 8))  # small enough for epsilon to show
    params = random_params(AttentionBlock(CONFIG), x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(name, h):
        return h @ p[name]["kernel"] + p[name]["bias"]

    pixels = np.asarray(x, np.float64).reshape(6, 8)
    groups = pixels.reshape(6, 4, 2)
    variance = groups.var((0, 2), keepdims=True)
    h = ((groups - groups.mean((0, 2), keepdims=True)) / np.sqrt(variance + 1e-6)).reshape(6, 8)
    h = h * p["group_norm"]["scale"] + p["group_norm"]["bias"]
    weights = np.exp(dense("query", h) @ dense("key", h).T / np.sqrt(8))
    weights /= weights.sum(1, keepdims=True)
    expected = pixels + dense("proj_attn", weights @ dense("value", h))
    out = apply(AttentionBlock(CONFIG), params, x).reshape(6, 8)
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_log_variance_is_clamped():
    model = AutoencoderKL(CONFIG)
    images = random_array(0, (1, 4, 4, 3))
    params = unfreeze(random_params(model, images))
    bias = jnp.asarray([0, 0, 0, 0, 100, -100, 0, 0], jnp.float32)
    params["quant_conv"]["bias"] = params["quant_conv"]["bias"] + bias
    mean, logvar = apply(model, params, images, method=model.encode)
    assert float(logvar[..., 0].min()) == 20
    assert float(logvar[..., 1].max()) == -30
    assert float(jnp.abs(mean).max()) < 20


def test_compute_and_parameter_dtypes_are_separate():
    images = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    for dtype, param_dtype in (("bfloat16", "float32"), ("float32", "bfloat16")):
        model = AutoencoderKL(dataclasses.replace(CONFIG, dtype=dtype, param_dtype=param_dtype))
        out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert out.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(param_dtype)}


def test_channels_must_fit_the_groups():
    with pytest.raises(ValueError, match=r"block_out_channels=\(8, 10\).*norm_num_groups=4"):
        AutoencoderKLConfig(block_out_channels=(8, 10), norm_num_groups=4)

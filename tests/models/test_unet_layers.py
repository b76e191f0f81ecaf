"""Layers of the UNet against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.models.attention import Condition, FrameAttention, TextAttention
from videobooth_jax.models.embeddings import timestep_sinusoid
from videobooth_jax.models.group_norm import GroupNorm
from videobooth_jax.models.resnet import upsample_nearest
from videobooth_jax.models.unet_config import UNet3DConfig

CONFIG = UNet3DConfig(
    block_out_channels=(8,),
    cross_attention_levels=(True,),
    injection_levels=(True,),
    num_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    watermark_channels=None,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax_attention(query, key, value, heads=2):
    def split(x):
        return x.reshape(*x.shape[:-1], heads, -1).swapaxes(0, 1)

    scores = split(query) @ split(key).swapaxes(1, 2) / np.sqrt(query.shape[-1] / heads)
    weights = np.exp(scores)
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ split(value)).swapaxes(0, 1).reshape(query.shape)


def condition(kv="fine", **options):
    return Condition(jnp.zeros((2, 32)), normal(2, 3, 6, seed=9), kv=kv, **options)


def frame_attention(hidden, exemplar=None, **options):
    module = FrameAttention(CONFIG, injected=True)
    variables = module.init(jax.random.key(1), hidden, condition(**options))
    out, collected = module.apply(variables, hidden, condition(**options), exemplar)
    return out, collected, variables["params"]


def test_sinusoid_is_cosine_first_and_float32_even_where_floats_are_wider():
    with jax.enable_x64(True):
        got = jax.jit(lambda t: timestep_sinusoid(t, 8))(jnp.array([0, 7, 999]))
    assert got.dtype == jnp.float32
    angles = np.array([[0], [7], [999]]) * 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(got, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 8), (6, 4, 5, 8)])
def test_group_norm_sees_everything_between_batch_and_channels(shape):
    x = 3 + normal(*shape)
    module = GroupNorm(num_groups=4, epsilon=0.1)
    params = {"scale": normal(8, seed=1), "bias": normal(8, seed=2)}
    groups = x.reshape(shape[0], -1, 4, 2)
    mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    want = ((groups - mean) / np.sqrt(var + 0.1)).reshape(shape) * params["scale"] + params["bias"]
    np.testing.assert_allclose(module.apply({"params": params}, x), want, atol=1e-5)


@pytest.mark.parametrize("given", range(1, 12))
@pytest.mark.parametrize("less", [0, 1])
def test_upsampling_reads_floor_of_i_times_in_over_out(given, less):
    wanted = 2 * given - less
    x = normal(1, 2, given, 3, 4)
    index = [i * given // wanted for i in range(wanted)]
    np.testing.assert_array_equal(upsample_nearest(x, (wanted, 6))[:, :, :, ::2], x[:, :, index])


def test_upsampling_to_another_size_is_refused():
    with pytest.raises(ValueError, match="cannot upsample 4 pixels to 9"):
        upsample_nearest(jnp.zeros((1, 1, 4, 4, 1)), (9, 8))


def test_a_frame_sees_itself_its_predecessor_and_the_first_frame_only():
    hidden = normal(2, 5, 3, 8)
    before, _, _ = frame_attention(hidden)
    for changed, affected in ((0, {0, 1, 2, 3, 4}), (2, {2, 3}), (4, {4})):
        other = hidden.copy()
        other[:, changed] += 1
        after, _, _ = frame_attention(other)
        moved = np.abs(np.asarray(after - before)).max(axis=(0, 2, 3)) > 0
        assert set(np.flatnonzero(moved)) == affected


def test_the_exemplar_replaces_the_values_of_the_first_frame_alone():
    hidden, key_e, value_e = normal(2, 3, 4, 8), normal(2, 5, 8, seed=3), normal(2, 5, 8, seed=4)
    got, _, params = frame_attention(hidden, (key_e, value_e))

    def project(name):
        return hidden @ np.asarray(params[name]["kernel"])

    query, key, value = project("to_q"), project("to_k_new"), project("to_v_new")
    for b in range(2):
        value[b, 0] = softmax_attention(
            query[b, 0],
            np.concatenate([key_e[b], key[b, 0]]),
            np.concatenate([value_e[b], value[b, 0]]),
        )
        for i, previous in enumerate((0, 0, 1)):
            keys, values = (np.concatenate([x[b, 0], x[b, previous]]) for x in (key, value))
            out = softmax_attention(query[b, i], keys, values)
            want = out @ np.asarray(params["to_out_0"]["kernel"])
            np.testing.assert_allclose(got[b, i], want, atol=1e-5)


def test_collected_keys_and_values_are_those_of_copy_zero():
    hidden = normal(2, 3, 4, 8)
    _, (key, value), params = frame_attention(hidden, collect=True)
    for got, name in ((key, "to_k_exemplar"), (value, "to_v_exemplar")):
        want = hidden[:, 0] @ np.asarray(params[name]["kernel"])
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_text_attention_treats_every_position_of_every_frame_alike():
    hidden = normal(2, 3, 4, 8)
    module = TextAttention(CONFIG)
    variables = module.init(jax.random.key(0), hidden, condition("plain"))
    together = module.apply(variables, hidden, condition("plain"))
    for i in range(3):
        alone = module.apply(variables, hidden[:, i : i + 1], condition("plain"))
        np.testing.assert_allclose(together[:, i : i + 1], alone, atol=1e-6)

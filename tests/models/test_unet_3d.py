"""The UNet as a whole: modes, exemplar, sizes, messages."""

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.interpreters import partial_eval

from videobooth_jax.models.unet_3d import UNet3D, UNet3DConfig

CONFIG = UNet3DConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    cross_attention_levels=(True, False),
    num_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    injection_levels=(True, True),
    watermark_channels=(8, 8),
)
BATCH, FRAMES, HEIGHT, WIDTH = 2, 3, 4, 5


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LATENTS = normal(BATCH, FRAMES, HEIGHT, WIDTH, 4)
TIMESTEPS = np.array([3, 700], np.int32)
TEXT = normal(BATCH, 7, 6, seed=1)
EXEMPLAR = normal(BATCH, FRAMES, HEIGHT, WIDTH, 4, seed=2)
NULL_TEXT = normal(BATCH, 7, 6, seed=3)


def shapes(config, **options):
    def init():
        return UNet3D(config).init(jax.random.key(0), LATENTS, TIMESTEPS, TEXT, **options)

    return jax.eval_shape(init)["params"]


@lru_cache(maxsize=4)
def make_params(config=CONFIG):
    """Nothing zero, so that every path carries something."""
    flat = flatten_dict(shapes(config), sep="/")
    values = {}
    for i, (path, leaf) in enumerate(flat.items()):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        values[path] = normal(*leaf.shape, seed=i) / np.float32(np.sqrt(fan_in))
    return unflatten_dict(values, sep="/")


def denoise(params=None, config=CONFIG, latents=LATENTS, exemplar=None, rows=None, **options):
    """Not jitted: one operation after the other compiles far less than a dozen whole programs."""
    return UNet3D(config).apply(
        {"params": make_params(config) if params is None else params},
        latents,
        TIMESTEPS,
        TEXT,
        exemplar=exemplar,
        exemplar_rows=rows,
        **options,
    )


def exemplar_kv(latents=EXEMPLAR, params=None, config=CONFIG):
    variables = {"params": make_params(config) if params is None else params}
    model = UNet3D(config)
    return model.apply(variables, latents, TIMESTEPS, NULL_TEXT, method="exemplar_keys_values")


@pytest.mark.parametrize("options", [{"kv": "plain"}, {"kv": "coarse", "watermark": False}])
def test_init_creates_every_parameter_whatever_the_mode(options):
    assert shapes(CONFIG, **options) == shapes(CONFIG)


def test_equal_copies_of_the_exemplar_give_what_a_single_one_gives():
    many = exemplar_kv(np.repeat(EXEMPLAR[:, :1], FRAMES, axis=1))
    one = exemplar_kv(EXEMPLAR[:, :1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), many, one)


def test_copies_with_their_own_noise_reach_copy_zero():
    difference = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(), exemplar_kv(), exemplar_kv(EXEMPLAR[:, :1])
    )
    assert max(jax.tree.leaves(difference)) > 0.01


def test_exemplar_rows_choose_row_by_row():
    kv = exemplar_kv()
    mixed = denoise(exemplar=kv, rows=np.array([True, False]))
    with_exemplar, without = denoise(exemplar=kv), denoise()
    np.testing.assert_allclose(mixed[0], with_exemplar[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], without[1], atol=1e-5)
    assert np.abs(with_exemplar - without).min(axis=(2, 3, 4)).max() > 0
    assert np.abs(with_exemplar[1] - without[1]).max() > 0.01


CHOSEN = ("attn1/to_k", "attn1/to_v", "attn2/to_k", "attn2/to_v")
"""Projections of which a mode uses some."""

TOUCHED = {
    ("plain", False): {"attn1/to_k", "attn1/to_v", "attn2/to_k", "attn2/to_v"},
    ("coarse", False): {"attn1/to_k", "attn1/to_v", "attn2/to_k_global", "attn2/to_v_global"},
    ("fine", False): {
        "attn1/to_k_new",
        "attn1/to_v_new",
        "attn2/to_k_global",
        "attn2/to_v_global",
    },
}
TOUCHED["fine", True] = TOUCHED["fine", False] | {"attn1/to_k_exemplar", "attn1/to_v_exemplar"}


@pytest.mark.parametrize(("kv", "exemplar"), TOUCHED)
def test_a_mode_uses_its_own_keys_and_values_and_no_others(kv, exemplar):
    model = UNet3D(CONFIG)

    def run(params):
        variables, keys_values = {"params": params}, None
        if exemplar:
            keys_values = model.apply(
                variables, EXEMPLAR, TIMESTEPS, NULL_TEXT, method="exemplar_keys_values"
            )
        return model.apply(variables, LATENTS, TIMESTEPS, TEXT, kv=kv, exemplar=keys_values)

    _, used = partial_eval.dce_jaxpr(jax.make_jaxpr(run)(shapes(CONFIG)).jaxpr, [True])
    for path, is_used in zip(sorted(flatten_dict(shapes(CONFIG), sep="/")), used, strict=True):
        name = "/".join(path.split("/")[-3:-1])
        wanted = name in TOUCHED[kv, exemplar] or not name.startswith(CHOSEN)
        assert is_used == wanted, path


def test_retrained_projections_that_copy_the_originals_change_nothing():
    flat = flatten_dict(make_params(), sep="/")
    for path in flat:
        for suffix in ("_global", "_new"):
            if f"{suffix}/kernel" in path:
                flat[path] = flat[path.replace(suffix, "")]
    params = unflatten_dict(flat, sep="/")
    plain = denoise(params, kv="plain")
    np.testing.assert_allclose(denoise(params, kv="fine"), plain, atol=1e-5)
    np.testing.assert_allclose(denoise(params, kv="coarse"), plain, atol=1e-5)


def test_shared_projection_is_the_separate_one_with_equal_weights():
    shared = dataclasses.replace(CONFIG, exemplar_projection="shared")
    flat = flatten_dict(make_params(), sep="/")
    kept = {path: x for path, x in flat.items() if "_exemplar" not in path}
    assert set(flatten_dict(shapes(shared), sep="/")) == set(kept)
    tied = {path: flat[path.replace("_exemplar", "_new")] for path in flat}
    got = exemplar_kv(params=unflatten_dict(kept, sep="/"), config=shared)
    want = exemplar_kv(params=unflatten_dict(tied, sep="/"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)


def test_injection_levels_say_where_exemplar_parameters_and_places_are():
    config = dataclasses.replace(CONFIG, injection_levels=(False, True))
    paths = [p for p in flatten_dict(shapes(config), sep="/") if "_new" in p or "_exemplar" in p]
    assert {path.split("/")[0] for path in paths} == {"mid_block"}
    assert [k.shape for k, _ in exemplar_kv(config=config)] == [(BATCH, 2 * 3, 16)]
    fine = [(BATCH, HEIGHT * WIDTH, 8)]
    assert [k.shape for k, _ in exemplar_kv()] == [*fine, (BATCH, 2 * 3, 16), *fine, *fine]
    assert config.num_injection_sites == 1
    assert CONFIG.num_injection_sites == 4


def test_the_watermark_tail_is_optional_in_the_call_and_in_the_model():
    without = dataclasses.replace(CONFIG, watermark_channels=None)
    kept = {k: v for k, v in make_params().items() if not k.startswith("watermark")}
    np.testing.assert_array_equal(denoise(kept, without), denoise(watermark=False))
    assert np.abs(denoise() - denoise(watermark=False)).max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (2, 6)])
def test_any_latent_size_runs(size):
    three = dataclasses.replace(
        CONFIG,
        block_out_channels=(8, 8, 8),
        cross_attention_levels=(True, True, False),
        injection_levels=(True, True, True),
        watermark_channels=(8, 8, 8),
    )
    latents = jax.ShapeDtypeStruct((BATCH, 1, *size, 4), jnp.float32)

    def run(x):
        return UNet3D(three).init_with_output(jax.random.key(0), x, TIMESTEPS, TEXT)[0]

    assert jax.eval_shape(run, latents).shape == latents.shape


def test_rows_do_not_see_each_other():
    other = LATENTS.copy()
    other[1] += 1
    np.testing.assert_allclose(denoise(latents=other)[0], denoise()[0], atol=1e-6)


def test_bfloat16_compute_keeps_the_dtype_of_the_latents():
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    got = denoise(make_params(), half)
    assert got.dtype == jnp.float32
    want = denoise()
    assert np.sqrt(np.mean(np.square(got - want))) < 0.05 * np.std(want)


def test_arguments_that_do_not_fit_are_refused_in_words():
    def apply(latents=LATENTS, text=TEXT, **options):
        UNet3D(CONFIG).apply({"params": make_params()}, latents, TIMESTEPS, text, **options)

    exemplar = exemplar_kv()
    with pytest.raises(ValueError, match="expected \\(batch, frames, height, width, 4\\)"):
        apply(np.moveaxis(LATENTS, -1, 1))
    with pytest.raises(ValueError, match="one prompt per latent row"):
        apply(text=TEXT[:1])
    with pytest.raises(ValueError, match="kv is 'rough'"):
        apply(kv="rough")
    with pytest.raises(ValueError, match='needs kv="fine"'):
        apply(kv="coarse", exemplar=exemplar)
    with pytest.raises(ValueError, match="for 3 places, this UNet injects at 4"):
        apply(exemplar=exemplar[:3])
    with pytest.raises(ValueError, match="has \\[1\\] rows for 2 latent rows"):
        apply(exemplar=jax.tree.map(lambda x: x[:1], exemplar))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross_attention_levels": (True,)}, "cross_attention_levels has 1 entries"),
        ({"injection_levels": (True,) * 3}, "injection_levels has 3 entries"),
        ({"norm_num_groups": 5}, "not a multiple of norm_num_groups=5"),
        ({"num_heads": 3}, "not a multiple of num_heads=3"),
        ({"watermark_channels": (16, 8)}, "watermark_channels starts with 16"),
        ({"exemplar_projection": "tied"}, "use 'separate' or 'shared'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)

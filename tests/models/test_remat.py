"""Rematerialisation changes memory and nothing else; mixed precision keeps float32 gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model_checks import TINY, random_like

from videobooth_jax.models.remat import REMAT
from videobooth_jax.models.unet_3d import UNet3D
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.models.videobooth import VideoBooth, abstract_params, with_dtypes
from videobooth_jax.training import losses
from videobooth_jax.training.config import ObjectiveConfig
from videobooth_jax.training.train_step import training_schedule

CONFIG = UNet3DConfig(
    block_out_channels=(8,),
    layers_per_block=1,
    cross_attention_levels=(True,),
    num_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    injection_levels=(True,),
    watermark_channels=None,
)


def inputs():
    rng = np.random.default_rng(0)
    latents, exemplar = (rng.standard_normal((1, f, 16, 16, 4), np.float32) for f in (3, 1))
    return latents, np.array([7], np.int32), rng.standard_normal((1, 5, 6), np.float32), exemplar


def shapes(config):
    init = functools.partial(UNet3D(config).init, jax.random.key(0), *inputs()[:3])
    return jax.eval_shape(init)["params"]


def make_loss(remat, dtype="float32"):
    model = UNet3D(dataclasses.replace(CONFIG, remat=remat, dtype=dtype))

    def loss(params, latents, timesteps, text, exemplar):
        variables = {"params": params}
        shown = model.apply(variables, exemplar, timesteps, text, method="exemplar_keys_values")
        out = model.apply(variables, latents, timesteps, text, exemplar=shown)
        return jnp.mean(jnp.square(out - latents))

    return loss


@functools.cache
def given():
    return random_like(shapes(CONFIG)), *inputs()


@functools.cache
def differentiated(remat, dtype="float32"):
    """Function of `given` -> loss and gradient."""
    return jax.jit(jax.value_and_grad(make_loss(remat, dtype)))


def gradient(remat, dtype="float32"):
    """Loss and gradient."""
    return differentiated(remat, dtype)(*given())


def bytes_kept(remat):
    """Size of all that the backward pass reads, weights included."""

    def backward(params, *rest):
        return jax.vjp(lambda p: make_loss(remat)(p, *rest), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, shapes(CONFIG), *inputs()))
    return sum(x.size * x.dtype.itemsize for x in kept)


@pytest.mark.parametrize(
    "remat",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "blocks" else name
        for name in sorted(set(REMAT) - {"none"})
    ],
)
def test_parameters_loss_and_gradients_stay_the_same(remat):
    config = dataclasses.replace(CONFIG, remat=remat)
    assert set(flatten_dict(shapes(config))) == set(flatten_dict(shapes(CONFIG)))
    loss, gradients = gradient(remat)
    expected_loss, expected = gradient("none")
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected
    )


def test_every_policy_keeps_less_than_the_one_before():
    none, dots, blocks = map(bytes_kept, ("none", "dots", "blocks"))
    assert dots < 0.7 * none
    assert blocks < 0.5 * dots


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="remat is 'all'; use 'none', 'dots' or 'blocks'"):
        dataclasses.replace(CONFIG, remat="all")


def moved(tree, seed):
    """Every float moved by at most what rounding it to bfloat16 would: half a unit of 8 bits."""
    rng = np.random.default_rng(seed)

    def move(x):
        x = np.asarray(x)
        if x.dtype != np.float32:
            return x
        return np.float32(x * (1 + rng.uniform(-(2**-8), 2**-8, x.shape)))

    return jax.tree.map(move, tree)


def test_bfloat16_compute_gives_float32_gradients_of_float32_parameters():
    """The whole within 5 %. Every tensor within 2 %, or within twice of what one rounding of all
    weights and inputs does to it in float32 (root mean square of three draws): so much, a fifth of
    some small tensors here, does this loss itself make of 8 bits.
    """
    exact = flatten_dict(gradient("none")[1])
    found = flatten_dict(gradient("none", "bfloat16")[1])
    assert {leaf.dtype for leaf in found.values()} == {jnp.dtype(jnp.float32)}
    differentiate = differentiated("none")
    draws = [flatten_dict(differentiate(*moved(given(), seed))[1]) for seed in range(3)]

    def distance(a, b):
        return float(np.linalg.norm(a - b))

    for name, want in exact.items():
        squares = [distance(draw[name], want) ** 2 for draw in draws]
        allowed = max(2 * np.mean(squares) ** 0.5, 0.02 * distance(want, 0))
        assert distance(found[name], want) <= allowed, "/".join(name)
    got, want = (
        np.concatenate([np.ravel(tree[name]) for name in exact]) for tree in (found, exact)
    )
    assert distance(got, want) <= 0.05 * distance(want, 0)


@pytest.mark.parametrize("dropped", ["zeros", "none"])
def test_the_whole_loss_has_gradients_in_mixed_precision(dropped):
    """Traced only: under strict promotion a forgotten cast is an error while tracing."""
    config = with_dtypes(TINY, dtype="bfloat16", param_dtype="float32")
    params = abstract_params(config)

    def spec(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    side, length = config.vision_encoder.image_size, config.text_encoder.max_position_embeddings
    latents = spec(2, *config.latent_shape())
    exemplar = spec(2, 1, *latents.shape[2:])
    batch = {
        "latents": latents,
        "ids": spec(2, length, dtype=jnp.int32),
        "null_ids": spec(1, length, dtype=jnp.int32),
        "clip_image": spec(2, side, side, 3),
        "placeholder": spec(2, 2, dtype=jnp.int32),
        "exemplar_latents": exemplar,
        "zero_exemplar": spec(1, 1, *latents.shape[2:]),
    }

    def loss(params, batch):
        draws = losses.draw(jax.random.key(0), batch["latents"], 250, 1, 0.5)
        return losses.diffusion_loss(
            VideoBooth(config),
            ObjectiveConfig(dropped_exemplar=dropped),
            training_schedule(config.diffusion, "250"),
            params,
            batch,
            draws,
        )

    gradients, _ = jax.eval_shape(jax.grad(loss, has_aux=True), params, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), gradients) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )

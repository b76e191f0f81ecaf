"""Winograd's convolution is the plain one, and steps in only where it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from videobooth_jax.models import winograd as module
from videobooth_jax.models.winograd import convolve, winograd

DIMENSIONS = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def plain(inputs, kernel):
    return lax.conv_general_dilated(
        inputs, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS
    )


def draw(shape, outputs, dtype=np.float32):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, shape[-1], outputs)) / np.sqrt(9 * shape[-1])
    return jnp.asarray(rng.standard_normal(shape), dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize("shape", [(2, 8, 8, 16), (1, 5, 7, 3), (3, 1, 2, 4), (1, 2, 1, 1)])
def test_it_is_the_plain_convolution(shape):
    inputs, kernel = draw(shape, 6)
    np.testing.assert_allclose(winograd(inputs, kernel), plain(inputs, kernel), atol=1e-5)
    with jax.enable_x64(True):
        inputs, kernel = draw(shape, 6, np.float64)
        np.testing.assert_allclose(winograd(inputs, kernel), plain(inputs, kernel), atol=1e-13)


def through_convolve(inputs, kernel, strides=(1, 1)):
    return convolve(
        inputs, kernel, strides, ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS, precision=None
    )


def text(platform, *given, strides=(1, 1), function=through_convolve):
    traced = jax.jit(lambda x, k: function(x, k, strides)).trace(*given)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_it_is_taken_on_cpus_where_it_pays():
    large, small = draw((1, 32, 32, 128), 8), draw((1, 16, 16, 128), 8)
    assert "stablehlo.convolution" not in text("cpu", *large)
    assert text("cpu", *large).count("dot_general") >= 16
    assert "stablehlo.convolution" in text("tpu", *large)
    assert "stablehlo.convolution" in text("cpu", *small)
    assert "stablehlo.convolution" in text("cpu", *large, strides=(2, 2))
    assert "stablehlo.convolution" in text("cpu", *(x.astype(jnp.bfloat16) for x in large))
    np.testing.assert_allclose(through_convolve(*large), plain(*large), atol=1e-5)


def test_differentiated_it_is_the_plain_one(monkeypatch):
    monkeypatch.setattr(module, "MIN_CHANNELS", 1)
    monkeypatch.setattr(module, "MIN_TILES", 1)
    given = draw((2, 6, 6, 3), 4)

    def loss(convolution):
        return lambda x, k: jnp.sum(jnp.sin(convolution(x, k)))

    found, wanted = (
        jax.jit(jax.value_and_grad(loss(c), (0, 1)))(*given) for c in (through_convolve, plain)
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)

"""Dense and convolution layers whose fresh weights are drawn flat, then shaped.

The distributions are Flax's own. XLA compiles a one-dimensional draw several times faster than one
of many axes, and a model has hundreds of them.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from videobooth_jax.typing import Array

_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of N(0, 1) cut off at two deviations."""


def lecun_normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype | str = "float32") -> Array:
    """Truncated normal of variance 1 / inputs (LeCun et al. 1998), for kernels (..., outputs)."""
    std = math.sqrt(1 / max(1, math.prod(shape[:-1]))) / _TRUNCATED_STD
    draw = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), jnp.dtype(dtype))
    return (draw * jnp.asarray(std, dtype)).reshape(shape)


def normal(std: float) -> Initializer:
    """N(0, std²), for embeddings."""

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype | str = "float32") -> Array:
        draw = jax.random.normal(key, (math.prod(shape),), jnp.dtype(dtype))
        return (draw * jnp.asarray(std, dtype)).reshape(shape)

    return init


Dense = functools.partial(nn.Dense, kernel_init=lecun_normal)
Conv = functools.partial(nn.Conv, kernel_init=lecun_normal)

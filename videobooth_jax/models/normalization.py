"""Group and layer normalisation that compute in float32 at least, whatever the compute dtype.

Statistics are taken in two passes (mean, then mean squared deviation): the one-pass form loses digits where the mean is large.
Every cast is written out, so both work under strict dtype promotion with bfloat16 activations or parameters.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.typing import Array


def statistics_dtype(dtype: str) -> jnp.dtype:
    """``dtype``, or float32 where that is wider: the precision of sums over many elements."""
    wanted = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if wanted.itemsize < 4 else wanted


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)


class _Affine(nn.Module):
    """Learned scale and bias per channel, held by both norms."""

    epsilon: float
    dtype: str = "float32"
    param_dtype: str = "float32"

    def _affine(self, standardised: Array) -> Array:
        shape = standardised.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        ones = (1,) * (standardised.ndim - 1) + shape
        scale, bias = (p.astype(standardised.dtype).reshape(ones) for p in (scale, bias))
        return (standardised * scale + bias).astype(self.dtype)


class GroupNorm(_Affine):
    """Normalise each of ``num_groups`` channel groups over all axes between batch and channel (Wu & He 2018)."""

    num_groups: int = 32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise ``(batch, ..., channels)``; same shape, in ``dtype``."""
        grouped = x.astype(statistics_dtype(self.dtype)).reshape(
            x.shape[0], -1, self.num_groups, x.shape[-1] // self.num_groups
        )
        return self._affine(_standardise(grouped, (1, 3), self.epsilon).reshape(x.shape))


class LayerNorm(_Affine):
    """Normalise over the channels of each position (Ba et al. 2016)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise ``(..., channels)``; same shape, in ``dtype``."""
        return self._affine(_standardise(x.astype(statistics_dtype(self.dtype)), (-1,), self.epsilon))

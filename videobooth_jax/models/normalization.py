"""Layer normalisation that computes in float32 at least, whatever the compute dtype.

Every cast is written out, so that it works under strict dtype promotion with bfloat16 activations
or parameters.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from videobooth_jax.typing import Array


def statistics_dtype(dtype: DTypeLike) -> jnp.dtype:
    """``dtype``, or float32 where that is wider: the precision of sums over many elements."""
    wanted = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if wanted.itemsize < 4 else wanted


class LayerNorm(nn.Module):
    """Normalise over the channels of each position (Ba et al. 2016).

    The variance is the mean squared deviation, taken after the mean: the one-pass form loses digits
    where the mean is large.

    Attributes:
        epsilon: added to the variance.
        dtype: dtype of the result.
        param_dtype: dtype of ``scale`` and ``bias``.
    """

    epsilon: float
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise ``(..., channels)``; same shape, in ``dtype``."""
        wide = statistics_dtype(self.dtype)
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        row = (1,) * (x.ndim - 1) + shape
        centred = x.astype(wide)
        centred -= centred.mean(-1, keepdims=True)
        unit = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        out = unit * scale.astype(wide).reshape(row) + bias.astype(wide).reshape(row)
        return out.astype(self.dtype)

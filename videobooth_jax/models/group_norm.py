"""Group norm, arranged so that every sum runs over whole channels: on CPUs several times faster
than over groups.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from videobooth_jax.models.normalization import statistics_dtype
from videobooth_jax.typing import Array


class GroupNorm(nn.Module):
    """Normalises groups of channels over all axes between the first and the last (Wu & He 2018).

    Given (b, f, h, w, c) the statistics see all frames of a sample together, given (b·f, h, w, c)
    one frame. Two passes: sums per channel, averaged over each group, first of the values, then of
    the squared deviations.

    Attributes:
      num_groups: groups of neighbouring channels, a divisor of their number.
      epsilon: added to the variance.
      dtype: dtype of the result; statistics are float32 at least.
      param_dtype: dtype of ``scale`` and ``bias``.
    """

    num_groups: int
    epsilon: float
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *between channels"]
    ) -> Float[Array, "batch *between channels"]:
        """The same shape, in ``dtype``."""
        batch, channels = x.shape[0], x.shape[-1]
        wide = statistics_dtype(self.dtype)
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)

        def group_mean(x: Float[Array, "batch n channels"]) -> Float[Array, "batch 1 channels"]:
            groups = x.mean(axis=1).reshape(batch, self.num_groups, -1)
            means = jnp.broadcast_to(groups.mean(axis=2, keepdims=True), groups.shape)
            return means.reshape(batch, 1, channels)

        flat = x.astype(wide).reshape(batch, -1, channels)
        centred = flat - group_mean(flat)
        gain = scale.astype(wide)[None, None] / jnp.sqrt(
            group_mean(jnp.square(centred)) + self.epsilon
        )
        out = centred * gain + bias.astype(wide)[None, None]
        return out.astype(self.dtype).reshape(x.shape)

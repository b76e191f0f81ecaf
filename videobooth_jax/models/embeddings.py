"""The timestep as a vector: sinusoids, then a small MLP."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from videobooth_jax.models.layers import Dense
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.typing import Array, Timesteps

MAX_PERIOD = 10_000.0


def timestep_sinusoid(timesteps: Timesteps, channels: int) -> Float[Array, "batch channels"]:
    """cos and sin of t·10000^(-i/half), i = 0 .. half-1, half = channels / 2; cosines first.

    Always float32, whatever the compute dtype: the rounding of t·frequency near t = 1000 (about
    3e-5) is part of what published weights were trained with.
    """
    half = channels // 2
    exponents = jnp.arange(half, dtype=jnp.float32) * (-math.log(MAX_PERIOD) / half)
    angles = timesteps.astype(jnp.float32)[:, None] * jnp.exp(exponents)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoid -> linear_1 -> SiLU -> linear_2; width four times the first level's."""

    config: UNet3DConfig

    @nn.compact
    def __call__(self, timesteps: Timesteps) -> Float[Array, "batch embedding"]:
        """(b,) original timesteps -> (b, 4·block_out_channels[0]) in the compute dtype."""
        width = self.config.block_out_channels[0]
        dtype, param_dtype = self.config.compute_dtype, self.config.storage_dtype
        hidden = timestep_sinusoid(timesteps, width).astype(dtype)
        hidden = Dense(4 * width, dtype=dtype, param_dtype=param_dtype, name="linear_1")(hidden)
        hidden = nn.silu(hidden)
        return Dense(4 * width, dtype=dtype, param_dtype=param_dtype, name="linear_2")(hidden)

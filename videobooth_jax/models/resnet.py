"""Per-frame convolutions: the resnet block, halving and doubling the picture."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Float

from videobooth_jax.models.group_norm import GroupNorm
from videobooth_jax.models.layers import Conv, Dense, lecun_normal
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.models.winograd import convolve
from videobooth_jax.typing import Array, Latents

RESNET_EPS = 1e-5
"""Epsilon of group norms in resnets and before the last convolution."""


def conv(config: UNet3DConfig, channels: int, name: str | None = None, strides: int = 1) -> nn.Conv:
    """A 3x3 convolution over height and width with one pixel of zero padding; frames are batch."""
    return Conv(
        channels,
        (3, 3),
        strides=strides,
        padding=((1, 1), (1, 1)),
        conv_general_dilated=convolve,
        dtype=config.compute_dtype,
        param_dtype=config.storage_dtype,
        name=name,
    )


def dense(
    config: UNet3DConfig,
    channels: int,
    name: str | None = None,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
) -> nn.Dense:
    """A linear layer over channels: also what the checkpoint calls a 1x1 convolution."""
    return Dense(
        channels,
        use_bias=use_bias,
        dtype=config.compute_dtype,
        param_dtype=config.storage_dtype,
        kernel_init=kernel_init,
        name=name,
    )


def group_norm(
    config: UNet3DConfig, name: str | None = None, epsilon: float = RESNET_EPS
) -> GroupNorm:
    """Group norm with the UNet's number of groups."""
    return GroupNorm(config.norm_num_groups, epsilon, config.dtype, config.param_dtype, name=name)


class ResnetBlock(nn.Module):
    """Norm, SiLU, conv; plus the timestep; norm, SiLU, conv; plus the input.

    Attributes:
      config: sizes of the UNet.
      channels: channels of the output; the input may have others (``conv_shortcut`` then projects
        it).
    """

    config: UNet3DConfig
    channels: int

    @nn.compact
    def __call__(self, hidden: Latents, embedding: Float[Array, "batch embedding"]) -> Latents:
        """(b, f, h, w, any) and the timestep embedding -> (b, f, h, w, channels)."""
        residual = hidden
        hidden = nn.silu(group_norm(self.config, "norm1")(hidden))
        hidden = conv(self.config, self.channels, "conv1")(hidden)
        shift = dense(self.config, self.channels, "time_emb_proj")(nn.silu(embedding))
        hidden = hidden + shift[:, None, None, None, :]
        hidden = nn.silu(group_norm(self.config, "norm2")(hidden))
        hidden = conv(self.config, self.channels, "conv2")(hidden)
        if residual.shape[-1] != self.channels:
            residual = dense(self.config, self.channels, "conv_shortcut")(residual)
        return hidden + residual


class Downsample(nn.Module):
    """Halves height and width (rounding up) with a strided convolution."""

    config: UNet3DConfig
    channels: int

    @nn.compact
    def __call__(self, hidden: Latents) -> Latents:
        """(b, f, h, w, c) -> (b, f, ceil(h/2), ceil(w/2), channels)."""
        return conv(self.config, self.channels, "conv", strides=2)(hidden)


def upsample_nearest(hidden: Latents, size: tuple[int, int]) -> Latents:
    """Nearest neighbour to ``size``, twice the input's or one less per axis; output i reads
    floor(i·in/out).

    For out = 2·in and out = 2·in - 1 that is pixel i // 2, so doubling and cropping is exact, and
    cheaper than gathering.

    Raises:
      ValueError: ``size`` is neither.
    """
    height, width = hidden.shape[2:4]
    for given, wanted in ((height, size[0]), (width, size[1])):
        if wanted not in (2 * given, 2 * given - 1):
            raise ValueError(
                f"cannot upsample {given} pixels to {wanted}; expected {2 * given} or one less."
            )
    doubled = jnp.repeat(jnp.repeat(hidden, 2, axis=2), 2, axis=3)
    return doubled[:, :, : size[0], : size[1]]


class Upsample(nn.Module):
    """Nearest neighbour to the size of the skip it will meet, then a convolution."""

    config: UNet3DConfig
    channels: int

    @nn.compact
    def __call__(self, hidden: Latents, size: tuple[int, int]) -> Latents:
        """(b, f, h, w, c) -> (b, f, *size, channels)."""
        return conv(self.config, self.channels, "conv")(upsample_nearest(hidden, size))

"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, section 3.1).

A convolutional encoder halves the picture between levels and predicts a diagonal Gaussian over
latents; the decoder mirrors it. With ``n`` entries in ``block_out_channels`` a latent pixel stands
for ``2**(n - 1)`` picture pixels in each direction. Parameter names are those of the published
checkpoints (``down_blocks_0/resnets_1/conv2``, ``mid_block/attentions_0/query``).
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.models.attention_ops import attention
from videobooth_jax.models.group_norm import GroupNorm
from videobooth_jax.models.layers import Conv, Dense
from videobooth_jax.typing import Images

NORM_EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig:
    """Sizes of the autoencoder; the defaults are Stable Diffusion's.

    ``scaling_factor`` multiplies encoded latents so that their deviation is near one. ``dtype`` is
    the compute dtype, ``param_dtype`` that of the stored weights.

    Raises:
        ValueError: if a channel count cannot be split into ``norm_num_groups`` groups.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        uneven = [c for c in self.block_out_channels if c % self.norm_num_groups]
        if uneven or not self.block_out_channels:
            raise ValueError(
                f"autoencoder block_out_channels={self.block_out_channels} must be multiples of "
                f"norm_num_groups={self.norm_num_groups}; choose other channels or fewer groups"
            )

    @property
    def downsampling(self) -> int:
        """Picture pixels per latent pixel in each direction."""
        return 2 ** (len(self.block_out_channels) - 1)


def _conv(config: AutoencoderKLConfig, features: int, name: str, **kwargs) -> nn.Conv:
    return Conv(
        features,
        (3, 3),
        name=name,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        **({"padding": 1} | kwargs),
    )


def _dense(config: AutoencoderKLConfig, features: int, name: str | None = None) -> nn.Dense:
    """A linear layer over channels, which is also what a 1x1 convolution is."""
    return Dense(features, name=name, dtype=config.dtype, param_dtype=config.param_dtype)


def _norm(config: AutoencoderKLConfig, name: str) -> GroupNorm:
    return GroupNorm(
        config.norm_num_groups, NORM_EPSILON, config.dtype, config.param_dtype, name=name
    )


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions and a skip: ``(b h w c) -> (b h w features)``."""

    config: AutoencoderKLConfig
    features: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return the sum; the skip is a linear map where the channel count changes."""
        h = _conv(self.config, self.features, "conv1")(nn.silu(_norm(self.config, "norm1")(x)))
        h = _conv(self.config, self.features, "conv2")(nn.silu(_norm(self.config, "norm2")(h)))
        if x.shape[-1] != self.features:
            x = _dense(self.config, self.features, "conv_shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels, with a skip: ``(b h w c) -> (b h w c)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return ``x`` plus attention over its ``height * width`` pixels."""
        batch, height, width, channels = x.shape
        dense = functools.partial(_dense, self.config, channels)
        h = _norm(self.config, "group_norm")(x).reshape(batch, height * width, channels)
        h = attention(
            dense(name="query")(h), dense(name="key")(h), dense(name="value")(h), num_heads=1
        )
        return x + dense(name="proj_attn")(h).reshape(x.shape)


class MidBlock(nn.Module):
    """Resnet, attention, resnet at the lowest resolution: ``(b h w c) -> (b h w c)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return features of the same shape."""
        x = ResnetBlock(self.config, x.shape[-1], name="resnets_0")(x)
        x = AttentionBlock(self.config, name="attentions_0")(x)
        return ResnetBlock(self.config, x.shape[-1], name="resnets_1")(x)


class Downsample(nn.Module):
    """Strided 3x3 convolution that pads only right and bottom: ``(b h w c) -> (b h//2 w//2 c)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return the halved features."""
        padding = ((0, 1), (0, 1))
        return _conv(self.config, x.shape[-1], "conv", strides=2, padding=padding)(x)


class Upsample(nn.Module):
    """Doubling by nearest neighbour, then a 3x3 convolution: ``(b h w c) -> (b 2h 2w c)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return the doubled features."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return _conv(self.config, x.shape[-1], "conv")(x)


class Block(nn.Module):
    """One resolution level: ``num_layers`` resnets, then an optional down- or upsampling by two."""

    config: AutoencoderKLConfig
    features: int
    num_layers: int
    resample: type[nn.Module] | None = None
    resample_name: str = ""

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Return features with ``features`` channels at the level's outgoing resolution."""
        for i in range(self.num_layers):
            x = ResnetBlock(self.config, self.features, name=f"resnets_{i}")(x)
        if self.resample is not None:
            x = self.resample(self.config, name=f"{self.resample_name}_0")(x)
        return x


def _head(config: AutoencoderKLConfig, features: int, x: Images) -> Images:
    """Closing norm, SiLU and convolution of both halves; called inside their compact method."""
    return _conv(config, features, "conv_out")(nn.silu(_norm(config, "conv_norm_out")(x)))


class Encoder(nn.Module):
    """Pictures to moments before ``quant_conv``: ``(b h w c) -> (b h/f w/f 2*latent_channels)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, images: Images) -> Images:
        """Return concatenated, unmixed mean and log variance."""
        config = self.config
        x = _conv(config, config.block_out_channels[0], "conv_in")(images)
        last = len(config.block_out_channels) - 1
        for i, features in enumerate(config.block_out_channels):
            resample = Downsample if i < last else None
            x = Block(
                config,
                features,
                config.layers_per_block,
                resample,
                "downsamplers",
                name=f"down_blocks_{i}",
            )(x)
        x = MidBlock(config, name="mid_block")(x)
        return _head(config, 2 * config.latent_channels, x)


class Decoder(nn.Module):
    """Latents after ``post_quant_conv`` to pictures: ``(b h w c) -> (b f*h f*w out_channels)``."""

    config: AutoencoderKLConfig

    @nn.compact
    def __call__(self, latents: Images) -> Images:
        """Return pictures, about [-1, 1], not clipped."""
        config = self.config
        x = _conv(config, config.block_out_channels[-1], "conv_in")(latents)
        x = MidBlock(config, name="mid_block")(x)
        last = len(config.block_out_channels) - 1
        for i, features in enumerate(reversed(config.block_out_channels)):
            resample = Upsample if i < last else None
            x = Block(
                config,
                features,
                config.layers_per_block + 1,
                resample,
                "upsamplers",
                name=f"up_blocks_{i}",
            )(x)
        return _head(config, config.out_channels, x)


class AutoencoderKL(nn.Module):
    """The whole autoencoder; ``scaling_factor`` is the caller's (see ``VideoBooth.encode``)."""

    config: AutoencoderKLConfig

    def setup(self):
        """Create both halves and the 1x1 convolutions around the latent."""
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        latent = self.config.latent_channels
        self.quant_conv = _dense(self.config, 2 * latent)
        self.post_quant_conv = _dense(self.config, latent)

    def encode(self, images: Images) -> tuple[Images, Images]:
        """Posterior of pictures (b h w c) in [-1, 1].

        Returns:
            ``(mean, logvar)``, each (b h/f w/f latent_channels), of the *unscaled* latents; logvar
            clamped to [-30, 20].
        """
        mean, logvar = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, latents: Images) -> Images:
        """Pictures (b f*h f*w c), about [-1, 1], unclipped, of *unscaled* latents (b h w c)."""
        return self.decoder(self.post_quant_conv(latents))

    def __call__(self, images: Images) -> Images:
        """Decode the posterior mean of pictures: the reconstruction, same shape."""
        return self.decode(self.encode(images)[0])

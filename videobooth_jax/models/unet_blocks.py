"""Down, mid and up blocks of the UNet, and the watermark-removal tail built of the same blocks."""

import flax.linen as nn
import jax.numpy as jnp

from videobooth_jax.models.attention import KV, Condition
from videobooth_jax.models.remat import rematerialised
from videobooth_jax.models.resnet import Downsample, ResnetBlock, Upsample
from videobooth_jax.models.transformer_3d import Transformer3D
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.typing import ExemplarKV, Latents

Skips = tuple[Latents, ...]
"""Feature maps on the way down, for the way up."""


def _exemplar(exemplar: ExemplarKV, index: int) -> KV | None:
    return exemplar[index] if exemplar else None


def _resnet(config: UNet3DConfig, channels: int, index: int) -> ResnetBlock:
    block = rematerialised(ResnetBlock, config.remat)
    return block(config, channels, name=f"resnets_{index}")


def _transformer(config: UNet3DConfig, injected: bool, index: int) -> Transformer3D:
    block = rematerialised(Transformer3D, config.remat)
    return block(config, injected, name=f"attentions_{index}")


class DownBlock(nn.Module):
    """``layers_per_block`` resnets, each with its transformer if the level has them, then halving.

    Attributes:
      config: sizes of the UNet.
      channels: channels of the output.
      cross_attention: whether a transformer follows each resnet.
      injected: whether these take the exemplar.
      downsample: whether the block ends by halving the picture.
    """

    config: UNet3DConfig
    channels: int
    cross_attention: bool
    injected: bool
    downsample: bool

    @nn.compact
    def __call__(
        self, hidden: Latents, condition: Condition, exemplar: ExemplarKV = ()
    ) -> tuple[Latents, Skips, ExemplarKV]:
        """(b, f, h, w, any) -> the output, all feature maps on the way, and collected exemplar
        keys and values.
        """
        skips: Skips = ()
        collected: ExemplarKV = ()
        for j in range(self.config.layers_per_block):
            hidden = _resnet(self.config, self.channels, j)(hidden, condition.embedding)
            if self.cross_attention:
                hidden, kv = _transformer(self.config, self.injected, j)(
                    hidden, condition, _exemplar(exemplar, j)
                )
                collected += () if kv is None else (kv,)
            skips += (hidden,)
        if self.downsample:
            hidden = Downsample(self.config, self.channels, name="downsamplers_0")(hidden)
            skips += (hidden,)
        return hidden, skips, collected


class MidBlock(nn.Module):
    """Resnet, transformer, resnet at the lowest resolution."""

    config: UNet3DConfig
    channels: int
    injected: bool

    @nn.compact
    def __call__(
        self, hidden: Latents, condition: Condition, exemplar: ExemplarKV = ()
    ) -> tuple[Latents, ExemplarKV]:
        """(b, f, h, w, c) -> the same shape, and the collected exemplar keys and values."""
        hidden = _resnet(self.config, self.channels, 0)(hidden, condition.embedding)
        hidden, kv = _transformer(self.config, self.injected, 0)(
            hidden, condition, _exemplar(exemplar, 0)
        )
        hidden = _resnet(self.config, self.channels, 1)(hidden, condition.embedding)
        return hidden, () if kv is None else (kv,)


class UpBlock(nn.Module):
    """One resnet more than the way down, each fed a skip, with transformers if the level has them,
    then doubling.

    Attributes:
      config: sizes of the UNet.
      channels: channels of the output.
      cross_attention: whether a transformer follows each resnet.
      injected: whether these take the exemplar.
    """

    config: UNet3DConfig
    channels: int
    cross_attention: bool
    injected: bool

    @nn.compact
    def __call__(
        self,
        hidden: Latents,
        skips: Skips,
        size: tuple[int, int] | None,
        condition: Condition,
        exemplar: ExemplarKV = (),
    ) -> tuple[Latents, ExemplarKV]:
        """(b, f, h, w, any) and its skips (first met last) -> (b, f, *size, channels); size None:
        not doubled.
        """
        collected: ExemplarKV = ()
        for j, skip in enumerate(reversed(skips)):
            hidden = jnp.concatenate([hidden, skip], axis=-1)
            hidden = _resnet(self.config, self.channels, j)(hidden, condition.embedding)
            if self.cross_attention:
                hidden, kv = _transformer(self.config, self.injected, j)(
                    hidden, condition, _exemplar(exemplar, j)
                )
                collected += () if kv is None else (kv,)
        if size is not None:
            hidden = Upsample(self.config, self.channels, name="upsamplers_0")(hidden, size)
        return hidden, collected

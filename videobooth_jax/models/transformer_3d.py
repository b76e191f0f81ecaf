"""One spatial transformer of the UNet: entry norm, projections, one block, residual."""

import flax.linen as nn

from videobooth_jax.models.attention import (
    KV,
    Condition,
    FeedForward,
    FrameAttention,
    TemporalAttention,
    TextAttention,
    Video,
)
from videobooth_jax.models.normalization import LayerNorm
from videobooth_jax.models.resnet import dense, group_norm
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.typing import Latents

ENTRY_EPS = 1e-6
LAYER_NORM_EPS = 1e-5


class TransformerBlock(nn.Module):
    """Frame attention, text attention, feed-forward, temporal attention, each after a norm and
    added to its input.
    """

    config: UNet3DConfig
    injected: bool

    @nn.compact
    def __call__(
        self, hidden: Video, condition: Condition, exemplar: KV | None = None
    ) -> tuple[Video, KV | None]:
        """(b, f, n, c) features -> the same shape, and the exemplar's keys and values if asked
        for.
        """

        def norm(name: str, x: Video) -> Video:
            return LayerNorm(LAYER_NORM_EPS, self.config.dtype, self.config.param_dtype, name=name)(
                x
            )

        attended, collected = FrameAttention(self.config, self.injected, name="attn1")(
            norm("norm1", hidden), condition, exemplar
        )
        hidden = hidden + attended
        hidden = hidden + TextAttention(self.config, name="attn2")(norm("norm2", hidden), condition)
        hidden = hidden + FeedForward(self.config, name="ff")(norm("norm3", hidden))
        hidden = hidden + TemporalAttention(self.config, name="attn_temp")(
            norm("norm_temp", hidden)
        )
        return hidden, collected


class Transformer3D(nn.Module):
    """The transformer after a resnet: (b, f, h, w, c) in and out.

    Attributes:
      config: sizes of the UNet.
      injected: whether its frame attention takes the exemplar.
    """

    config: UNet3DConfig
    injected: bool

    @nn.compact
    def __call__(
        self, hidden: Latents, condition: Condition, exemplar: KV | None = None
    ) -> tuple[Latents, KV | None]:
        """(b, f, h, w, c) features -> the same shape, and the exemplar's keys and values if asked
        for.
        """
        batch, frames, height, width, channels = hidden.shape
        per_frame = hidden.reshape(batch * frames, height, width, channels)
        tokens = group_norm(self.config, "norm", ENTRY_EPS)(per_frame)
        tokens = tokens.reshape(batch, frames, height * width, channels)
        tokens = dense(self.config, channels, "proj_in")(tokens)
        tokens, collected = TransformerBlock(
            self.config, self.injected, name="transformer_blocks_0"
        )(tokens, condition, exemplar)
        tokens = dense(self.config, channels, "proj_out")(tokens)
        return hidden + tokens.reshape(hidden.shape), collected

"""The video UNet: noisy latents, a timestep and text in, the predicted noise out; optionally shown
an exemplar.

Published quirks kept: group norms in resnets take statistics over all frames of a sample, those at
a transformer's entry over one frame; upsampling is forced to the size of the skip it meets, so any
latent size works. Left out: the exemplar's first, discarded pass through every transformer, which
changes nothing.
"""

from itertools import islice

import flax.linen as nn

from videobooth_jax.models.attention import Condition
from videobooth_jax.models.embeddings import TimestepEmbedding
from videobooth_jax.models.resnet import conv, dense, group_norm
from videobooth_jax.models.unet_blocks import DownBlock, MidBlock, Skips, UpBlock
from videobooth_jax.models.unet_config import KV_MODES, KVMode, UNet3DConfig
from videobooth_jax.typing import ExemplarKV, Latents, Rows, TextStates, Timesteps

__all__ = ["KVMode", "UNet3D", "UNet3DConfig"]


def _down_blocks(
    config: UNet3DConfig, channels: tuple[int, ...], cross: tuple[bool, ...]
) -> list[DownBlock]:
    last = len(channels) - 1
    return [
        DownBlock(config, c, cross[i], cross[i] and config.injection_levels[i], downsample=i < last)
        for i, c in enumerate(channels)
    ]


def _up_blocks(
    config: UNet3DConfig, channels: tuple[int, ...], cross: tuple[bool, ...]
) -> list[UpBlock]:
    return [
        UpBlock(config, channels[i], cross[i], cross[i] and config.injection_levels[i])
        for i in reversed(range(len(channels)))
    ]


class UNet3D(nn.Module):
    """The UNet of VideoBooth. Fresh parameters: every set of projections and the watermark tail,
    whatever the call.
    """

    config: UNet3DConfig

    def setup(self) -> None:
        """Make the blocks; their attribute names are the checkpoint's."""
        config = self.config
        widths = config.block_out_channels
        cross = config.cross_attention_levels
        self.conv_in = conv(config, widths[0])
        self.time_embedding = TimestepEmbedding(config)
        self.down_blocks = _down_blocks(config, widths, cross)
        self.mid_block = MidBlock(config, widths[-1], config.injection_levels[-1])
        self.up_blocks = _up_blocks(config, widths, cross)
        if config.watermark_channels:
            plain = (False,) * len(config.watermark_channels)
            self.watermark_down_blocks = _down_blocks(config, config.watermark_channels, plain)
            self.watermark_up_blocks = _up_blocks(config, config.watermark_channels, plain)
            self.watermark_zero_out = dense(config, widths[0], kernel_init=nn.initializers.zeros)
        self.conv_norm_out = group_norm(config)
        self.conv_out = conv(config, config.out_channels)

    def __call__(
        self,
        latents: Latents,
        timesteps: Timesteps,
        text_states: TextStates,
        *,
        kv: KVMode = "fine",
        exemplar: ExemplarKV | None = None,
        exemplar_rows: Rows | None = None,
        watermark: bool = True,
    ) -> Latents:
        """The prediction for (b, f, h, w, in_channels) latents: (b, f, h, w, out_channels), in the
        latents' dtype.

        Args:
          latents: noisy latents, any number of frames, any height and width.
          timesteps: (b,) original timesteps.
          text_states: (b, n, cross_attention_dim).
          kv: whose keys and values are used; see `KVMode`.
          exemplar: from `exemplar_keys_values`, one row per latent row; only with ``kv="fine"``.
          exemplar_rows: (b,) bool; rows marked False pass as if there were no exemplar. None: all
            rows take it.
          watermark: whether to run the watermark-removal tail, if the UNet has one.

        Raises:
          ValueError: the arguments do not fit each other or the configuration.
        """
        self._check(latents, text_states, kv)
        if exemplar is not None:
            self._check_exemplar(latents, kv, exemplar)
        condition = Condition(self.time_embedding(timesteps), text_states, exemplar_rows, kv)
        hidden, _ = self._body(latents, condition, exemplar or ())
        if self.config.watermark_channels and (watermark or self.is_initializing()):
            hidden = hidden + self._watermark_tail(hidden, condition)
        prediction = self.conv_out(nn.silu(self.conv_norm_out(hidden)))
        return prediction.astype(latents.dtype)

    def exemplar_keys_values(
        self, latents: Latents, timesteps: Timesteps, text_states: TextStates
    ) -> ExemplarKV:
        """Keys and values of the exemplar at every injected ``attn1``, each (b, height·width of
        that level, channels).

        The exemplar passes the UNet as a video of its own, uninjected, with the ``fine``
        projections; its copies (the frame axis) differ by their noise and mix through temporal
        attention and group norms, and only copy 0 is kept. One copy gives the same as many equal
        ones. Nothing after the last injected place is evaluated.

        Args:
          latents: (b, e, h, w, c): e copies of the exemplar, each already noised.
          timesteps: (b,) original timesteps.
          text_states: (b, n, cross_attention_dim), of the null prompt in the published method.
        """
        self._check(latents, text_states, "fine")
        condition = Condition(self.time_embedding(timesteps), text_states, collect=True)
        return self._body(latents, condition, ())[1]

    def _body(
        self, latents: Latents, condition: Condition, exemplar: ExemplarKV
    ) -> tuple[Latents, ExemplarKV]:
        """Down, mid and up; the last feature map and what frame attentions collected."""
        layers, places = self.config.layers_per_block, iter(exemplar)
        sites = self.config.num_injection_sites if condition.collect else None
        hidden = self.conv_in(latents.astype(self.config.compute_dtype))
        skips: Skips = (hidden,)
        collected: ExemplarKV = ()
        for down in self.down_blocks:
            mine = tuple(islice(places, layers)) if down.injected else ()
            hidden, more, kvs = down(hidden, condition, mine)
            skips, collected = skips + more, collected + kvs
        mine = tuple(islice(places, 1)) if self.mid_block.injected else ()
        hidden, kvs = self.mid_block(hidden, condition, mine)
        collected += kvs
        for up in self.up_blocks:
            if len(collected) == sites:
                break
            mine = tuple(islice(places, layers + 1)) if up.injected else ()
            hidden, skips, kvs = self._up(up, hidden, skips, condition, mine)
            collected += kvs
        return hidden, collected

    def _up(
        self,
        block: UpBlock,
        hidden: Latents,
        skips: Skips,
        condition: Condition,
        exemplar: ExemplarKV = (),
    ) -> tuple[Latents, Skips, ExemplarKV]:
        """One up block: takes its skips off the stack and grows to the size of the next one."""
        count = self.config.layers_per_block + 1
        skips, mine = skips[:-count], skips[-count:]
        size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
        hidden, collected = block(hidden, mine, size, condition, exemplar)
        return hidden, skips, collected

    def _watermark_tail(self, hidden: Latents, condition: Condition) -> Latents:
        """What the tail adds to the last feature map; the same shape."""
        skips: Skips = (hidden,)
        for down in self.watermark_down_blocks:
            hidden, more, _ = down(hidden, condition)
            skips += more
        for up in self.watermark_up_blocks:
            hidden, skips, _ = self._up(up, hidden, skips, condition)
        return self.watermark_zero_out(hidden)

    def _check(self, latents: Latents, text_states: TextStates, kv: str) -> None:
        config = self.config
        if latents.ndim != 5 or latents.shape[-1] != config.in_channels:
            raise ValueError(
                f"latents have shape {latents.shape}; expected (batch, frames, height, width, "
                f"{config.in_channels}), channels last."
            )
        if text_states.shape[::2] != (latents.shape[0], config.cross_attention_dim):
            raise ValueError(
                f"text_states have shape {text_states.shape}; expected ({latents.shape[0]}, "
                f"positions, {config.cross_attention_dim}): one prompt per latent row."
            )
        if kv not in KV_MODES:
            raise ValueError(f"kv is {kv!r}; use one of {KV_MODES}.")

    def _check_exemplar(self, latents: Latents, kv: str, exemplar: ExemplarKV) -> None:
        if kv != "fine":
            raise ValueError(f'an exemplar needs kv="fine", not {kv!r}.')
        if len(exemplar) != self.config.num_injection_sites:
            raise ValueError(
                f"the exemplar has keys and values for {len(exemplar)} places, this UNet injects "
                f"at {self.config.num_injection_sites}: make it with its own exemplar_keys_values."
            )
        rows = {x.shape[0] for pair in exemplar for x in pair}
        if rows - {latents.shape[0]}:
            raise ValueError(
                f"the exemplar has {sorted(rows)} rows for {latents.shape[0]} latent rows: repeat "
                "it to one per row, and mark rows that must not take it in exemplar_rows."
            )

"""The sizes and choices of the video UNet, checked when they are made."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

KVMode = Literal["plain", "coarse", "fine"]
"""Whose keys and values a pass uses: the base UNet's own (``plain``), those with the retrained
text projections ``to_[kv]_global`` (``coarse``), or these and the retrained frame projections
``to_[kv]_new`` (``fine``)."""

KV_MODES: tuple[KVMode, ...] = ("plain", "coarse", "fine")


@dataclass(frozen=True)
class UNet3DConfig:
    """Sizes of `UNet3D`; the defaults are the released model's.

    A resolution level is one entry of ``block_out_channels``; down block i, up block (last - i)
    and, for the last level, the mid block work at level i.

    Attributes:
      in_channels: channels of the noisy latents.
      out_channels: channels of the prediction.
      block_out_channels: channels per resolution level; each level but the first halves the
        picture.
      layers_per_block: resnets per down block; up blocks have one more.
      cross_attention_levels: per level, whether its down and up blocks hold transformers. The mid
        block always does.
      num_heads: attention heads, the same everywhere.
      cross_attention_dim: channels of the text states.
      norm_num_groups: groups of every group norm.
      injection_levels: per level, whether its frame attentions take the exemplar; the last entry
        is also the mid block's. Levels without injection have no ``to_[kv]_new`` and
        ``to_[kv]_exemplar`` and keep ``to_[kv]`` in every mode.
      exemplar_projection: ``separate``: the exemplar's keys and values have projections of their
        own, ``to_[kv]_exemplar``; ``shared``: they go through ``to_[kv]_new``.
      watermark_channels: channels per level of the watermark-removal tail, or None for a UNet
        without it.
      attention_implementation: a key of `attention_ops.IMPLEMENTATIONS`.
      remat: what every resnet and transformer keeps for the gradient; a key of `remat.REMAT`.
      dtype: compute dtype.
      param_dtype: parameter dtype.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention_levels: tuple[bool, ...] = (True, True, True, False)
    num_heads: int = 8
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    injection_levels: tuple[bool, ...] = (True, True, True, True)
    exemplar_projection: Literal["separate", "shared"] = "separate"
    watermark_channels: tuple[int, ...] | None = (320, 640, 640)
    attention_implementation: str = "auto"
    remat: Literal["none", "dots", "blocks"] = "none"
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name in ("cross_attention_levels", "injection_levels"):
            given = getattr(self, name)
            if len(given) != levels:
                raise ValueError(
                    f"{name} has {len(given)} entries, block_out_channels has {levels}: give one "
                    "per level."
                )
        for name, channels in self._widths():
            for divisor in ("norm_num_groups", "num_heads"):
                parts = getattr(self, divisor)
                if channels % parts:
                    raise ValueError(
                        f"{name} holds {channels}, not a multiple of {divisor}={parts}."
                    )
        if self.watermark_channels and self.watermark_channels[0] != self.block_out_channels[0]:
            raise ValueError(
                f"watermark_channels starts with {self.watermark_channels[0]}; the tail reads and "
                f"writes maps of {self.block_out_channels[0]} channels, so it must start with that."
            )
        if self.exemplar_projection not in ("separate", "shared"):
            raise ValueError(
                f"exemplar_projection is {self.exemplar_projection!r}; use 'separate' or 'shared'."
            )
        if self.remat not in ("none", "dots", "blocks"):
            raise ValueError(f"remat is {self.remat!r}; use 'none', 'dots' or 'blocks'.")

    def _widths(self) -> list[tuple[str, int]]:
        widths = [("block_out_channels", c) for c in self.block_out_channels]
        return widths + [("watermark_channels", c) for c in self.watermark_channels or ()]

    @property
    def compute_dtype(self) -> jnp.dtype:
        """``dtype`` as a jnp dtype."""
        return jnp.dtype(self.dtype)

    @property
    def storage_dtype(self) -> jnp.dtype:
        """``param_dtype`` as a jnp dtype."""
        return jnp.dtype(self.param_dtype)

    @property
    def num_injection_sites(self) -> int:
        """How many frame attentions take the exemplar: the length of an `ExemplarKV`."""
        per_level = 2 * self.layers_per_block + 1
        sites = zip(self.cross_attention_levels, self.injection_levels, strict=True)
        return per_level * sum(a and b for a, b in sites) + int(self.injection_levels[-1])

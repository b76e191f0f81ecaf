"""The three attentions and the feed-forward of a transformer block.

`FrameAttention` (``attn1``, paper section 3.3): frame i attends to frame 0 and frame i-1. With an
exemplar, frame 0's values are first replaced by what its queries find in [exemplar, frame 0]; as
every frame attends to frame 0, the refined subject reaches all of them. `TextAttention`
(``attn2``): all frames attend to the prompt. `TemporalAttention` (``attn_temp``): each position
attends over time.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from flax.typing import Initializer
from jaxtyping import Float

from videobooth_jax.models.attention_ops import Parts, Video, attention_over_parts
from videobooth_jax.models.resnet import dense
from videobooth_jax.models.unet_config import KVMode, UNet3DConfig
from videobooth_jax.typing import Array, Rows, TextStates, Tokens

KV = tuple[Tokens, Tokens]
"""Keys and values, each (batch, positions, channels)."""

FRAME_PROJECTIONS: dict[KVMode, str] = {"plain": "", "coarse": "", "fine": "_new"}
TEXT_PROJECTIONS: dict[KVMode, str] = {"plain": "", "coarse": "_global", "fine": "_global"}
EXEMPLAR_PROJECTIONS = {"separate": "_exemplar", "shared": "_new"}


@struct.dataclass
class Condition:
    """What one pass through the UNet tells all of its blocks.

    Attributes:
      embedding: the timestep, embedded; (b, 4·block_out_channels[0]).
      text_states: the prompt; (b, n, d).
      rows: rows that take the exemplar; None for all.
      kv: whose keys and values are used.
      collect: whether frame attentions return the keys and values of frame 0 as an exemplar's.
    """

    embedding: Float[Array, "batch embedding"]
    text_states: TextStates
    rows: Rows | None = None
    kv: KVMode = struct.field(pytree_node=False, default="fine")
    collect: bool = struct.field(pytree_node=False, default=False)


def _attend(config: UNet3DConfig, query: Video, parts: Parts) -> Video:
    return attention_over_parts(
        query,
        parts,
        num_heads=config.num_heads,
        implementation=config.attention_implementation,
    )


def _replace_first(x: Video, first: Tokens) -> Video:
    """``x`` with (b, n, c) as its frame 0: a choice, which stays where the frames are."""
    is_first = (jnp.arange(x.shape[1]) == 0)[None, :, None, None]
    return jnp.where(is_first, first[:, None], x)


def first_and_previous(key: Video, value: Video) -> Parts:
    """What every frame attends to: frame 0, given once for all, and the frame before (frame 0:
    itself once more, which for a lone frame changes nothing and is left out).
    """
    first = (key[:, :1], value[:, :1])
    if key.shape[1] == 1:
        return (first,)

    def previous(x: Video) -> Video:
        return _replace_first(jnp.roll(x, 1, axis=1), x[:, 0])

    return (first, (previous(key), previous(value)))


class FrameAttention(nn.Module):
    """Attention to the first and the previous frame, with exemplar injection.

    Attributes:
      config: sizes of the UNet.
      injected: whether this place takes the exemplar and owns the retrained projections.
    """

    config: UNet3DConfig
    injected: bool

    @nn.compact
    def __call__(
        self, hidden: Video, condition: Condition, exemplar: KV | None = None
    ) -> tuple[Video, KV | None]:
        """(b, f, n, c) features -> the same shape, and the exemplar's keys and values if asked for.

        Frame 0's values become softmax(Q_0 [K_e, K_0]ᵀ/√d) [V_e, V_0] (before ``to_out_0``; keys
        unchanged) where ``exemplar`` = (K_e, V_e), each (b, m, c), is given and ``condition.rows``
        allows it.
        """
        channels = hidden.shape[-1]
        trained = {"_new", EXEMPLAR_PROJECTIONS[self.config.exemplar_projection]}
        suffixes = {"", *trained} if self.injected else {""}
        project = {
            name: dense(self.config, channels, name, use_bias=False)
            for name in ("to_q", *(f"to_{x}{s}" for x in "kv" for s in sorted(suffixes)))
        }
        if self.is_initializing():  # every parameter exists, whatever the mode of this call
            for layer in project.values():
                layer(hidden)
        own = FRAME_PROJECTIONS[condition.kv] if self.injected else ""
        query, key, value = (project[n](hidden) for n in ("to_q", f"to_k{own}", f"to_v{own}"))
        collected = None
        if condition.collect and self.injected:
            theirs = EXEMPLAR_PROJECTIONS[self.config.exemplar_projection]
            collected = (
                project[f"to_k{theirs}"](hidden[:, 0]),
                project[f"to_v{theirs}"](hidden[:, 0]),
            )
        if exemplar is not None:
            refined = self._refine(query[:, 0], key[:, 0], value[:, 0], exemplar, condition.rows)
            value = _replace_first(value, refined)
        out = _attend(self.config, query, first_and_previous(key, value))
        return dense(self.config, channels, "to_out_0")(out), collected

    def _refine(
        self, query: Tokens, key: Tokens, value: Tokens, exemplar: KV, rows: Rows | None
    ) -> Tokens:
        """Frame 0's values, replaced by its attention over exemplar and itself."""
        parts = [(k[:, None], v[:, None]) for k, v in (exemplar, (key, value))]
        refined = _attend(self.config, query[:, None], parts)[:, 0]
        return refined if rows is None else jnp.where(rows[:, None, None], refined, value)


class TextAttention(nn.Module):
    """Attention of every position of every frame to the prompt, whose keys and values are computed
    once per sample.
    """

    config: UNet3DConfig

    @nn.compact
    def __call__(self, hidden: Video, condition: Condition) -> Video:
        """(b, f, n, c) features -> the same shape."""
        batch, frames, positions, channels = hidden.shape
        project = {
            name: dense(self.config, channels, name, use_bias=False)
            for name in ("to_k", "to_v", "to_k_global", "to_v_global")
        }
        if self.is_initializing():  # every parameter exists, whatever the mode of this call
            for layer in project.values():
                layer(condition.text_states)
        suffix = TEXT_PROJECTIONS[condition.kv]
        query = dense(self.config, channels, "to_q", use_bias=False)(hidden)
        states = condition.text_states[:, None]
        out = _attend(
            self.config,
            query.reshape(batch, 1, frames * positions, channels),
            [(project[f"to_k{suffix}"](states), project[f"to_v{suffix}"](states))],
        )
        return dense(self.config, channels, "to_out_0")(out.reshape(hidden.shape))


class TemporalAttention(nn.Module):
    """Self-attention over frames at each position; adds nothing when freshly initialised."""

    config: UNet3DConfig
    out_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, hidden: Video) -> Video:
        """(b, f, n, c) features -> the same shape."""
        channels = hidden.shape[-1]
        query, key, value = (
            jnp.swapaxes(dense(self.config, channels, name, use_bias=False)(hidden), 1, 2)
            for name in ("to_q", "to_k", "to_v")
        )
        out = jnp.swapaxes(_attend(self.config, query, [(key, value)]), 1, 2)
        return dense(self.config, channels, "to_out_0", kernel_init=self.out_init)(out)


class GEGLU(nn.Module):
    """Half of a projection, gated by the exact GELU of the other half."""

    config: UNet3DConfig
    channels: int

    @nn.compact
    def __call__(self, hidden: Video) -> Video:
        """(..., any) -> (..., channels)."""
        value, gate = jnp.split(dense(self.config, 2 * self.channels, "proj")(hidden), 2, axis=-1)
        return value * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """Four times wider and back."""

    config: UNet3DConfig

    @nn.compact
    def __call__(self, hidden: Video) -> Video:
        """(b, f, n, c) features -> the same shape."""
        channels = hidden.shape[-1]
        wide = GEGLU(self.config, 4 * channels, name="net_0")(hidden)
        return dense(self.config, channels, "net_2")(wide)

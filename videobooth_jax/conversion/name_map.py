"""PyTorch names and Flax paths, side by side: data only.

A table is a tuple of `Rule`s. A rule pairs two templates in which ``{word}`` stands for one whole
number; both templates use the same words, so a rule reads in both directions and the inverse needs
no second table::

    Rule("down_blocks.{i}.resnets.{j}.conv1.weight",
         "down_blocks_{i}/resnets_{j}/conv1/kernel", "conv")

The third field names the layout, a key of `convert.LAYOUTS`:

==============  ====================================  ===========================
layout          PyTorch                               Flax
==============  ====================================  ===========================
``same``        any shape                             the same
``linear``      (out, in)                             (in, out)
``conv``        (out, in, height, width)              (height, width, in, out)
``pointwise``   (out, in, 1, 1)                       (in, out)
==============  ====================================  ===========================

Flax paths are relative to the network's own subtree; `under` moves rules below prefixes
(``under("", "unet", UNET.rules)`` for the subtree of the whole model). A `Table` adds what files in
the wild need: other spellings of a name (``aliases``: given template, canonical template) and
buffers that carry no information (``ignored``).

``UNET`` holds the UNet's own names, ``INJECTED`` the key and value projections that the published
mapper checkpoint carries beside the projector; the other networks are in ``name_map_towers``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Layout = Literal["same", "linear", "conv", "pointwise"]


@dataclass(frozen=True)
class Rule:
    """One PyTorch name template, its Flax path template, and the layout between the arrays."""

    torch: str
    flax: str
    layout: Layout


@dataclass(frozen=True)
class Table:
    """The rules of one network or file, with other spellings and names to skip.

    Attributes:
      rules: the correspondence; every name and every path matches at most one rule.
      aliases: (given, canonical) pairs of PyTorch name templates; a name that matches ``given`` is
        renamed first.
      ignored: PyTorch name templates that hold no parameter and are skipped.
    """

    rules: tuple[Rule, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def __add__(self, other: "Table") -> "Table":
        """One table that holds the rules of both."""
        return Table(
            self.rules + other.rules, self.aliases + other.aliases, self.ignored + other.ignored
        )


def join(prefix: str, name: str, separator: str) -> str:
    """``prefix`` + ``separator`` + ``name``, or ``name`` alone where the prefix is empty."""
    return f"{prefix}{separator}{name}" if prefix else name


def under(torch_prefix: str, flax_prefix: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules below a PyTorch prefix (joined by a dot) and a Flax prefix (by a slash)."""
    return tuple(
        Rule(join(torch_prefix, r.torch, "."), join(flax_prefix, r.flax, "/"), r.layout)
        for r in rules
    )


def norm(torch: str, flax: str | None = None) -> tuple[Rule, ...]:
    """Scale and bias of a group or layer norm; ``flax`` defaults to the same name."""
    flax = flax or torch
    return (
        Rule(f"{torch}.weight", f"{flax}/scale", "same"),
        Rule(f"{torch}.bias", f"{flax}/bias", "same"),
    )


def kernel(torch: str, flax: str | None = None, layout: Layout = "linear") -> tuple[Rule, ...]:
    """A weight without a bias."""
    return (Rule(f"{torch}.weight", f"{flax or torch}/kernel", layout),)


def dense(torch: str, flax: str | None = None, layout: Layout = "linear") -> tuple[Rule, ...]:
    """A weight and its bias, of a linear layer or (by ``layout``) a convolution."""
    flax = flax or torch
    return (*kernel(torch, flax, layout), Rule(f"{torch}.bias", f"{flax}/bias", "same"))


RESNET = (
    *norm("norm1"),
    *dense("conv1", layout="conv"),
    *dense("time_emb_proj"),
    *norm("norm2"),
    *dense("conv2", layout="conv"),
    *dense("conv_shortcut", layout="pointwise"),
)

ATTENTION = (
    *kernel("to_q"),
    *kernel("to_k"),
    *kernel("to_v"),
    *dense("to_out.0", "to_out_0"),
)

TRANSFORMER_BLOCK = (
    *norm("norm1"),
    *under("attn1", "attn1", ATTENTION),
    *norm("norm2"),
    *under("attn2", "attn2", ATTENTION),
    *norm("norm3"),
    *dense("ff.net.0.proj", "ff/net_0/proj"),
    *dense("ff.net.2", "ff/net_2"),
    *norm("norm_temp"),
    *under("attn_temp", "attn_temp", ATTENTION),
)

TRANSFORMER = (
    *norm("norm"),
    *dense("proj_in", layout="pointwise"),
    *under("transformer_blocks.{k}", "transformer_blocks_{k}", TRANSFORMER_BLOCK),
    *dense("proj_out", layout="pointwise"),
)

SAMPLERS = (
    *dense("downsamplers.0.conv", "downsamplers_0/conv", "conv"),
    *dense("upsamplers.0.conv", "upsamplers_0/conv", "conv"),
)

BLOCK = (
    *under("resnets.{j}", "resnets_{j}", RESNET),
    *under("attentions.{j}", "attentions_{j}", TRANSFORMER),
    *SAMPLERS,
)

UNET = Table(
    rules=(
        *dense("conv_in", layout="conv"),
        *dense("time_embedding.linear_1", "time_embedding/linear_1"),
        *dense("time_embedding.linear_2", "time_embedding/linear_2"),
        *under("down_blocks.{i}", "down_blocks_{i}", BLOCK),
        *under("mid_block", "mid_block", BLOCK),
        *under("up_blocks.{i}", "up_blocks_{i}", BLOCK),
        *under("watermark_down_blocks.{i}", "watermark_down_blocks_{i}", BLOCK),
        *under("watermark_up_blocks.{i}", "watermark_up_blocks_{i}", BLOCK),
        *dense("watermark_zero_out", layout="pointwise"),
        *norm("conv_norm_out"),
        *dense("conv_out", layout="conv"),
    )
)

# The mapper checkpoint flattens module paths with underscores and says attn2_to_k for to_k_global.
PROJECTIONS = (
    *kernel("attn2_to_k", "attn2/to_k_global"),
    *kernel("attn2_to_v", "attn2/to_v_global"),
    *kernel("attn1_to_k_new", "attn1/to_k_new"),
    *kernel("attn1_to_v_new", "attn1/to_v_new"),
    *kernel("attn1_to_k_exemplar", "attn1/to_k_exemplar"),
    *kernel("attn1_to_v_exemplar", "attn1/to_v_exemplar"),
)

PLACES = (
    ("down_blocks_{i}", "down_blocks_{i}"),
    ("mid_block", "mid_block"),
    ("up_blocks_{i}", "up_blocks_{i}"),
)

INJECTED = Table(
    rules=tuple(
        Rule(
            f"{torch}_attentions_{{j}}_transformer_blocks_{{k}}_{rule.torch}",
            f"{flax}/attentions_{{j}}/transformer_blocks_{{k}}/{rule.flax}",
            rule.layout,
        )
        for torch, flax in PLACES
        for rule in PROJECTIONS
    )
)

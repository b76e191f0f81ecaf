"""One ordered, total table: parameter path -> how its last axes are split over the mesh.

Kernels are (..., inputs, outputs). In a pair of layers the first splits its outputs over
``tensor`` (``COLUMN``), the second its inputs (``ROW``), so that only the second one's result has
to be summed over devices: queries, keys and values before the output projection, the two layers of
a feed-forward, the two convolutions of a resnet (Shoeybi et al. 2019, section 3). The axis a layer
does not split over ``tensor`` is split over ``fsdp``, to be stored, not to be computed. What is too
small to matter is whole everywhere.
"""

import re

from jax.sharding import PartitionSpec

COLUMN = ("fsdp", "tensor")
ROW = ("tensor", "fsdp")
STORED = ("fsdp", None)
SPLIT = ("tensor",)
WHOLE = ()

RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # the video UNet
    (r"unet/.*/(attn\d|attn_temp)/to_[qkv](_global|_new|_exemplar)?/kernel", COLUMN),
    (r"unet/.*/(attn\d|attn_temp)/to_out_0/kernel", ROW),
    (r"unet/.*/ff/net_0/proj/kernel", COLUMN),
    (r"unet/.*/ff/net_0/proj/bias", SPLIT),
    (r"unet/.*/ff/net_2/kernel", ROW),
    (r"unet/.*/resnets_\d+/(conv1|time_emb_proj)/kernel", COLUMN),
    (r"unet/.*/resnets_\d+/(conv1|time_emb_proj|norm2)/(bias|scale)", SPLIT),
    (r"unet/.*/resnets_\d+/conv2/kernel", ROW),
    (r"unet/.*/kernel", STORED),
    (r"unet/.*/(bias|scale)", WHOLE),
    # both CLIP towers
    (r"(text|vision)_encoder/.*/(self_attn/[qkv]_proj|mlp/fc1)/kernel", COLUMN),
    (r"(text|vision)_encoder/.*/(self_attn/[qkv]_proj|mlp/fc1)/bias", SPLIT),
    (r"(text|vision)_encoder/.*/(self_attn/out_proj|mlp/fc2)/kernel", ROW),
    (r"text_encoder/embeddings/token_embedding/embedding", (None, "fsdp")),
    (r"(text|vision)_encoder/.*", WHOLE),
    # the rest is stored in parts and computed whole
    (r"(projector|vae)/.*/kernel", STORED),
    (r"(projector|vae)/.*/(bias|scale)", WHOLE),
    (r"contrastive_head/.*", WHOLE),
)
"""(path pattern, mesh axis of each of the last array axes), first match wins."""


def rule_of(path: str) -> int:
    """Index of the one rule of ``path`` ("unet/conv_in/kernel").

    Raises:
        KeyError: no pattern matches; the table must be total.
    """
    for index, (pattern, _) in enumerate(RULES):
        if re.fullmatch(pattern, path):
            return index
    raise KeyError(f"parameter {path!r} has no sharding; add it to RULES")


def spec_of(path: str, shape: tuple[int, ...], sizes: dict[str, int]) -> PartitionSpec:
    """Where a parameter of ``shape`` goes on a mesh of these axis sizes.

    An array axis that its mesh axis does not divide stays whole (the 4 latent channels, say).
    """
    axes = RULES[rule_of(path)][1]
    axes = (None,) * (len(shape) - len(axes)) + axes
    fitting = (
        axis if axis and size % sizes[axis] == 0 else None
        for axis, size in zip(axes, shape, strict=True)
    )
    return PartitionSpec(*fitting)

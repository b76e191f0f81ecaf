"""Which parameters a phase trains: one total table of groups.

Every parameter of the model belongs to exactly one group; a phase names the groups it trains and
everything else is frozen: no gradient, no moments, no moving average. The paper's stage 1
(coarse) trains ``projector`` and ``text_kv`` (48.1 M parameters at full size), stage 2 (fine)
those and ``frame_kv`` (97.6 M); Section 3.3 of the paper.

Beside it stands how injected projections start: as copies of the projections they stand in for.
"""

import re
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from videobooth_jax.typing import Params

GROUPS: tuple[tuple[str, str], ...] = (
    ("text_kv", r"unet/.*/attn2/to_[kv]_global/kernel"),
    ("frame_kv", r"unet/.*/attn1/to_[kv]_(new|exemplar)/kernel"),
    ("temporal", r"unet/.*/(attn_temp|norm_temp)/.*"),
    ("watermark", r"unet/watermark_.*"),
    ("unet", r"unet/.*"),
    ("projector", r"projector/.*"),
    ("text_encoder", r"text_encoder/.*"),
    ("vision_encoder", r"vision_encoder/.*"),
    ("contrastive_head", r"contrastive_head/.*"),
    ("vae", r"vae/.*"),
)
"""(group, path pattern), first match wins; the image part of the UNet is what the lines above it
leave.
"""

COPIES: tuple[tuple[str, str], ...] = (
    (r"(unet/.*/attn2/to_[kv])_global/kernel", r"\1/kernel"),
    (r"(unet/.*/attn1/to_[kv])_(new|exemplar)/kernel", r"\1/kernel"),
)
"""(injected projection, the projection it starts as a copy of)."""


def group_of(path: str) -> str:
    """Return the one group ``path`` ("unet/conv_in/kernel") belongs to.

    Raises:
        KeyError: no pattern matches; the table must be total.
    """
    for name, pattern in GROUPS:
        if re.fullmatch(pattern, path):
            return name
    raise KeyError(f"parameter {path!r} belongs to no training group; add it to GROUPS")


def split(params: Params, trainable: tuple[str, ...]) -> tuple[Params, Params]:
    """Split a parameter tree in (trained, frozen) by the named groups.

    Raises:
        ValueError: a group that does not exist, or groups that hold no parameter of this model.
    """
    known = {name for name, _ in GROUPS}
    if unknown := sorted(set(trainable) - known):
        raise ValueError(f"unknown groups to train: {unknown}; known are {sorted(known)}")
    flat = traverse_util.flatten_dict(params, sep="/")
    chosen = {path for path in flat if group_of(path) in trainable}
    if not chosen:
        raise ValueError(f"the groups to train, {trainable}, hold no parameter of this model")
    return (
        traverse_util.unflatten_dict({p: v for p, v in flat.items() if p in chosen}, sep="/"),
        traverse_util.unflatten_dict({p: v for p, v in flat.items() if p not in chosen}, sep="/"),
    )


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Params:
    """Join two trees without common leaves, the inverse of :func:`split`."""
    flat = traverse_util.flatten_dict(dict(first), sep="/")
    flat |= traverse_util.flatten_dict(dict(second), sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")


def start_from_copies(params: Params, groups: tuple[str, ...]) -> Params:
    """Overwrite the injected projections of ``groups`` by copies of the originals (the start of
    a stage).
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for path in list(flat):
        if group_of(path) not in groups:
            continue
        for pattern, origin in COPIES:
            if re.fullmatch(pattern, path):
                flat[path] = flat[re.sub(pattern, origin, path)]
    return traverse_util.unflatten_dict(flat, sep="/")

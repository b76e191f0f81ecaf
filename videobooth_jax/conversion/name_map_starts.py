"""Parameters that a published checkpoint may lack as a group, and what they start as: data only.

A rule is a pattern of Flax paths of the whole model and its start: a number that fills the
parameter, the path (with the pattern's groups) of the parameter it starts as a copy of, or `DRAWN`.
"""

import re
from dataclasses import dataclass

Start = str | float


@dataclass(frozen=True)
class Group:
    """Parameters that come together or not at all.

    Attributes:
      name: what to call them.
      note: what it means that they were not given, for the reader of a conversion report.
      rules: (path pattern, start).
    """

    name: str
    note: str
    rules: tuple[tuple[str, Start], ...]

    def start(self, path: str) -> Start | None:
        """What the parameter at ``path`` starts as; None if it does not belong to the group."""
        for pattern, start in self.rules:
            if match := re.fullmatch(pattern, path):
                return match.expand(start) if isinstance(start, str) else start
        return None


DRAWN = "drawn"
"""Start as the network's own initialiser draws it."""

WATERMARK_TAIL = r"unet/watermark_\w+/.*"
"""Parameters without which a model is made without its watermark tail."""

GROUPS = (
    Group("image projector", "the image projector starts at random", ((r"projector/.*", DRAWN),)),
    Group(
        "temporal attention",
        "an image UNet: temporal attention starts without effect (its output projection is zero, "
        "its other projections are those of the frame attention)",
        (
            (r"(unet/.*)/attn_temp/to_([qkv])/kernel", r"\1/attn1/to_\2/kernel"),
            (r"unet/.*/attn_temp/to_out_0/(kernel|bias)", 0.0),
            (r"unet/.*/norm_temp/scale", 1.0),
            (r"unet/.*/norm_temp/bias", 0.0),
        ),
    ),
    Group(
        "text keys and values",
        "the keys and values for image words start as copies of the text attention's own",
        ((r"(unet/.*/attn2/to_[kv])_global/kernel", r"\1/kernel"),),
    ),
    Group(
        "frame keys and values",
        "the keys and values for injection start as copies of the frame attention's own",
        ((r"(unet/.*/attn1/to_[kv])_(new|exemplar)/kernel", r"\1/kernel"),),
    ),
)

"""What a prepared dataset depends on beside its inputs: one frozen dataclass, all of it options."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class PrepareConfig:
    """Thresholds, sizes and names. From these and a clip's facts every decision can be rebuilt.

    Attributes:
        min_frames: shorter videos are set aside; 16 is what the paper trains on.
        max_frames: of longer ones so many are kept, around the frame of the mask.
        min_subject_share, max_subject_share: of the picture's area, for the subject's mask.
        min_centre_share: of the mask, what must lie in the centre square that training cuts.
        min_motion: mean absolute difference, in grey levels of 255, between neighbouring frames of
            the paper's windows laid end to end, on a copy `preparation.motion.SIDE` px wide.
        max_frozen_share: of all frames, those that may equal the one before.
        resolution: the shorter side is scaled down to it, px; training scales to 256, so that
            nothing is scaled twice. Smaller videos are not enlarged.
        crf: x264's constant quality; lower is better and larger.
        max_picture_side: longer side of the cut-out, px.
        segment: what to do without mask and box: "auto" looks for the subject's words with
            detector and segmenter, "given" sets such inputs aside.
        mask_frame: where "auto" looks: in the "first" frame, or in the "best" of
            ``mask_candidates`` evenly spaced ones, by the detector's score.
        detector, segmenter: folders or hub ids of the models of "auto".
        noun_model: spaCy's, for captions without a named subject.
        validation: share of the videos, by a hash of their ids, that make a split of that name.
        clips_per_shard: the last shard of a split is smaller.
        timeout: after so many seconds on one clip it is set aside.
    """

    min_frames: int = 16
    max_frames: int = 512
    min_subject_share: float = 0.01
    max_subject_share: float = 0.9
    min_centre_share: float = 0.5
    min_motion: float = 0.5
    max_frozen_share: float = 0.5
    resolution: int = 256
    crf: int = 18
    max_picture_side: int = 512
    segment: Literal["auto", "given"] = "auto"
    mask_frame: Literal["first", "best"] = "first"
    mask_candidates: int = 5
    detector: str = "IDEA-Research/grounding-dino-tiny"
    segmenter: str = "facebook/sam-vit-base"
    noun_model: str = "en_core_web_sm"
    validation: float = 0.0
    clips_per_shard: int = 256
    timeout: float = 600.0

    def __post_init__(self):
        """Raise ValueError for values that cannot be meant."""
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must lie between {low} and {high}"
                )
        for name, hint in typing.get_type_hints(PrepareConfig).items():
            choices = typing.get_args(hint)
            if choices and getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )
        if self.max_frames < self.min_frames:
            raise ValueError(
                f"max_frames {self.max_frames} is less than min_frames {self.min_frames}"
            )


RANGES: dict[str, tuple[float, float]] = {
    "min_frames": (1, 100_000),
    "max_frames": (1, 100_000),
    "min_subject_share": (0, 1),
    "max_subject_share": (0, 1),
    "min_centre_share": (0, 1),
    "min_motion": (0, 255),
    "max_frozen_share": (0, 1),
    "resolution": (16, 4096),
    "crf": (0, 51),
    "max_picture_side": (16, 8192),
    "mask_candidates": (1, 1000),
    "validation": (0, 1),
    "clips_per_shard": (1, 1_000_000),
    "timeout": (1, 1e6),
}


def from_values(values: dict[str, Any]) -> PrepareConfig:
    """A configuration of some fields, the others by default.

    Raises:
        ValueError: unknown fields, or values of another type or out of their range.
    """
    fields = {f.name: f for f in dataclasses.fields(PrepareConfig)}
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"config: unknown fields {unknown}; there are {', '.join(fields)}")
    made = {}
    for name, value in values.items():
        kind: Any = type(fields[name].default)
        if not isinstance(value, int if kind is int else (kind, int) if kind is float else kind):
            raise ValueError(f"config: {name} must be {kind.__name__}, not {value!r}")
        made[name] = kind(value)
    return PrepareConfig(**made)

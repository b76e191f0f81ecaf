"""One input to one clip, or to the reason why not: a pure function of the input and its files."""

import dataclasses
import json
from typing import Any

import numpy as np

from videobooth_jax.data.clip_records import ClipRecord, encode_record
from videobooth_jax.data.videos import Video
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput, SetAside, existing
from videobooth_jax.preparation.motion import frozen_share, motion_of
from videobooth_jax.preparation.storing import (
    encode_picture,
    encode_video,
    nominal_rate,
    stored_size,
    upright_frames,
)
from videobooth_jax.preparation.subject import Finders, Subject, find_subject


@dataclasses.dataclass(frozen=True)
class Outcome:
    """``record`` is what a shard holds, empty where the input is set aside for ``reason``, of which
    ``why`` says more; ``facts`` is all that was measured until then.
    """

    reason: str = ""
    why: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    record: bytes = b""

    @property
    def accepted(self) -> bool:
        """Whether there is a clip."""
        return not self.reason


def prepare_clip(given: ClipInput, config: PrepareConfig, tools: Finders) -> Outcome:
    """Read, judge and store one input. Never raises for anything that an input could be."""
    facts: dict[str, Any] = {
        name: value
        for name in ("video", "caption", "subjects", "mask", "box", "licence", "source")
        if (value := getattr(given, name))
    }
    facts |= {"given": dict(given.extra)} if given.extra else {}
    try:
        if given.refused:
            raise SetAside(*given.refused)
        record = encode_record(_prepare(given, config, tools, facts))
    except SetAside as finding:
        return Outcome(finding.reason, finding.why, facts)
    except Exception as error:  # whatever a library does with a file nobody foresaw
        return Outcome("error", f"{type(error).__name__}: {error}", facts)
    return Outcome(facts=facts, record=record)


def _prepare(
    given: ClipInput, config: PrepareConfig, tools: Finders, facts: dict[str, Any]
) -> ClipRecord:
    path = existing(given.video_root, given.video)
    reason = "unreadable_video"
    try:
        with Video(path) as video:
            reason = "damaged_video"
            _judge_video(video, config, facts)
            subject = find_subject(video, given, config, tools)
            _judge_subject(subject, video.info.pixel_aspect, config, facts)
            return _store(video, given, subject, config, facts)
    except ValueError as error:
        raise SetAside(reason, str(error).replace(str(path), given.video)) from error


def _judge_video(video: Video, config: PrepareConfig, facts: dict[str, Any]) -> None:
    info = video.info
    facts |= {
        "source_height": info.height,
        "source_width": info.width,
        "source_frames": info.num_frames,
        "source_frames_per_second": _rounded(info.frames_per_second),
        "source_codec": info.codec,
        "rotation": info.rotation,
        "pixel_aspect": _rounded(info.pixel_aspect),
        "variable_rate": info.variable_rate,
    }
    _at_least("too_short", info.num_frames, config.min_frames, "frames", "min_frames")


def _judge_subject(
    subject: Subject, pixel_aspect: float, config: PrepareConfig, facts: dict[str, Any]
) -> None:
    mask, box, score = subject.found
    facts |= {} if score is None else {"score": _rounded(score)}
    share, centre = float(mask.mean()), centre_share(mask, pixel_aspect)
    facts |= {
        "subject": subject.words,
        "method": subject.method,
        "source_mask_frame": subject.frame,
        "subject_box": [_rounded(corner) for corner in box],
        "subject_share": _rounded(share),
        "centre_share": _rounded(centre),
    }
    what = "of the picture is subject"
    _at_least("subject_too_small", share, config.min_subject_share, what, "min_subject_share")
    _at_most("subject_too_large", share, config.max_subject_share, what, "max_subject_share")
    what = "of the subject lies in the centre square"
    _at_least("subject_off_centre", centre, config.min_centre_share, what, "min_centre_share")


def _store(
    video: Video,
    given: ClipInput,
    subject: Subject,
    config: PrepareConfig,
    facts: dict[str, Any],
) -> ClipRecord:
    info = video.info
    first, count = kept_frames(info.num_frames, subject.frame, config.max_frames)
    size = stored_size(info.height, info.width, info.pixel_aspect, config.resolution)
    rate, greys = nominal_rate(info.frames_per_second), list[np.ndarray]()
    frames = upright_frames(video, range(first, first + count), size, greys)
    stored = encode_video(frames, size, rate, config.crf)
    moving, frozen = motion_of(np.stack(greys)), frozen_share(np.stack(greys))
    facts |= {
        "first_frame": first,
        "motion": _rounded(moving),
        "frozen_share": _rounded(frozen),
    }
    what = "grey levels change from frame to frame"
    _at_least("still", moving, config.min_motion, what, "min_motion")
    what = "of the frames repeat the one before"
    _at_most("frozen", frozen, config.max_frozen_share, what, "max_frozen_share")
    picture = encode_picture(
        subject.picture,
        subject.found.mask,
        subject.found.box,
        info.pixel_aspect,
        config.max_picture_side,
    )
    return ClipRecord(
        id=given.id,
        caption=given.caption,
        subject=subject.words,
        video=stored,
        picture=picture,
        mask_frame=subject.frame - first,
        num_frames=count,
        height=size[0],
        width=size[1],
        frames_per_second=rate,
        facts=json.dumps(facts, ensure_ascii=False, sort_keys=True),
    )


def centre_share(mask: np.ndarray, pixel_aspect: float = 1.0) -> float:
    """Share of a mask (height width) that survives the cut to the centre square of training."""
    height, width = mask.shape
    side = min(height, width * pixel_aspect)
    tall, wide = min(height, round(side)), min(width, round(side / pixel_aspect))
    top, left = (height - tall) // 2, (width - wide) // 2
    return float(mask[top : top + tall, left : left + wide].sum() / mask.sum())


def kept_frames(num_frames: int, mask_frame: int, max_frames: int) -> tuple[int, int]:
    """First frame and number of frames kept: all, or ``max_frames`` around the mask's frame."""
    count = min(num_frames, max_frames)
    first = min(max(mask_frame - count // 2, 0), num_frames - count)
    return first, count


def _at_least(reason: str, value: float, least: float, what: str, option: str) -> None:
    if value < least:
        raise SetAside(reason, f"{value:.6g} {what}, less than {option} {least}")


def _at_most(reason: str, value: float, most: float, what: str, option: str) -> None:
    if value > most:
        raise SetAside(reason, f"{value:.6g} {what}, more than {option} {most}")


def _rounded(value: float) -> float:
    """To six digits, as facts are told."""
    return float(f"{value:.6g}")

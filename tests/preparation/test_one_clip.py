"""One input to one clip: what is kept, what is set aside, and what is said of it."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_videos import (
    BOX,
    FRAMES,
    HEIGHT,
    WIDTH,
    corrupted,
    moving,
    rotated,
    truncated,
    write_mask,
    write_sound,
    write_video,
)
from PIL import Image

from videobooth_jax.data.clip_records import ClipRecord, decode_record
from videobooth_jax.data.videos import Video
from videobooth_jax.preparation.clip import Outcome, centre_share, kept_frames, prepare_clip
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.segmenting import Found


class NoTools:
    """Finds nothing, not even nouns."""

    def nouns(self, caption: str) -> list[str]:
        return []

    def by_words(self, picture: np.ndarray, subject: str) -> Found:
        raise ValueError(f"no {subject!r} here")

    def by_box(self, picture: np.ndarray, box: tuple[float, ...]) -> Found:
        mask = np.zeros(picture.shape[:2], bool)
        left, top, right, bottom = map(int, box)
        mask[top + 1 : bottom - 1, left + 1 : right - 1] = True
        return Found(mask, box, None)


class RedTools(NoTools):
    """Finds red, and calls it a square."""

    def nouns(self, caption: str) -> list[str]:
        return caption.split()

    def by_words(self, picture: np.ndarray, subject: str) -> Found:
        if subject != "square":
            return super().by_words(picture, subject)
        mask = (picture[..., 0] > 180) & (picture[..., 1] < 80)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return Found(mask, tuple(map(float, box)), float(columns[0]) / WIDTH)


def given(path: Path, **changes) -> ClipInput:
    write_mask(path.parent / "mask.png")
    values = {
        "place": path.name,
        "id": path.stem,
        "video": path.name,
        "video_root": str(path.parent),
        "mask": "mask.png",
        "mask_root": str(path.parent),
        "caption": "a red square moves",
        "subjects": ("Red Square",),
    }
    return ClipInput(**(values | changes))


def make(path: Path, config: PrepareConfig | None = None, tools=None, **changes) -> Outcome:
    return prepare_clip(given(path, **changes), config or PrepareConfig(), tools or NoTools())


def accepted(outcome: Outcome) -> ClipRecord:
    assert outcome.accepted, (outcome.reason, outcome.why)
    return decode_record(outcome.record)


@pytest.fixture
def square(tmp_path: Path) -> Path:
    return write_video(tmp_path / "square.mp4", moving(), audio=True)


def test_a_clip_holds_the_video_and_the_subject_alone(square: Path):
    record = accepted(make(square, licence="CC0"))
    assert (record.id, record.subject, record.mask_frame) == ("square", "red square", 0)
    assert (record.num_frames, record.height, record.width) == (FRAMES, HEIGHT, WIDTH)
    assert record.frames_per_second == pytest.approx(25)
    with Video(record.video) as video:
        assert video.info.codec == "h264"
        assert np.flatnonzero(video.info.keyframes).tolist() == [0, 16]
        shown = video.read(range(FRAMES)).astype(int)
    assert np.abs(shown - moving()).mean() < 8
    cut = np.asarray(Image.open(io.BytesIO(record.picture)))
    assert cut.shape == (16, 16, 4)
    assert (cut[..., 3] == 255).all()
    assert np.abs(cut[4:12, 4:12, :3].astype(int) - (220, 30, 20)).max() < 25
    facts = json.loads(record.facts)
    assert facts["licence"] == "CC0"
    assert facts["subject_share"] == pytest.approx(256 / (HEIGHT * WIDTH), rel=1e-5)
    assert facts["motion"] > 0.5
    assert str(square.parent) not in record.facts


def test_the_same_input_makes_the_same_bytes(square: Path):
    assert make(square).record == make(square).record


def test_large_videos_and_cut_outs_are_scaled_down(square: Path):
    record = accepted(make(square, PrepareConfig(resolution=24, max_picture_side=16, crf=5)))
    assert (record.height, record.width) == (24, 32)
    cut = accepted(make(square, PrepareConfig(max_picture_side=16), box=(22, 12, 46, 36), id="b"))
    picture = np.asarray(Image.open(io.BytesIO(cut.picture)))
    assert picture.shape == (16, 16, 4)
    assert 0 < picture[..., 3][2, 8] < 255  # antialiased at the mask's edge
    assert picture[0, 0].tolist() == [0, 0, 0, 0]


def test_long_videos_are_cut_around_the_masks_frame(tmp_path: Path):
    assert kept_frames(20, 0, 512) == (0, 20)
    assert kept_frames(100, 50, 20) == (40, 20)
    assert kept_frames(100, 99, 20) == (80, 20)
    path = write_video(tmp_path / "long.mp4", moving(40))
    mask = tmp_path / "late.png"
    write_mask(mask, (26, 16, 42, 32))
    record = accepted(make(path, PrepareConfig(max_frames=16), mask="late.png", mask_frame=30))
    assert (record.num_frames, record.mask_frame) == (16, 8)
    assert json.loads(record.facts)["first_frame"] == 22
    with Video(record.video) as stored, Video(path) as source:
        assert np.abs(stored.read([8])[0].astype(int) - source.read([30])[0]).mean() < 8


def test_pictures_are_upright_with_square_pixels(tmp_path: Path):
    path = rotated(write_video(tmp_path / "turned.mp4", moving()), 1)
    box = (HEIGHT - BOX[3], BOX[0], HEIGHT - BOX[1], BOX[2])
    write_mask(tmp_path / "turned.png", box, (WIDTH, HEIGHT))
    record = accepted(make(path, mask="turned.png"))
    assert (record.height, record.width) == (WIDTH, HEIGHT)
    with Video(record.video) as video, Video(path) as source:
        assert video.info.rotation == 0
        assert np.abs(video.read([3])[0].astype(int) - source.read([3])[0]).mean() < 8
    cut = np.asarray(Image.open(io.BytesIO(record.picture)))
    assert np.abs(cut[4:12, 4:12, :3].astype(int) - (220, 30, 20)).max() < 25
    wide = write_video(tmp_path / "wide.mp4", moving(), pixel_aspect=Fraction(2, 1))
    record = accepted(make(wide))
    assert (record.height, record.width) == (HEIGHT, 2 * WIDTH)
    assert Image.open(io.BytesIO(record.picture)).size == (32, 16)


def test_every_frame_of_a_variable_rate_is_kept(tmp_path: Path):
    times = [40 * i + 12 * (i % 3) for i in range(FRAMES)]
    record = accepted(make(write_video(tmp_path / "uneven.mp4", moving(), times=times)))
    assert record.num_frames == FRAMES
    assert record.frames_per_second == pytest.approx(1000 * (FRAMES - 1) / times[-1], rel=1e-3)
    assert json.loads(record.facts)["variable_rate"] is True


def test_filters_measure_before_they_judge(tmp_path: Path, square: Path):
    still = write_video(tmp_path / "still.mp4", np.repeat(moving(1), FRAMES, 0))
    stops = write_video(tmp_path / "stops.mp4", moving()[[*range(8), *[8] * 12]])
    for outcome, reason, fact in (
        (make(still), "still", "motion"),
        (make(stops, PrepareConfig(min_motion=0.1)), "frozen", "frozen_share"),
        (make(write_video(tmp_path / "short.mp4", moving(15))), "too_short", "source_frames"),
        (make(square, PrepareConfig(min_subject_share=0.2)), "subject_too_small", "subject_share"),
        (make(square, PrepareConfig(max_subject_share=0.05)), "subject_too_large", "subject_share"),
    ):
        assert outcome.reason == reason
        assert f"{outcome.facts[fact]:.6g} " in outcome.why
        assert outcome.record == b""
    left = tmp_path / "left.png"
    write_mask(left, (0, 10, 12, 40))
    outcome = make(square, mask="left.png")
    assert (outcome.reason, outcome.facts["centre_share"]) == (
        "subject_off_centre",
        pytest.approx(1 / 3, rel=1e-5),
    )


def test_the_centre_square_is_what_training_cuts():
    mask = np.ones((10, 30), bool)
    assert centre_share(mask) == pytest.approx(1 / 3)
    assert centre_share(mask.T) == pytest.approx(1 / 3)
    assert centre_share(mask, pixel_aspect=1 / 3) == pytest.approx(1)


def test_bad_videos_are_set_aside(tmp_path: Path):
    good = moving()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n")
    reasons = {
        tmp_path / "empty.mp4": "unreadable_video",
        tmp_path / "list.mp4": "unreadable_video",
        write_sound(tmp_path / "sound.mp4"): "unreadable_video",
        truncated(write_video(tmp_path / "cut.mp4", good), 0.6): "unreadable_video",
        write_video(tmp_path / "one.mp4", good[:1]): "too_short",
        corrupted(write_video(tmp_path / "broken.mp4", good)): "damaged_video",
        corrupted(write_video(tmp_path / "broken4.mp4", good, codec="mpeg4")): "damaged_video",
        tmp_path / "gone.mp4": "missing_file",
    }
    for path, reason in reasons.items():
        outcome = make(path)
        assert (outcome.reason, path.name) == (reason, path.name)
        assert str(tmp_path) not in outcome.why


def test_a_cut_transport_stream_keeps_what_comes_before_the_cut(tmp_path: Path):
    path = truncated(write_video(tmp_path / "cut.mkv", moving(40)), 0.7)
    outcome = make(path)
    assert outcome.reason in ("", "damaged_video")
    assert 16 <= outcome.facts["source_frames"] < 40


@pytest.mark.slow
def test_8k_is_scaled_and_larger_is_refused(tmp_path: Path):
    flat = np.broadcast_to(np.full(3, 90, np.uint8), (16, 4320, 7680, 3))
    record = accepted(
        make(
            write_video(tmp_path / "8k.mp4", flat, codec="mjpeg"),
            PrepareConfig(max_frozen_share=1, min_motion=0),
            mask="",
            box=(3000, 1000, 5000, 3000),
        )
    )
    assert (record.height, record.width) == (256, 456)
    huge = write_video(tmp_path / "16k.mp4", flat[:1, :, :1].repeat(15360, 2), codec="mjpeg")
    outcome = make(huge)
    assert outcome.reason == "unreadable_video"
    assert "too large" in outcome.why


def test_masks_and_boxes_must_fit(tmp_path: Path, square: Path):
    write_mask(tmp_path / "small.png", size=(24, 32), box=(1, 1, 20, 20))
    write_mask(tmp_path / "blank.png", box=(0, 0, 0, 0))
    (tmp_path / "noise.png").write_bytes(b"no picture")
    for changes, reason in (
        ({"mask": "small.png"}, "bad_mask"),
        ({"mask": "blank.png"}, "bad_mask"),
        ({"mask": "noise.png"}, "bad_mask"),
        ({"mask": "gone.png"}, "missing_file"),
        ({"mask": "../mask.png"}, "outside_folder"),
        ({"mask_frame": FRAMES}, "bad_mask"),
        ({"mask": "", "box": (42, 32, 26, 16)}, "bad_box"),
        ({"mask": "", "box": (0, 0, WIDTH + 3, HEIGHT)}, "bad_box"),
        ({"mask": "", "box": (-9, 0, 20, 20)}, "bad_box"),
        ({"mask": "", "box": (5, 5, 5.5, 20)}, "bad_box"),
        ({"box": (0, 0, 9, 9)}, "bad_box"),
        ({"mask": ""}, "no_subject"),
    ):
        outcome = make(square, **changes)
        assert (outcome.reason, changes) == (reason, changes)
        assert str(tmp_path) not in outcome.why
    assert make(square, mask="", box=(-1, 2, WIDTH + 1.5, 40)).facts["subject_box"] == [
        0,
        2,
        64,
        40,
    ]


def test_the_subject_is_in_the_caption_and_found_in_the_picture(square: Path):
    assert make(square, subjects=("quare",)).reason == "subject_not_in_caption"
    assert make(square, caption="").reason == "no_caption"
    assert accepted(make(square, subjects=("blue", "square"))).subject == "square"
    assert make(square, subjects=()).reason == "no_subject"
    found = make(square, tools=RedTools(), subjects=(), mask="")
    assert accepted(found).subject == "square"
    assert found.facts["method"] == "auto"
    assert make(square, PrepareConfig(segment="given"), RedTools(), mask="").reason == "no_subject"
    missed = make(square, tools=RedTools(), subjects=("red", "moves"), mask="")
    assert (missed.reason, missed.why) == ("no_subject", "no 'red' here; no 'moves' here")


def test_the_best_frame_is_the_one_of_the_highest_score(square: Path):
    config = PrepareConfig(mask_frame="best", mask_candidates=FRAMES)
    record = accepted(make(square, config, RedTools(), subjects=("square",), mask=""))
    assert record.mask_frame == 10  # where the square is farthest right
    first = make(square, tools=RedTools(), subjects=("square",), mask="")
    assert accepted(first).mask_frame == 0


def test_whatever_happens_is_an_outcome(square: Path):
    class Broken(NoTools):
        def by_box(self, picture, box):
            raise MemoryError("too much")

    outcome = make(square, tools=Broken(), mask="", box=BOX)
    assert (outcome.reason, outcome.why) == ("error", "MemoryError: too much")


def test_what_cannot_be_stored_is_an_outcome(square: Path):
    assert make(square, source="\ud800").reason == "error"

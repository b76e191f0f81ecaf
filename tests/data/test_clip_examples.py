"""Examples of clips: the right frames and words, whatever is bad told once and replaced."""

import logging

import numpy as np
import pytest
from tiny_clips import damage, record, told_by, write_dataset
from tiny_model import TOKENIZER_FILE

from videobooth_jax.data.clip_examples import ClipExamples, ClipView
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_file(TOKENIZER_FILE)
VIEW = ClipView(num_frames=4, height=8, width=8, span=10)


def examples(folder, view: ClipView = VIEW) -> ClipExamples:
    return ClipExamples(ClipsSource(folder), view, TOKENIZER, subject_length=12)


def seeded(draw: ClipExamples, index: int, seed: int = 0) -> dict:
    return draw(index, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def records():
    return [record(i) for i in range(5)]


@pytest.fixture
def folder(records, tmp_path):
    return write_dataset(tmp_path / "made", records, shard_size=3)


def test_frames_of_the_window_at_the_size_asked(folder):
    example = seeded(examples(folder), 2)
    assert example["video"].shape == (4, 8, 8, 3)
    assert example["video"].dtype == np.uint8
    clip, frames = told_by(example["video"][:, 4, 4].astype(float))
    assert clip == 2
    assert np.diff(frames).tolist() == [3, 3, 3]
    assert example["prompt"] == "a panda number 2 moving left"
    assert example["subject"] == "panda"
    assert example["image_prompt"].shape == example["exemplar"].shape == (20, 20, 3)
    assert np.array_equal(example["image_prompt"], example["exemplar"])


def test_it_depends_on_the_generator_alone(folder):
    view = ClipView(4, 8, 8, 10, AUGMENTS["fine"])
    draw = examples(folder, view)
    one, same, other = (seeded(draw, 1, seed) for seed in (7, 7, 8))
    for name in ("video", "image_prompt", "exemplar"):
        assert np.array_equal(one[name], same[name])
    assert not np.array_equal(one["exemplar"], other["exemplar"])
    assert not np.array_equal(one["exemplar"], one["image_prompt"])


def test_a_damaged_clip_is_told_once_and_the_next_takes_its_place(folder, caplog):
    damage(folder, 0, 400)
    draw = examples(folder)
    with caplog.at_level(logging.WARNING):
        shown = [seeded(draw, 0, seed) for seed in range(3)]
    expected = [seeded(draw, 1, seed) for seed in range(3)]
    for one, other in zip(shown, expected, strict=True):
        assert one["prompt"] == other["prompt"] == "a panda number 1 moving left"
        assert np.array_equal(one["video"], other["video"])
    assert len(caplog.records) == 1
    assert "clip 0" in caplog.text
    assert "00000-of-00002, record 0" in caplog.text
    assert "the next one is shown" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"video": b"no video"},
        {"video": record(0).video[:700]},
        {"picture": b"no picture"},
        {"subject": "panda " * 13},
    ],
)
def test_whatever_is_wrong_with_a_clip(fields, records, tmp_path, caplog):
    bad = [*records[:2], record(2, **fields)]
    draw = examples(write_dataset(tmp_path / "made", bad))
    assert seeded(draw, 2)["prompt"] == records[0].caption  # after the last comes the first
    assert len(caplog.records) == 1


def test_videos_that_are_too_short_are_replaced(records, tmp_path, caplog):
    draw = examples(write_dataset(tmp_path / "made", [record(0, frames=3), records[1]]))
    assert seeded(draw, 0)["prompt"] == records[1].caption
    assert "4 frames cannot be taken" in caplog.text


def test_with_nothing_to_read_it_ends(tmp_path):
    bad = [record(i, video=b"") for i in range(3)]
    draw = examples(write_dataset(tmp_path / "made", bad))
    with pytest.raises(ValueError, match="none of the 3 clips"):
        seeded(draw, 0)


def test_a_subject_beyond_the_last_token_is_told_and_used(records, tmp_path, caplog):
    long = "a very " * 30 + "large panda"
    draw = examples(write_dataset(tmp_path / "made", [record(0, caption=long)]))
    examples_of_it = [seeded(draw, 0, seed) for seed in range(2)]
    assert [one["prompt"] for one in examples_of_it] == [long, long]
    assert len(caplog.records) == 1
    assert "its picture may lend no words: the subject 'panda' is cut off" in caplog.text


def test_too_many_frames_are_told_with_the_reason(folder):
    with pytest.raises(ValueError, match="8 frames cannot be spread over a window of 7"):
        ClipView(num_frames=8, height=8, width=8, span=7)
    long = ClipView(num_frames=500, height=8, width=8, span=500)
    with pytest.raises(ValueError, match=r"none of the 5 clips.*: 500 frames cannot be taken"):
        seeded(examples(folder, long), 0)

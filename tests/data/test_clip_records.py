"""Clip records keep every bit, without TensorFlow."""

import subprocess
import sys

import pytest

from videobooth_jax.data.clip_records import ClipRecord, decode_record, encode_record

RECORD = ClipRecord(
    id="a/ö 1",
    caption="a café \u732b",
    subject="\u732b",
    video=b"\x00\xff\x80" * 5,
    picture=b"\x89PNG\r\n\x1a\n\x00",
    mask_frame=3,
    num_frames=64,
    height=256,
    width=454,
    frames_per_second=29.97,
    facts='{"licence": "CC0"}',
)


def test_what_is_read_is_what_was_written():
    read = decode_record(encode_record(RECORD))
    assert read.frames_per_second == pytest.approx(29.97, rel=1e-6)
    assert ClipRecord(**vars(read) | {"frames_per_second": 29.97}) == RECORD
    assert [type(value) for value in vars(read).values()] == [
        type(value) for value in vars(RECORD).values()
    ]


def test_damaged_bytes_are_refused():
    with pytest.raises(ValueError, match="no clip"):
        decode_record(encode_record(RECORD)[:-20])


def test_tensorflow_stays_out():
    code = (
        "import sys; from videobooth_jax.data.clip_records import clip_features; clip_features();"
        "print('tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"

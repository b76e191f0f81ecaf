"""Videos are read frame by frame as they are, whatever their order, rate and orientation."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videobooth_jax.data.videos import Video

SIZE = (48, 64)


def moving(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A bright block that moves 2 px a frame, with the frame's number in its brightness."""
    frames = np.zeros((count, *size, 3), np.uint8)
    for index, frame in enumerate(frames):
        left = 2 * index % (size[1] - 16)
        frame[8:24, left : left + 16] = 60 + 180 * index // count
        frame[30:40, 10:30, 0] = 200
    return frames


def write_video(path: Path, frames: np.ndarray, times=None, audio: bool = False, **options) -> Path:
    """An H.264 file; ``times`` in milliseconds, or 25 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "1", **options}
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[index] if times else 40 * index, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> np.ndarray:
    """All frames, one after the other, the plain way."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", moving(60), g="12", bf="2")


def test_what_a_file_says(plain):
    with Video(plain) as video:
        info = video.info
    assert (info.height, info.width, info.num_frames, info.rotation) == (*SIZE, 60, 0)
    assert info.frames_per_second == pytest.approx(25)
    assert info.seconds == pytest.approx(60 / 25)
    assert info.keyframes.sum() >= 5
    assert info.keyframes[0]
    assert info.codec == "h264"
    assert not info.variable_rate


def test_any_frames_in_any_order_are_the_ones_decoded_one_by_one(plain):
    expected = decoded(plain)
    rng = np.random.default_rng(0)
    with Video(plain) as video:
        for _ in range(20):
            indices = rng.integers(0, 60, rng.integers(1, 9))
            np.testing.assert_array_equal(video.read(indices), expected[indices])


@pytest.mark.parametrize("options", [{"g": "1"}, {"g": "250", "bf": "4"}, {"g": "5", "bf": "3"}])
def test_key_frames_of_every_spacing(tmp_path, options):
    path = write_video(tmp_path / "a.mp4", moving(40), **options)
    expected = decoded(path)
    with Video(path) as video:
        for indices in ([39], [0, 39], [7, 8, 31], list(range(40))):
            np.testing.assert_array_equal(video.read(indices), expected[indices])


def test_only_what_lies_between_key_frame_and_last_wanted_frame_is_decoded(plain, monkeypatch):
    with Video(plain) as video:
        container, seen = video._container, []

        class Counting:
            seek = staticmethod(container.seek)
            close = staticmethod(container.close)

            @staticmethod
            def decode(stream):
                for frame in container.decode(stream):
                    seen.append(frame.pts)
                    yield frame

        monkeypatch.setattr(video, "_container", Counting)
        key = int(np.flatnonzero(video.info.keyframes)[2])
        video.read([key + 1, key + 3])
    assert len(seen) <= 5


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mov"])
def test_bytes_and_containers(tmp_path, kind):
    path = write_video(tmp_path / f"a.{kind}", moving(20), g="6")
    with Video(path.read_bytes()) as video:
        np.testing.assert_array_equal(video.read([3, 17]), decoded(path)[[3, 17]])


def test_a_rate_that_varies_keeps_every_frame_and_its_time(tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(20, 120, 30)).tolist()
    path = write_video(tmp_path / "a.mkv", moving(30), times)
    with Video(path) as video:
        assert video.info.variable_rate
        assert video.info.num_frames == 30
        np.testing.assert_allclose(
            np.diff(video.info.times), np.diff(times) / 1000, atol=1.1e-3, rtol=0
        )
        np.testing.assert_array_equal(video.read([5, 29]), decoded(path)[[5, 29]])


def rotated(path: Path, out: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same file with (a, b, c, d) of its track's display matrix replaced."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: the matrix comes 40 bytes after the name
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_what_a_phone_filmed_sideways_is_turned_upright(plain, tmp_path, matrix, turns):
    path = rotated(plain, tmp_path / "b.mp4", matrix)
    expected = np.rot90(decoded(plain)[7], turns)
    with Video(path) as video:
        assert (video.info.height, video.info.width) == expected.shape[:2]
        np.testing.assert_array_equal(video.read([7])[0], expected)
        small = video.read([7], (16, 24))[0]
    with Video(plain) as video:
        size = (24, 16) if turns % 2 else (16, 24)
        np.testing.assert_array_equal(small, np.rot90(video.read([7], size)[0], turns))


def test_scaling_covers_the_size_and_cuts_around_the_middle(tmp_path):
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 200  # the middle square
    path = write_video(tmp_path / "a.mp4", frames)
    with Video(path) as video:
        square = video.read([0], (32, 32))[0]
        tall = video.read([0], (64, 16))[0]
    assert square.shape == (32, 32, 3)
    assert tall.shape == (64, 16, 3)
    np.testing.assert_allclose(square[:, 1:-1].astype(int), 200, atol=4)
    np.testing.assert_allclose(tall.astype(int), 200, atol=4)


def cut(path: Path, out: Path, share: float) -> Path:
    data = path.read_bytes()
    out.write_bytes(data[: int(len(data) * share)])
    return out


def test_damaged_files_say_so(plain, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("empty.mp4", "text.mp4"):
        with pytest.raises(ValueError, match="cannot be read as a video"):
            Video(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read as a video"):
        Video(cut(plain, tmp_path / "cut.mp4", 0.5))  # what tells the frames lies at the end
    with pytest.raises(FileNotFoundError, match="no file"):
        Video(tmp_path / "none.mp4")


def test_of_a_cut_stream_the_frames_before_the_cut_are_left(tmp_path):
    whole = write_video(tmp_path / "a.mkv", moving(60), g="12")
    with Video(cut(whole, tmp_path / "cut.mkv", 0.6)) as video:
        count = video.info.num_frames
        assert 10 < count < 60
        np.testing.assert_array_equal(video.read([count - 12]), decoded(whole)[[count - 12]])


def test_a_frame_that_cannot_be_decoded_is_named(plain, tmp_path):
    data = bytearray(plain.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (data.index(b"moov") - start) // 2
    data[middle : middle + 600] = bytes(600)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with Video(path) as video, pytest.raises(ValueError, match=r"frame \d+ .*cannot be decoded"):
        video.read(range(60))


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no pictures, only audio"):
        Video(path)


def test_frames_outside_are_refused(plain):
    with Video(plain) as video, pytest.raises(IndexError, match="frames 3 to 60 of"):
        video.read([3, 60])

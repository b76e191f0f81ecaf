"""Files people open: right content, whole or absent, refused early."""

import av
import numpy as np
import pytest
from PIL import Image

from videobooth_jax import outputs
from videobooth_jax.outputs import check_output, contact_sheet, output_paths, save_videos


@pytest.fixture
def frames():
    """Two videos of five 32 x 24 frames: a bright block that moves right, on two colours."""
    videos = np.zeros((2, 5, 32, 24, 3), np.uint8)
    videos[0], videos[1] = (20, 90, 30), (60, 20, 120)
    for i in range(5):
        videos[:, i, 8:16, 4 * i : 4 * i + 6] = (240, 230, 60)
    return videos


def enlarged(frames, factor):
    return frames.repeat(factor, axis=1).repeat(factor, axis=2).astype(np.int32)


def test_mp4_plays_back_what_was_written(tmp_path, frames):
    (path,) = save_videos(tmp_path / "a.mp4", frames[:1], fps=8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 8
        back = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert back.shape == (5, 352, 264, 3)  # 24 px grow to at least 256
    assert np.abs(back - enlarged(frames[0], 11)).mean() < 4


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_animations_keep_frames_and_speed(tmp_path, frames, suffix):
    (path,) = save_videos(tmp_path / f"a{suffix}", frames[:1], fps=10, scale=2)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (5, (48, 64), 0)
        back = []
        for i in range(5):
            image.seek(i)
            image.load()
            assert image.info["duration"] == 100
            back.append(np.asarray(image.convert("RGB")))
    assert np.abs(np.stack(back) - enlarged(frames[0], 2)).mean() < 4


def test_sheet_has_one_row_per_video_and_exact_pixels(tmp_path, frames):
    (path,) = save_videos(tmp_path / "a.png", frames, fps=8, scale=1)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * 36 + 4, 5 * 28 + 4, 3)
    for row in range(2):
        for column in range(5):
            cell = sheet[4 + 36 * row :, 4 + 28 * column :][:32, :24]
            np.testing.assert_array_equal(cell, frames[row, column])
    assert (sheet[:4] == 255).all()
    np.testing.assert_array_equal(sheet, contact_sheet(frames))


def test_several_videos_are_numbered(tmp_path, frames):
    paths = save_videos(tmp_path / "a.b.mp4", frames, fps=8)
    assert [p.name for p in paths] == ["a.b_0.mp4", "a.b_1.mp4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b_0.mp4", "a.b_1.mp4"]
    assert [p.name for p in output_paths("x.png", 3)] == ["x.png"]


@pytest.mark.parametrize("size", [(33, 31), (257, 300)])
def test_odd_and_large_sizes(tmp_path, size):
    frames = np.full((1, 2, *size, 3), 128, np.uint8)
    (path,) = save_videos(tmp_path / "a.mp4", frames, fps=7.5)
    with av.open(str(path)) as container:
        height = container.streams.video[0].height
    assert height == {33: 298, 257: 258}[size[0]]  # 31 px grow ninefold to at least 256; made even


def test_refusals(tmp_path, frames):
    existing = tmp_path / "a_1.mp4"
    existing.write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"a_1\.mp4 already exists"):
        check_output(tmp_path / "a.mp4", count=2)
    with pytest.raises(FileExistsError):
        save_videos(tmp_path / "a.mp4", frames, fps=8)
    assert existing.read_bytes() == b"old"
    assert check_output(tmp_path / "a.mp4", count=2, overwrite=True)[1] == existing
    with pytest.raises(ValueError, match=r"\.mp4, \.gif, \.webp, \.png"):
        check_output(tmp_path / "a.avi")
    with pytest.raises(ValueError, match=r"ending chooses the format"):
        check_output(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_output(tmp_path / "none" / "a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(IsADirectoryError):
        check_output(tmp_path / "folder.mp4", overwrite=True)
    with pytest.raises(OSError, match="File name too long"):
        check_output(tmp_path / ("x" * 252 + ".mp4"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_1.mp4", "folder.mp4"]


def test_unwritable_folder(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs.Path, "touch", refuse)
    with pytest.raises(OSError, match=r"cannot write .*a\.mp4: Permission denied"):
        check_output(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"frames": np.zeros((5, 8, 8, 3), np.uint8)}, "uint8 of shape"),
        ({"frames": np.zeros((1, 5, 8, 8, 3), np.float32)}, "not float32"),
        ({"frames": np.zeros((0, 5, 8, 8, 3), np.uint8)}, "uint8 of shape"),
        ({"fps": 0}, "fps must be positive"),
        ({"scale": 0}, "scale at least 1"),
    ],
)
def test_wrong_arguments(tmp_path, frames, change, match):
    with pytest.raises(ValueError, match=match):
        save_videos(tmp_path / "a.mp4", **({"frames": frames, "fps": 8} | change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", list(outputs.FORMATS))
def test_a_failure_leaves_nothing_behind_and_keeps_what_was_there(
    tmp_path, frames, suffix, monkeypatch
):
    old = output_paths(tmp_path / f"a{suffix}", 2)
    for path in old:
        path.write_bytes(b"old")
    form = outputs.FORMATS[suffix]
    calls = []

    def write_then_fail(path, image, fps):
        form.write(path, image, fps)
        calls.append(path)
        if len(calls) == len(old):
            raise OSError(28, "No space left on device")

    failing = outputs._Format(write_then_fail, form.side, form.sheet)
    monkeypatch.setitem(outputs.FORMATS, suffix, failing)
    with pytest.raises(OSError, match="No space left"):
        save_videos(tmp_path / f"a{suffix}", frames, fps=8, overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted(old)
    assert all(path.read_bytes() == b"old" for path in old)

"""Small videos and masks, good ones and bad ones."""

import json
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH, FRAMES = 48, 64, 20
BOX = (26, 16, 42, 32)
"""Where the square of `moving` is in its first frame."""


def moving(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A red square that goes to and fro on noise, uint8 (frames height width 3)."""
    ground = np.random.default_rng(0).integers(90, 140, (height, width, 1), np.uint8)
    shown = np.repeat(ground.repeat(3, axis=2)[None], frames, axis=0)
    left, top, right, bottom = BOX
    for index, frame in enumerate(shown):
        shift = 2 * (5 - abs(index % 20 - 10)) + 10 if index else 0
        frame[top:bottom, left + shift : right + shift] = (220, 30, 20)
    return shown


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    pixel_aspect: Fraction | None = None,
    audio: bool = False,
) -> Path:
    """A video of uint8 frames at 25 a second, or at ``times`` in 1/1000 s; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "10", "preset": "ultrafast", "x264-params": "keyint=8"}
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if audio:
            _add_tone(container)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with a tone and no pictures."""
    with av.open(str(path), "w") as container:
        _add_tone(container)
    return path


def _add_tone(container: av.container.OutputContainer) -> None:
    stream = container.add_stream("aac", rate=8000)
    for start in range(0, 8192, 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def rotated(path: Path, quarter_turns: int) -> Path:
    """The same MP4 file, shown turned clockwise: its display matrix is patched."""
    stored = bytearray(path.read_bytes())
    at = stored.index(b"tkhd") + 4 + 40
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns]
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    stored[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(stored)
    return path


def truncated(path: Path, share: float) -> Path:
    """The same file without its end."""
    stored = path.read_bytes()
    path.write_bytes(stored[: int(len(stored) * share)])
    return path


def corrupted(path: Path) -> Path:
    """The same MP4 file with bytes in the middle of its pictures overwritten."""
    stored = bytearray(path.read_bytes())
    start, end = stored.index(b"mdat"), len(stored)
    middle = (start + end) // 2
    stored[middle - 400 : middle + 400] = b"\xff" * 800
    path.write_bytes(stored)
    return path


def write_mask(path: Path, box: tuple[int, int, int, int] = BOX, size=(HEIGHT, WIDTH)) -> Path:
    """A PNG mask, bright in a box; ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(path)
    return path


def write_folder(folder: Path, count: int = 5) -> Path:
    """A folder of good videos, and one that is too short."""
    for number in range(count):
        name = folder / f"clip{number}"
        write_video(name.with_suffix(".mp4"), moving(FRAMES + number if number != 1 else 3))
        said = {"caption": f"a red square no. {number}", "subject": "square", "licence": "CC0"}
        name.with_suffix(".json").write_text(json.dumps(said))
        write_mask(folder / f"clip{number}.mask.png")
    return folder

"""Clips as they are stored: a small H.264 file and a cut-out PNG, the same bytes every time."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from videobooth_jax.data.videos import Video, turns
from videobooth_jax.preparation.motion import small_grey

KEY_FRAME_EVERY = 16
PRESET = "fast"
RATES = (1.0, 240.0)
"""Nominal rates outside are stored as the nearest, frames per second."""


def stored_size(height: int, width: int, pixel_aspect: float, resolution: int) -> tuple[int, int]:
    """Even (height, width) with square pixels and a shorter side of at most ``resolution``, px."""
    shown = width * pixel_aspect
    scale = min(1.0, resolution / min(height, shown))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(shown * scale / 2))


def upright_frames(
    video: Video, indices: Iterable[int], size: tuple[int, int], greys: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Frames of a video scaled to ``size``, uint8 (height width 3); small grey copies are kept.

    Raises:
        ValueError: a frame cannot be decoded, or only in part.
    """
    quarters = turns(video.info.rotation)
    height, width = size[::-1] if quarters % 2 else size
    for index, frame in video.frames(list(indices)):
        if frame.is_corrupt:
            raise ValueError(f"frame {index} of {video.info.num_frames} is damaged")
        greys.append(small_grey(frame))
        how = "AREA" if frame.height > height or frame.width > width else "BICUBIC"
        scaled = frame.reformat(width, height, format="rgb24", interpolation=how)
        yield np.ascontiguousarray(np.rot90(scaled.to_ndarray(), quarters))


def nominal_rate(frames_per_second: float) -> float:
    """The rate that a clip of any rate is stored with, frames per second."""
    low, high = RATES
    return min(max(frames_per_second, low), high)


def encode_video(
    frames: Iterable[np.ndarray], size: tuple[int, int], rate: float, crf: int
) -> bytes:
    """An H.264 MP4 file of uint8 (height width 3) frames with even sides, a key frame every 16.

    One thread, and nothing of time or machine in it: equal frames make equal bytes.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {
            "crf": str(crf),
            "preset": PRESET,
            "x264-params": f"keyint={KEY_FRAME_EVERY}:min-keyint={KEY_FRAME_EVERY}:scenecut=0",
        }
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encode_picture(
    picture: np.ndarray,
    mask: np.ndarray,
    box: tuple[float, ...],
    pixel_aspect: float,
    max_side: int,
) -> bytes:
    """A PNG of what lies in the box, RGBA, transparent where ``mask`` (height width) is not set.

    Square pixels, at most ``max_side`` px; scaled with its alpha, antialiased.
    """
    left, top, right, bottom = (int(corner) for corner in box)
    alpha = mask[top:bottom, left:right, None].astype(np.uint8)
    cut = np.concatenate([picture[top:bottom, left:right] * alpha, alpha * 255], axis=-1)
    image = Image.fromarray(cut)
    height, width = cut.shape[0], cut.shape[1] * pixel_aspect
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    with contextlib.closing(io.BytesIO()) as buffer:
        image.save(buffer, format="PNG")
        return buffer.getvalue()

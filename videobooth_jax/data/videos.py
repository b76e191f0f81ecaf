"""Videos, read through PyAV straight to the frames and the size wanted.

A file is first walked through without decoding: that gives every frame's time and which frames can
be decoded alone. Frames are then known by their place in display order, also where the rate varies
or frames were stored out of order, and only what lies between a key frame and the last frame wanted
is decoded. What is not wanted is never converted, and what is wanted is scaled by the converter.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError

MAX_SIDE, MAX_PIXELS = 16_384, 8192 * 4608
"""Larger videos are refused before a frame of them is decoded, px."""
MAX_FRAMES = 1_000_000
"""Longer ones too."""
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif,h264,hevc,m4v,ivf,mxf"
"""Formats that are read. Playlists are none of them: they would open other files and addresses."""
SEEK = 4
"""Frames that must be saved by it before seeking forward pays."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says of its pictures.

    ``height`` and ``width`` are of the upright picture, px; ``times`` (n,) float64, seconds, those
    of its frames in display order; ``keyframes`` (n,) bool, frames that can be decoded alone;
    ``codec`` as FFmpeg calls it; ``rotation`` in degrees counter-clockwise, already counted in;
    ``pixel_aspect`` width of an upright pixel over its height.
    """

    height: int
    width: int
    times: np.ndarray
    keyframes: np.ndarray
    codec: str
    rotation: int
    pixel_aspect: float

    @property
    def num_frames(self) -> int:
        """How many there are."""
        return len(self.times)

    @property
    def seconds(self) -> float:
        """From the first frame to the last, and the last one's share."""
        n = self.num_frames
        return float(self.times[-1] - self.times[0]) * n / (n - 1) if n > 1 else 0.0

    @property
    def frames_per_second(self) -> float:
        """On average; 0 for a single frame."""
        return self.num_frames / self.seconds if self.seconds else 0.0

    @property
    def variable_rate(self) -> bool:
        """Whether frames lie more unevenly than their times were rounded."""
        gaps = np.diff(self.times)
        return bool(len(gaps) and gaps.max() - gaps.min() > 0.25 * np.median(gaps) + 2e-3)


class Video:
    """An open video; a context manager.

    Attributes:
        info: what the file says.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 1):
        """Open a file, or the bytes of one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no video, has no picture stream, no frames, or far too many or too
                large ones.
        """
        self._name = "the video" if isinstance(source, bytes) else str(source)
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {source}")
        stored = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        try:
            self._container = av.open(stored, "r", options={"format_whitelist": CONTAINERS})
        except (FFmpegError, ValueError) as error:
            raise ValueError(f"{self._name} cannot be read as a video: {_reason(error)}") from error
        try:
            self._stream = self._picture_stream()
            self._stream.thread_count = threads
            self._points, keyframes = self._walk()
            self.info = self._read_info(keyframes)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def read(
        self, indices: Sequence[int] | np.ndarray, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Frames by their place, uint8 (frame height width 3), upright.

        Args:
            indices: in any order, also more than once.
            size: (height, width) that frames are scaled to cover and then cut to around their
                middle; None: as they are.

        Raises:
            IndexError: an index outside the video.
            ValueError: the video is damaged; the first frame that cannot be decoded is named.
        """
        wanted = np.unique(np.asarray(indices, np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.info.num_frames:
            raise IndexError(
                f"frames {wanted[0]} to {wanted[-1]} of {self._name}, which has "
                f"{self.info.num_frames}"
            )

        def show(frame: av.VideoFrame) -> np.ndarray:
            return upright(frame) if size is None else covering(frame, size)

        pictures = {index: show(frame) for index, frame in self.frames(wanted)}
        if len({picture.shape for picture in pictures.values()}) > 1:
            raise ValueError(f"{self._name} changes its size as it runs")
        return np.stack([pictures[int(index)] for index in indices])

    def frames(
        self, indices: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decoded frames with their places, not yet turned upright, ascending.

        Args:
            indices: ascending, each once; None: all.

        Raises:
            ValueError: as `read`.
        """
        wanted = range(self.info.num_frames) if indices is None else [int(i) for i in indices]
        keys = np.flatnonzero(self.info.keyframes)
        start = 0
        while start < len(wanted):
            stop = (
                start + 1
            )  # go on to the next wanted frame unless seeking saves more than it costs
            while stop < len(wanted) and _key_before(keys, wanted[stop]) - wanted[stop - 1] < SEEK:
                stop += 1
            yield from self._run(wanted[start:stop], _key_before(keys, wanted[start]))
            start = stop

    def _run(self, wanted: Sequence[int], key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from frame ``key``, or where seeking went too far from the first, to the last
        wanted.
        """
        places = {int(self._points[index]): index for index in wanted}
        reason = ""
        for start in sorted({key, 0}, reverse=True):
            self._container.seek(int(self._points[start]), stream=self._stream)
            try:
                for frame in self._container.decode(self._stream):
                    if frame.pts in places:
                        yield places.pop(frame.pts), frame
                    if not places:
                        return
            except FFmpegError as error:
                reason = f": {_reason(error)}"
        raise ValueError(
            f"{self._name} is damaged: frame {min(places.values())} of {len(self._points)} cannot "
            f"be decoded{reason}"
        )

    def _picture_stream(self) -> av.VideoStream:
        """The first stream of moving pictures; the cover of a song is none."""
        for stream in self._container.streams.video:
            if not int(stream.disposition) & int(av.stream.Disposition.attached_pic):
                return stream
        kinds = ", ".join(sorted({stream.type for stream in self._container.streams}))
        raise ValueError(f"{self._name} has no pictures, only {kinds or 'nothing'}")

    def _walk(self) -> tuple[np.ndarray, np.ndarray]:
        """Time stamps of all frames in display order, and which of them are key frames."""
        found: dict[int, bool] = {}
        with contextlib.suppress(FFmpegError):  # of a cut file, what comes before the cut
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    found[packet.pts] = packet.is_keyframe
                if len(found) > MAX_FRAMES:
                    raise ValueError(f"{self._name} has more than {MAX_FRAMES} frames")
        if not found:
            raise ValueError(f"{self._name} has no frames")
        points = np.array(sorted(found), np.int64)
        return points, np.array([found[int(point)] for point in points])

    def _read_info(self, keyframes: np.ndarray) -> VideoInfo:
        """Decode one frame to see how large it is and which way is up."""
        context, base = self._stream.codec_context, self._stream.time_base
        if max(context.height, context.width) > MAX_SIDE or (
            context.height * context.width > MAX_PIXELS
        ):
            raise ValueError(
                f"{self._name} is too large: {context.width}x{context.height} px, at most "
                f"{MAX_PIXELS // 1_000_000} million pixels are read"
            )
        if base is None:
            raise ValueError(f"{self._name} does not say when its frames are shown")
        first = int(np.argmax(keyframes))
        frame = next(self._run([first], first))[1]
        sides = (frame.height, frame.width)
        aspect = float(self._stream.sample_aspect_ratio or 1) or 1.0
        if turns(frame.rotation) % 2:
            sides, aspect = sides[::-1], 1 / aspect
        times = self._points * float(base)
        return VideoInfo(
            *sides, times, keyframes, context.codec.name, frame.rotation, pixel_aspect=aspect
        )


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A frame as it is shown, uint8 (height width 3)."""
    return np.rot90(frame.to_ndarray(format="rgb24"), turns(frame.rotation))


def covering(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """An upright frame scaled to cover ``size`` (height, width) and cut to it around its middle,
    uint8 (height width 3). The published trainers do the same to every video.
    """
    quarters = turns(frame.rotation)
    height, width = size[::-1] if quarters % 2 else size
    scale = max(height / frame.height, width / frame.width)
    tall, wide = round(scale * frame.height), round(scale * frame.width)
    scaled = frame.reformat(
        wide, tall, format="rgb24", interpolation="AREA" if scale < 1 else "BICUBIC"
    )
    top, left = (tall - height) // 2, (wide - width) // 2
    return np.rot90(scaled.to_ndarray()[top : top + height, left : left + width], quarters)


def turns(rotation: int) -> int:
    """Quarter turns counter-clockwise that make frames of a ``rotation``, degrees, upright."""
    return round(rotation / 90) % 4


def _key_before(keys: np.ndarray, index: int) -> int:
    """The last key frame that is not after frame ``index``; 0 if there is none."""
    place = int(np.searchsorted(keys, index, side="right"))
    return int(keys[place - 1]) if place else 0


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

"""Finished videos to files people open: .mp4, .gif, .webp, and a .png contact sheet.

Files appear whole or not at all: each is written beside its place under another name and then
moved. Small videos are enlarged by a whole factor, every pixel a square, so that 32 x 32 is
watchable.
"""

import contextlib
import dataclasses
import functools
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videobooth_jax.typing import Frames

_SHEET_GAP = 4


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """H.264 with 4:2:0 chroma, which every player opens; odd sizes repeat their last line."""
    frames = np.pad(
        frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge"
    )
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _write_animation(path: Path, frames: np.ndarray, fps: float, kind: str) -> None:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(
        path,
        format=kind,
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
        **({"quality": 90} if kind == "WEBP" else {}),
    )


def _write_sheet(path: Path, sheet: np.ndarray, fps: float) -> None:
    Image.fromarray(sheet).save(path, format="PNG")


@dataclasses.dataclass(frozen=True)
class _Format:
    """How to write one file, and the shorter side in pixels that small videos are enlarged to."""

    write: Callable[[Path, np.ndarray, float], None]
    side: int = 256
    sheet: bool = False


FORMATS: dict[str, _Format] = {
    ".mp4": _Format(_write_mp4),
    ".gif": _Format(functools.partial(_write_animation, kind="GIF")),
    ".webp": _Format(functools.partial(_write_animation, kind="WEBP")),
    ".png": _Format(_write_sheet, side=96, sheet=True),
}
"""Suffix -> format. A ``.png`` holds all videos, one row each; the others one video per file."""


def output_paths(path: str | os.PathLike[str], count: int = 1) -> list[Path]:
    """The files that ``count`` videos saved as ``path`` become: ``path``, or ``name_0.mp4`` etc.

    Raises:
        ValueError: the suffix names no format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"cannot write {str(path)!r}: the file's ending chooses the format; use one of "
            f"{', '.join(FORMATS)}"
        )
    if count == 1 or FORMATS[suffix].sheet:
        return [path]
    return [path.with_name(f"{path.stem}_{i}{path.suffix}") for i in range(count)]


def check_output(
    path: str | os.PathLike[str], count: int = 1, overwrite: bool = False
) -> list[Path]:
    """Make sure, before any work, that ``count`` videos can be saved as ``path``.

    Returns:
        The files they will become.

    Raises:
        ValueError: the suffix names no format.
        FileExistsError: a file is there already and ``overwrite`` is False.
        OSError: the folder is missing or cannot be written to, or the name is a folder's.
    """
    paths = output_paths(path, count)
    folder = paths[0].parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"cannot write {paths[0]}: there is no folder {folder}; make it first"
        )
    _probe(paths[-1])
    for target in paths:
        if target.is_dir():
            raise IsADirectoryError(f"cannot write {target}: that is a folder; add a file name")
        if target.exists() and not overwrite:
            raise FileExistsError(
                f"{target} already exists: choose another name, or ask for it to be overwritten"
            )
    return paths


def _probe(path: Path) -> None:
    """Make an empty file beside ``path`` and remove it again: permissions alone do not tell."""
    partial = _partial(path)
    try:
        partial.touch()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error
    partial.unlink()


def save_videos(
    path: str | os.PathLike[str],
    frames: Frames,
    fps: float,
    *,
    overwrite: bool = False,
    scale: int | None = None,
) -> list[Path]:
    """Write videos in the format that the suffix of ``path`` names, see `FORMATS`.

    Args:
        path: the file; several videos get numbers before the suffix, except on a contact sheet.
        frames: uint8 (b, f, h, w, 3).
        fps: frames per second.
        overwrite: replace files that exist.
        scale: whole factor by which every pixel is enlarged; None: as much as makes small videos
            watchable.

    Returns:
        The files written.

    Raises:
        ValueError: frames of another shape or dtype, a scale or fps that is not positive, or an
            unknown suffix.
        OSError: see `check_output`, or the disk is full; no half-written file stays behind.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            "frames must be uint8 of shape (batch, frames, height, width, 3), not "
            f"{frames.dtype} of shape {frames.shape}"
        )
    if fps <= 0 or (scale is not None and scale < 1):
        raise ValueError(f"fps must be positive and scale at least 1, not {fps} and {scale}")
    paths = check_output(path, len(frames), overwrite)
    form = FORMATS[paths[0].suffix.lower()]
    factor = scale or max(1, -(-form.side // min(frames.shape[2:4])))
    frames = frames.repeat(factor, axis=2).repeat(factor, axis=3)
    images = [contact_sheet(frames)] if form.sheet else list(frames)
    with written_whole(paths) as partials:
        for partial, image in zip(partials, images, strict=True):
            form.write(partial, image, fps)
    return paths


def contact_sheet(frames: Frames) -> np.ndarray:
    """All frames on white, one row per video: uint8 (height, width, 3)."""
    gap = ((0, 0), (0, 0), (0, _SHEET_GAP), (0, _SHEET_GAP), (0, 0))
    cells = np.pad(frames, gap, constant_values=255)
    b, f, h, w, _ = cells.shape
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(b * h, f * w, 3)
    return np.pad(sheet, ((_SHEET_GAP, 0), (_SHEET_GAP, 0), (0, 0)), constant_values=255)


def _partial(path: Path) -> Path:
    """A name beside ``path`` that nobody else takes, on another machine either."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


@contextlib.contextmanager
def written_whole(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Names to write to; moved to ``paths`` when all are complete, removed when one fails."""
    partials = [_partial(path) for path in paths]
    try:
        yield partials
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)

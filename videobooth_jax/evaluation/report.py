"""What a suite found: shares with intervals, a row for every video, and the files people open.

``result.json`` holds everything that was measured and how the videos were made; ``videos.png``
shows the first videos, unpicked. Both appear whole or not at all.
"""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videobooth_jax.evaluation.intervals import wilson
from videobooth_jax.typing import Frames

RESULT, SHEET = "result.json", "videos.png"
_CELL, _GAP, _TEXT, _COLUMNS = 64, 4, 12, 2  # px, px, px, rows side by side


@dataclasses.dataclass(frozen=True)
class VideoRow:
    """One video: what was asked for, and what the measures saw.

    Attributes:
        index: its place in the suite.
        prompt, subject, noun: the words.
        asked, seen: measure -> answer ("identity" -> "noto", "motion" -> "left", ...).
        distances: design -> distance of the video to it, see `sprite_measures.identity`.
    """

    index: int
    prompt: str
    subject: str
    noun: str
    asked: dict[str, str]
    seen: dict[str, str]
    distances: dict[str, float]

    def wrong(self) -> list[str]:
        """The measures that did not see what was asked for."""
        return [measure for measure, answer in self.asked.items() if self.seen[measure] != answer]


@dataclasses.dataclass(frozen=True)
class Share:
    """How many of how many are right, and the 95 % Wilson interval of the share, 0..1."""

    right: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, total: int) -> "Share":
        """The share and its interval."""
        return cls(right, total, right / total, *wilson(right, total))

    def __str__(self) -> str:
        return (
            f"{self.share:6.1%}  (95 %: {self.low:.1%} to {self.high:.1%}; "
            f"{self.right} of {self.total})"
        )


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """All figures of one run of a suite.

    Attributes:
        suite, model: their names.
        injection: what the picture did; "truth": the world's own videos were measured.
        split, videos, seed: which examples.
        sampling: sampler, steps and guidance; empty for "truth".
        world: the world's configuration.
        seconds: wall-clock time of making and of measuring all videos.
        shares: measure -> share of videos that are right.
        rows: one per video, in order.
    """

    suite: str
    model: str
    injection: str
    split: str
    videos: int
    seed: int
    sampling: dict[str, Any]
    world: dict[str, Any]
    seconds: dict[str, float]
    shares: dict[str, Share]
    rows: tuple[VideoRow, ...]

    def to_json(self) -> str:
        """Everything, as indented JSON text; one line per video."""
        values = dataclasses.asdict(self)
        rows = ",\n  ".join(json.dumps(row) for row in values.pop("rows"))
        return json.dumps(values, indent=1)[:-2] + f',\n "rows": [\n  {rows}\n ]\n}}\n'

    def summary(self) -> str:
        """The shares, a line each, for the console."""
        head = f"{self.suite}, {self.injection}: {self.videos} videos of {self.split} nouns"
        width = max(map(len, self.shares))
        return "\n".join([head, *(f"  {n:<{width}}  {s}" for n, s in self.shares.items())])


def shares_of(rows: Sequence[VideoRow]) -> dict[str, Share]:
    """For every measure the share of rows that are right. ``rows`` must not be empty."""
    wrong = [measure for row in rows for measure in row.wrong()]
    total = len(rows)
    return {measure: Share.of(total - wrong.count(measure), total) for measure in rows[0].asked}


def save_report(
    folder: str | os.PathLike[str],
    result: SuiteResult,
    pictures: Sequence[np.ndarray],
    frames: Frames,
) -> None:
    """Write ``result.json``, and ``videos.png`` with the rows that ``frames`` holds, into a folder.

    Args:
        folder: made if need be; files of an earlier report are replaced.
        result: the figures.
        pictures: image prompts uint8 (h, w, 3) of the first b rows.
        frames: their videos, uint8 (b, f, h, w, 3).

    Raises:
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    captions = [_caption(row) for row in result.rows[: len(frames)]]
    png = io.BytesIO()
    contact_sheet(pictures, frames, captions).save(png, format="PNG", optimize=True)
    _replace(folder / SHEET, png.getvalue())
    _replace(folder / RESULT, result.to_json().encode())


def contact_sheet(
    pictures: Sequence[np.ndarray], frames: Frames, captions: Sequence[str]
) -> Image.Image:
    """One row per video, two rows side by side: the image prompt, the frames, a caption under them.

    Args:
        pictures: b pictures uint8 (h, w, 3).
        frames: uint8 (b, f, h, w, 3).
        captions: b lines.
    """
    strips = [_strip(*row) for row in zip(pictures, frames, captions, strict=True)]
    width, height = strips[0].width + 4 * _GAP, strips[0].height + _GAP
    lines = -(-len(strips) // _COLUMNS)
    columns = min(_COLUMNS, len(strips))
    sheet = Image.new("RGB", (columns * width, lines * height + _GAP), "white")
    for i, strip in enumerate(strips):
        column, line = divmod(i, lines)
        sheet.paste(strip, (column * width + 2 * _GAP, line * height + _GAP))
    return sheet


def _strip(picture: np.ndarray, video: np.ndarray, caption: str) -> Image.Image:
    """The image prompt, a gap, all frames of a video; the caption under them."""
    cells = np.concatenate([picture[None], video])
    factor = max(1, -(-_CELL // min(cells.shape[1:3])))
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = cells.shape[1:3]
    strip = Image.new(
        "RGB", (len(cells) * (width + _GAP) + 2 * _GAP, height + _TEXT + 2 * _GAP), "white"
    )
    for i, cell in enumerate(cells):
        strip.paste(Image.fromarray(cell), (i * (width + _GAP) + 3 * _GAP * (i > 0), 0))
    font = ImageFont.load_default(size=_TEXT)
    ImageDraw.Draw(strip).text((0, height), caption, fill="black", font=font)
    return strip


def _caption(row: VideoRow) -> str:
    wrong = ", ".join(f"{measure}: {row.seen[measure]}" for measure in row.wrong())
    return row.prompt + (f"   (wrong {wrong})" if wrong else "")


def _replace(path: Path, content: bytes) -> None:
    """Write a file under another name beside it, then move it into place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

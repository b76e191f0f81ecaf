"""What a prepared dataset says of itself: a line for every input, a card, a sheet of samples."""

import collections
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videobooth_jax.data.clip_records import DATASET, ClipRecord
from videobooth_jax.data.videos import Video
from videobooth_jax.preparation.clip import Outcome
from videobooth_jax.preparation.inputs import REASONS, ClipInput, count_reasons

REPORT, CARD, SHEET = "report.jsonl", "README.md", "samples.png"
SHEET_ROWS, CELL, GAP, TEXT = 12, 160, 6, 14
"""Clips on the sheet of samples; px of a picture, between pictures, and of a line of text."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One input's line of the report; ``split`` is empty where it was set aside."""

    input: str
    id: str
    split: str
    reason: str
    why: str
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, given: ClipInput, outcome: Outcome, split: str) -> "Line":
        """What is said of an input."""
        split = split if outcome.accepted else ""
        return cls(given.place, given.id, split, outcome.reason, outcome.why, outcome.facts)

    def to_json(self) -> str:
        """One line, the reasons only where there are some."""
        values = {"accepted": not self.reason, **dataclasses.asdict(self)}
        return json.dumps({k: v for k, v in values.items() if v != ""}, ensure_ascii=False) + "\n"


@dataclasses.dataclass
class Counts:
    """What the card tells, gathered line by line."""

    accepted: int = 0
    splits: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    licences: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    subjects: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, line: Line) -> None:
        """Count one input."""
        if line.reason:
            self.reasons[line.reason] += 1
            return
        self.accepted += 1
        self.splits[line.split] += 1
        self.licences[line.facts.get("licence") or "not stated"] += 1
        self.subjects[line.facts["subject"].lower()] += 1

    @property
    def set_aside(self) -> int:
        """How many were not accepted."""
        return self.reasons.total()

    def summary(self) -> str:
        """``N clips, M set aside (reason: n, ...)``."""
        reasons = count_reasons(self.reasons.elements())
        why = f" ({', '.join(f'{name}: {n}' for name, n in reasons.items())})" if reasons else ""
        clips = "1 clip" if self.accepted == 1 else f"{self.accepted} clips"
        return f"{clips}, {self.set_aside} set aside{why}"


def write_report(path: Path, lines: Iterable[Line]) -> Counts:
    """Write all lines, in the order of the inputs, and count them."""
    counts = Counts()
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            counts.add(line)
            file.write(line.to_json())
    return counts


def write_card(
    path: Path, counts: Counts, config: Mapping[str, Any], versions: Mapping[str, str]
) -> None:
    """A page of Markdown that says what is in the dataset and how it was made."""
    given = counts.accepted + counts.set_aside
    reasons = count_reasons(counts.reasons.elements())
    tables: list[tuple[str, Sequence[str], Iterable[Sequence[Any]]]] = [
        ("Splits", ("split", "clips"), sorted(counts.splits.items())),
        (
            "Set aside",
            ("reason", "inputs", "meaning"),
            [(name, n, REASONS.get(name, "")) for name, n in reasons.items()],
        ),
        ("Licences", ("licence", "clips"), counts.licences.most_common()),
        ("Subjects", ("subject", "clips"), counts.subjects.most_common(50)),
        ("Configuration", ("field", "value"), config.items()),
        ("Versions", ("library", "version"), versions.items()),
    ]
    text = (
        f"# {DATASET}\n\n{counts.summary()}, of {given} inputs. Made by `videobooth prepare`. "
        f"`{REPORT}` has a line for every input with what was measured of it; `sha256sum -c "
        f"SHA256SUMS` checks the files. The videos remain under their own licences.\n\n"
        f"![first, middle and last frame of some clips, and their subjects]({SHEET})\n"
    )
    path.write_text(text + "".join(_table(*table) for table in tables), encoding="utf-8")


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [" | ".join(_cell(value) for value in row) for row in rows]
    if not lines:
        return ""
    rule = " | ".join("---" for _ in header)
    return (
        f"\n## {title}\n\n"
        + "\n".join(f"| {r} |" for r in (" | ".join(header), rule, *lines))
        + "\n"
    )


def _cell(value: Any) -> str:
    """Text that stays in its cell and is no markup."""
    text = " ".join(str(value).split())[:120]
    return "".join(f"\\{c}" if c in "|<>`[]*_\\" else c for c in text) or "none"


def sample_numbers(count: int) -> list[int]:
    """Which of ``count`` clips are shown: up to `SHEET_ROWS`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, SHEET_ROWS)).astype(int)).tolist()


def write_sheet(path: Path, records: Sequence[ClipRecord]) -> None:
    """First, middle and last frame and the cut-out on white of each clip, two clips a row."""
    strips = [_strip(record) for record in records]
    height, width = strips[0].height, strips[0].width
    columns = min(2, len(strips))
    sheet = Image.new("RGB", (columns * width, -(-len(strips) // columns) * height), "white")
    for place, strip in enumerate(strips):
        sheet.paste(strip, (place % columns * width, place // columns * height))
    sheet.save(path, format="PNG")


def _strip(record: ClipRecord) -> Image.Image:
    with Video(record.video) as video:
        frames = video.read([0, record.num_frames // 2, record.num_frames - 1])
    cut = Image.open(io.BytesIO(record.picture))
    white = Image.new("RGBA", cut.size, "white")
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures.append(Image.alpha_composite(white, cut).convert("RGB"))
    pitch = CELL + GAP
    strip = Image.new("RGB", (4 * pitch + 2 * GAP, pitch + TEXT + GAP), "white")
    for place, picture in enumerate(pictures):
        picture = _fitted(picture)
        x, y = (CELL - picture.width) // 2, (CELL - picture.height) // 2
        strip.paste(picture, (GAP + place * pitch + x, TEXT + GAP + y))
    words = f"{record.subject}: {record.caption}"[:100]
    font = ImageFont.load_default(TEXT - 3)
    ImageDraw.Draw(strip).text((GAP, 2), words, "black", font)
    return strip


def _fitted(picture: Image.Image) -> Image.Image:
    """A picture scaled to fit a cell."""
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
    return picture.resize(size, how)

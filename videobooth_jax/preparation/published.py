"""The published dataset as released (`yumingj/VideoBoothDataset`), read as inputs.

``{class}.csv`` names videos (``videoid``, ``page_dir``, ``name``, their caption);
``{class}/{videoid}/mask.json`` is a list of ``{value, label, logit, box}`` beside masks
``mask_{value}.png`` of the first frame; videos lie at ``{page_dir}/{videoid}.mp4`` in a folder of
their own. An entry ``background`` (value 0, no box) is no subject; every other one makes a clip.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videobooth_jax.preparation.inputs import (
    ClipInput,
    SetAside,
    check_text,
    existing,
    one_line,
    plain_id,
    read_box,
    refuse,
    without_duplicates,
)
from videobooth_jax.preparation.reading import csv_rows, read_text

NEEDED = ("videoid", "page_dir", "name")


def read_published(root: str | Path, video_root: str | Path) -> list[ClipInput]:
    """One input per video and subject, by class, row and value.

    Raises:
        FileNotFoundError: one of the folders is missing.
        ValueError: there is no table in ``root``, or one lacks its columns.
    """
    root, video_root = Path(root), Path(video_root)
    for folder in (root, video_root):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    tables = sorted(root.glob("*.csv"))
    if not tables:
        raise ValueError(f"{root} holds no table CLASS.csv: is it where the dataset was unpacked?")
    found = [given for table in tables for given in _read_class(table, video_root)]
    if not found:
        raise ValueError(f"the tables of {root} are empty")
    return without_duplicates(found)


def _read_class(table: Path, video_root: Path) -> Iterator[ClipInput]:
    for place, row in csv_rows(read_text(table), table, NEEDED):
        if isinstance(row, SetAside):
            yield refuse(place, place, row)
            continue
        name = f"{table.stem}-{row['videoid']}"
        try:
            for entry in _subjects(table.parent, f"{table.stem}/{row['videoid']}", row):
                yield _subject(table, row, entry, place, video_root)
        except SetAside as finding:
            yield refuse(place, name, finding)


def _subjects(root: Path, folder: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a video's mask.json that are subjects."""
    plain_id(row["videoid"])
    check_text(row)
    path = existing(root, f"{folder}/mask.json")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        subjects = [entry for entry in entries if entry["value"] != 0]
        if not all(type(e["value"]) is int and type(e["label"]) is str for e in subjects):
            raise TypeError("a value is no whole number, or a label no text")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"{folder}/mask.json is not as published: {error!r}"
        raise SetAside("bad_row", why) from error
    if not subjects:
        raise SetAside("no_subject", f"{folder}/mask.json names no subject, only background")
    return subjects


def _subject(
    table: Path, row: dict[str, Any], entry: dict[str, Any], place: str, video_root: Path
) -> ClipInput:
    kind, video, value = table.stem, row["videoid"], entry["value"]
    place, name = f"{place} subject {value}", f"{kind}-{video}-{value}"
    try:
        check_text(entry)
        return ClipInput(
            place=place,
            id=plain_id(name),
            video=f"{row['page_dir']}/{video}.mp4",
            video_root=str(video_root),
            caption=one_line(row["name"]),
            subjects=(one_line(entry["label"]),),
            mask=f"{kind}/{video}/mask_{value}.png",
            mask_root=str(table.parent),
            box=read_box(entry.get("box")),
            source="WebVid",
            group=video,
            extra={"class": kind, "logit": entry.get("logit")},
        )
    except SetAside as finding:
        return refuse(place, name, finding)

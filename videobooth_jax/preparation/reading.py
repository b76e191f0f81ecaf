"""Folders and tables of videos, read as inputs."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from videobooth_jax.preparation.inputs import (
    ALIASES,
    NEEDED,
    VIDEO_SUFFIXES,
    ClipInput,
    SetAside,
    existing,
    from_row,
    id_of_path,
    inside,
    refuse,
    without_duplicates,
)

MASK = ".mask.png"
SIDE_SUFFIXES = (MASK, ".txt", ".json")
"""Beside ``cat.mp4``: ``cat.txt`` its caption, ``cat.json`` columns, ``cat.mask.png`` its mask."""


def read_inputs(path: str | Path) -> list[ClipInput]:
    """All videos of a folder, or all rows of a ``.csv`` or ``.jsonl`` table, in order.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: a table without the columns needed or not in UTF-8, another kind of file, or
            nothing in it.
    """
    path = Path(path)
    if path.is_dir():
        found = list(_folder(path))
        what = f"a video ({', '.join(sorted(VIDEO_SUFFIXES))})"
    elif path.is_file():
        if path.suffix.lower() not in TABLES:
            raise ValueError(f"{path} is no folder and no table ({' or '.join(TABLES)})")
        rows = TABLES[path.suffix.lower()](read_text(path), path)
        found = [
            from_row(row, place, path.parent)
            if isinstance(row, dict)
            else refuse(place, place, row)
            for place, row in rows
        ]
        what = "a row"
    else:
        raise FileNotFoundError(f"there is no folder and no table {path}")
    if not found:
        raise ValueError(f"{path} does not hold {what}")
    return without_duplicates(found)


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte-order mark; other bytes become lone surrogates.

    Raises:
        ValueError: it is UTF-16 or UTF-32.
    """
    stored = path.read_bytes()
    if stored.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in stored[:4]:
        raise ValueError(f"{path} is not UTF-8 but UTF-16 or UTF-32: save it as UTF-8")
    return stored.decode("utf-8-sig", errors="surrogateescape")


Rows = Iterator[tuple[str, dict[str, Any] | SetAside]]


def csv_rows(text: str, path: Path, needed: tuple[str, ...] = NEEDED) -> Rows:
    """Rows of a CSV table with their places, or why a row cannot be read.

    Raises:
        ValueError: the header lacks a needed column, or has one twice.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"{path}: the header is no CSV: {error}") from error
    known = [ALIASES.get(name, name) for name in header]
    if missing := [name for name in needed if name not in known]:
        raise ValueError(
            f"{path} has no column {' and no column '.join(missing)}; its columns are "
            f"{', '.join(header) or 'none'}"
        )
    if len(set(known)) < len(known):
        raise ValueError(f"{path} has a column twice: {', '.join(header)}")
    while True:
        line = reader.line_num + 1
        place = f"{path.name} line {line}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, SetAside("bad_row", f"line {line} is no CSV: {error}")
            continue
        if not values:
            continue
        if len(values) != len(header):
            why = f"line {line} has {len(values)} values for {len(header)} columns"
            yield place, SetAside("bad_row", why)
        else:
            yield place, dict(zip(header, values, strict=True))


def _jsonl_rows(text: str, path: Path) -> Rows:
    rows: list[tuple[str, dict[str, Any] | SetAside]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append((f"{path.name} line {number}", _json_object(line, f"line {number}")))
    objects = [row for _, row in rows if isinstance(row, dict)]
    for column in NEEDED:
        if rows and not any(column in row for row in objects):
            raise ValueError(
                f"no line of {path} is a JSON object with {column!r}: each must be like "
                '{"video": "cat.mp4", "caption": "a cat sleeps"}'
            )
    yield from rows


TABLES: dict[str, Callable[[str, Path], Rows]] = {".csv": csv_rows, ".jsonl": _jsonl_rows}


def _json_object(text: str, name: str) -> dict[str, Any] | SetAside:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return SetAside("bad_row", f"{name} is no JSON: {error}")
    return value if isinstance(value, dict) else SetAside("bad_row", f"{name} is no JSON object")


def _folder(root: Path) -> Iterator[ClipInput]:
    """Every video below ``root``, side files that no video belongs to, and linked folders outside
    of it, which are not entered, by path.
    """
    names = sorted(
        str(p.relative_to(root).as_posix())
        for p in root.rglob("*")
        if p.is_symlink() or not p.is_dir()
    )
    stems = {Path(n).with_suffix("").as_posix() for n in names if _is_video(n)}
    for name in names:
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if (root / name).is_dir():
            yield from _linked(root, name)
        elif _is_video(name):
            yield _with_side_files(root, name)
        elif (stem := _side_stem(name)) is not None and stem not in stems:
            yield refuse(name, name, SetAside("missing_file", f"no video lies beside {name}"))


def _linked(root: Path, name: str) -> Iterator[ClipInput]:
    """A linked folder, refused; nothing where it leads to is below ``root`` anyhow."""
    try:
        inside(root, name)
    except SetAside as finding:
        yield refuse(name, name, finding)


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _side_stem(name: str) -> str | None:
    """What a side file's video is called, without its suffix."""
    for suffix in SIDE_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return None


def _with_side_files(root: Path, name: str) -> ClipInput:
    stem = Path(name).with_suffix("").as_posix()
    row: dict[str, Any] = {}
    try:
        existing(root, name)
        if (root / f"{stem}.json").exists():
            text = read_text(existing(root, f"{stem}.json"))
            said = _json_object(text, f"{stem}.json")
            if isinstance(said, SetAside):
                raise said
            row |= said
        if (root / f"{stem}.txt").exists():
            row.setdefault("caption", read_text(existing(root, f"{stem}.txt")).strip())
        if (root / f"{stem}{MASK}").exists():
            row.setdefault("mask", f"{stem}{MASK}")
    except SetAside as finding:
        return refuse(name, name, finding)
    except (ValueError, OSError) as error:
        return refuse(name, name, SetAside("bad_row", str(error).replace(f"{root}/", "")))
    folder = Path(name).parent
    if isinstance(row.get("mask"), str) and row["mask"] not in ("", f"{stem}{MASK}"):
        row["mask"] = (folder / row["mask"]).as_posix()
    return from_row({"id": id_of_path(name)} | row | {"video": name}, name, root)

"""What is given, one video and subject each, before anything of it is decoded.

Whatever cannot be used becomes an input that is `refused`, with its reason: nothing given is lost.
Ids and paths come from the data and are not trusted: a path never leaves its folder, not even
through links.
"""

import collections
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

REASONS = {
    "bad_row": "a row or side file cannot be read",
    "bad_id": "the id is no plain name",
    "duplicate_id": "an earlier input has that id",
    "outside_folder": "a path leaves its folder",
    "missing_file": "a file is not there",
    "no_caption": "nothing is said of the video",
    "subject_not_in_caption": "the named subject does not occur in the caption",
    "no_subject": "no subject was named or found",
    "bad_mask": "the mask is unreadable, empty or of another size",
    "bad_box": "the box is no box inside the picture",
    "unreadable_video": "the file is no video, or too large a one",
    "damaged_video": "a frame cannot be decoded",
    "too_short": "too few frames",
    "subject_too_small": "the subject takes too little of the picture",
    "subject_too_large": "the subject takes too much of the picture",
    "subject_off_centre": "too much of the subject lies outside the centre square",
    "still": "hardly anything moves",
    "frozen": "too many frames repeat the one before",
    "timed_out": "it took too long",
    "crashed": "the worker died of it",
    "error": "something unforeseen",
}
"""Why an input is set aside."""

COLUMNS = ("video", "caption", "id", "subject", "mask", "box", "mask_frame", "licence", "source")
"""Columns of a table that are understood; others are kept in the facts."""
NEEDED = COLUMNS[:2]
ALIASES = {"license": "licence"}
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv"}
    | {".flv", ".ogv", ".3gp", ".gif"}
)
MAX_ID = 200


class SetAside(Exception):  # noqa: N818
    """An input that cannot be used: ``reason`` of `REASONS` and a sentence."""

    def __init__(self, reason: str, why: str):
        super().__init__(why)
        self.reason, self.why = reason, why


@dataclass(frozen=True)
class ClipInput:
    """One video with its subject, as given.

    Attributes:
        place: where it was named, such as ``clips.csv line 3``.
        id: unique in the dataset.
        video, mask: paths inside ``video_root`` and ``mask_root``; ``mask`` may be empty.
        subjects: candidates in the order to be tried; none: the caption's nouns.
        box: x1, y1, x2, y2 in px of the upright picture.
        mask_frame: the frame that mask and box belong to.
        group: videos of one group go to one split.
        extra: whatever else was said, for the facts.
        refused: (reason, sentence) where it is clear already that it cannot be used.
    """

    place: str
    id: str
    video: str = ""
    video_root: str = ""
    caption: str = ""
    subjects: tuple[str, ...] = ()
    mask: str = ""
    mask_root: str = ""
    box: tuple[float, ...] | None = None
    mask_frame: int = 0
    licence: str = ""
    source: str = ""
    group: str = ""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refused: tuple[str, str] | None = None

    def __post_init__(self):
        """A video on its own is its own group."""
        object.__setattr__(self, "group", self.group or self.id)


def inside(root: str | Path, name: str) -> Path:
    """The path of ``name`` in ``root``.

    Raises:
        SetAside: it is absolute, leads out of ``root`` (through a link, too), or is no path.
    """
    if not name or not name.isprintable() or "\\" in name:
        raise SetAside("outside_folder", f"{name!r} is no path of a file")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SetAside("outside_folder", f"{name} leads out of its folder")
    try:
        whole = Path(root, name).resolve()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "its links go round in a circle"
        raise SetAside("missing_file", f"{name} cannot be followed: {why}") from error
    if not whole.is_relative_to(Path(root).resolve()):
        raise SetAside("outside_folder", f"{name} is a link out of its folder")
    return whole


def existing(root: str | Path, name: str) -> Path:
    """As `inside`, of a plain file that is there."""
    path = inside(root, name)
    try:
        there = path.is_file()
    except OSError as error:  # a name too long, say
        raise SetAside("missing_file", f"{name} cannot be followed: {error.strerror}") from error
    if not there:
        raise SetAside("missing_file", f"there is no file {name}")
    return path


def plain_id(name: str) -> str:
    """``name``, if it is fit to be an id.

    Raises:
        SetAside: it is empty, longer than `MAX_ID`, or has slashes or control characters in it.
    """
    if (
        not 0 < len(name) <= MAX_ID
        or not name.isprintable()
        or set(name) & {"/", "\\"}
        or name in (".", "..")
    ):
        raise SetAside(
            "bad_id", f"the id {name[:MAX_ID]!r} is no plain name of 1 to {MAX_ID} characters"
        )
    return name


def id_of_path(name: str) -> str:
    """An id for a video that has none: its path without the suffix, folders parted by ``__``.

    Of what is no path of a file, such as ``.``, the text as it is.
    """
    path = PurePosixPath(name)
    return str(path.with_suffix("")).replace("/", "__") if path.name else name


def from_row(row: Mapping[str, Any], place: str, root: Path) -> ClipInput:
    """An input of what a table's row or a side file says; refused where that makes no sense."""
    row = {ALIASES.get(name, name): value for name, value in row.items() if value not in (None, "")}
    place = _printable(place)
    name = str(row.get("id") or id_of_path(str(row.get("video", ""))) or place)
    try:
        check_text(row)
        if missing := [column for column in NEEDED if column not in row]:
            reason = "no_caption" if missing == ["caption"] else "bad_row"
            raise SetAside(reason, f"no {' and no '.join(missing)} is given")
        return ClipInput(
            place=place,
            id=plain_id(name),
            video=str(row["video"]),
            video_root=str(root),
            caption=one_line(row["caption"]),
            subjects=_subjects(row.get("subject", ())),
            mask=str(row.get("mask", "")),
            mask_root=str(root),
            box=read_box(row["box"]) if "box" in row else None,
            mask_frame=_frame(row.get("mask_frame", 0)),
            licence=one_line(row.get("licence", "")),
            source=one_line(row.get("source", "")),
            extra={k: v for k, v in row.items() if k not in COLUMNS},
        )
    except SetAside as finding:
        return refuse(place, name, finding)


def refuse(place: str, name: str, finding: SetAside) -> ClipInput:
    """An input that is set aside before any work."""
    return ClipInput(
        _printable(place), _printable(name), refused=(finding.reason, _printable(finding.why))
    )


def without_duplicates(inputs: Iterable[ClipInput]) -> list[ClipInput]:
    """The same inputs, all but the first of an id refused."""
    first: dict[str, str] = {}
    found = []
    for given in inputs:
        if given.refused is None and given.id in first:
            why = f"{first[given.id]} has the id {given.id!r} already: give each an id of its own"
            given = refuse(given.place, given.id, SetAside("duplicate_id", why))
        elif given.refused is None:
            first[given.id] = given.place
        found.append(given)
    return found


def to_json(given: ClipInput) -> str:
    """One line, for `from_json`."""
    return json.dumps(dataclasses.asdict(given))


def from_json(text: str) -> ClipInput:
    """What `to_json` was given."""
    values = json.loads(text)
    lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    return ClipInput(**(values | lists))


def fingerprint(given: ClipInput) -> str:
    """A short hash of all that is given: what is said of it, and its files' sizes and times."""
    values = {
        k: v for k, v in dataclasses.asdict(given).items() if k not in ("video_root", "mask_root")
    }
    for root, name in ((given.video_root, given.video), (given.mask_root, given.mask)):
        try:
            status = inside(root, name).stat() if name else None
        except (SetAside, OSError):
            status = None
        values[f"file {name}"] = status and (status.st_size, status.st_mtime_ns)
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, most frequent first."""
    return dict(sorted(collections.Counter(reasons).items(), key=lambda item: (-item[1], item[0])))


def read_box(value: Any) -> tuple[float, ...]:
    """Four numbers from a list, or from text such as ``1, 2, 3, 4`` or ``[1 2 3 4]``.

    Raises:
        SetAside: they are not four finite numbers.
    """
    parts = re.split(r"[\s,;]+", value.strip("[]() \t")) if isinstance(value, str) else value
    try:
        box = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        box = ()
    if len(box) != 4 or not all(abs(corner) < 1e6 for corner in box):
        raise SetAside("bad_box", f"a box is four numbers x1, y1, x2, y2 in px, not {value!r}")
    return box


def check_text(value: Any) -> None:
    """Raise SetAside unless all text in ``value``, also in lists and dicts, can be stored as UTF-8.

    Bytes of a table that were no UTF-8 were read as lone surrogates; JSON can escape such, too.
    """
    if isinstance(value, str) and not _encodable(value):
        raise SetAside("bad_row", f"{value[:80]!r} is not UTF-8")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            check_text(item)


def one_line(value: Any) -> str:
    """Text with every run of white space one blank."""
    return " ".join(str(value).split())


def _subjects(value: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise SetAside("bad_row", f"a subject is a word or a list of words, not {value!r}")
    return tuple(line for item in value if (line := one_line(item)))


def _frame(value: Any) -> int:
    try:
        frame = int(value)
        whole = frame == float(value)
    except (TypeError, ValueError, OverflowError):
        frame, whole = -1, False
    if frame < 0 or not whole:
        raise SetAside("bad_row", f"mask_frame is a frame's number from 0, not {value!r}")
    return frame


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()

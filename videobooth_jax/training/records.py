"""Figures of a run as text: files of one JSON object a line, whole after any crash."""

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

from etils import epath

from videobooth_jax.paths import is_remote, put_text

Record = dict[str, Any]


class Records:
    """A file of records, in memory and on disk at once.

    Floats are written so that they read back bit for bit; what is not finite becomes null. A file
    of this machine is appended to; object stores cannot append, so there the whole file is put
    anew, which they do in one piece.
    """

    def __init__(self, path: epath.Path, writes: bool = True):
        """Read what is at ``path``; a last line that was cut off by a crash is dropped.

        Without ``writes`` nothing reaches the disk: for processes that only follow.
        """
        self._path, self._writes = path, writes
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.rows: list[Record] = [json.loads(line) for line in whole]
        if len(whole) < len(lines):
            self._put()

    def append(self, row: Record) -> None:
        """Add a record.

        Raises:
            OSError: it cannot be written.
        """
        row = {key: _plain(value) for key, value in row.items()}
        self.rows.append(row)
        if not self._writes:
            return
        if is_remote(self._path):
            self._put()
            return
        with told(self._path), self._path.open("a") as file:
            file.write(_line(row))

    def keep_until(self, step: int) -> None:
        """Drop the records of steps after ``step``: a resumed run makes them again."""
        kept = [row for row in self.rows if row["step"] <= step]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._put()

    def _put(self) -> None:
        """Replace the file in one piece."""
        if not self._writes:
            return
        with told(self._path):
            put_text(self._path, "".join(map(_line, self.rows)))


@contextlib.contextmanager
def told(path: epath.Path) -> Iterator[None]:
    """Say which file an error is about and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written: {error.strerror or error}; make room or give another "
            "folder, then start again: the run goes on from its last checkpoint"
        ) from error


def _line(row: Record) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

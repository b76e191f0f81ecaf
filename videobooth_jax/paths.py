"""Where files go: folders of this machine, and ``gs://`` and its kind through `etils.epath`.

Every path a user gives passes `resolve` once; after that both kinds are used alike.
"""

import os
import re
import uuid
from pathlib import Path

from etils import epath

REMOTE = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
"""Kind of URL -> the package with its file system."""

_KIND = re.compile(r"(?P<kind>[A-Za-z][\w+.-]+):(?P<slashes>/+)")
_HOST = re.compile(r"[\w.@-]{2,}:(?!//)")


def resolve(path: str | os.PathLike[str]) -> epath.Path:
    """An absolute path, ``~`` expanded; URLs such as ``gs://bucket/run`` stay as they are.

    Raises:
        ValueError: a path that means another machine but would become a folder of this one
            (``s3:/run``, ``host:/run``), or a URL of a kind that cannot be read. A real folder of
            such a name is reached by ``./`` before it.
    """
    if is_remote(path):
        kind = os.fspath(path).partition("://")[0]
        if kind not in REMOTE:
            raise ValueError(f"{path}: {kind}:// is not known; known are {_known()}")
        return epath.Path(path)
    if (match := _KIND.match(os.fspath(path))) and match["kind"].lower() in REMOTE:
        raise ValueError(f"{path}: a URL has two slashes; write {match['kind'].lower()}://...")
    if _HOST.match(os.fspath(path)):
        raise ValueError(
            f"{path} looks like a path on another machine; mount it here and give that folder, or "
            f"use one of {_known()}; ./{path} is a folder here"
        )
    return epath.Path(Path(path).expanduser().absolute())


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a URL rather than a file of this machine."""
    return "://" in os.fspath(path)


def put_text(file: epath.Path, text: str) -> None:
    """Write a file whole or not at all, whatever happens on the way: a crash, a full disk.

    Object stores do so by themselves; here it is written beside its place and moved.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    _put(file, text.encode(), "partial")


def put_shared(file: epath.Path, content: bytes) -> None:
    """`put_text` for bytes that several processes may write at once."""
    _put(file, content, f"{uuid.uuid4().hex}.partial")


def _put(file: epath.Path, content: bytes, suffix: str) -> None:
    if is_remote(file):
        file.write_bytes(content)
        return
    draft = file.with_name(f".{file.name}.{suffix}")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def make_private(folder: epath.Path) -> None:
    """Make a folder that is the user's alone; in a bucket, whoever may write to it may do so here.

    Raises:
        OSError: it cannot be made.
        ImportError: the file system of its URL is not installed.
    """
    mode = {} if is_remote(folder) else {"mode": 0o700}
    folder.mkdir(parents=True, exist_ok=True, **mode)


def make_writable(folder: epath.Path, what: str, process: int = 0) -> None:
    """Make ``folder`` and try to write in it, so that a slip shows before hours of work.

    Args:
        folder: a resolved path.
        what: what is to be written there, for the error.
        process: index of this process; each tries a file of its own.

    Raises:
        OSError: it cannot be made or written; of the kind the system reported.
        ImportError: the file system of its URL is not installed.
    """
    probe = folder / f".writable_{process}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            f"{what} cannot be written to {folder}: {error.strerror or error}; "
            "give a folder you may write to"
        ) from error
    except ImportError as error:
        package = REMOTE.get(str(folder).partition("://")[0], "")
        raise ImportError(
            f"{what} cannot be written to {folder}: its file system is not installed; "
            f"pip install {package}"
        ) from error


def _known() -> str:
    return ", ".join(f"{kind}://" for kind in REMOTE)

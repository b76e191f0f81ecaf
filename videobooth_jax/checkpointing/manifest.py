"""The seal of a folder: ``manifest.json``, which lists its files and the arrays stored in them.

Files are listed with sizes and SHA-256 digests, arrays with shapes and dtypes.

It is written last, so a folder without one was never finished. Digests matter because Orbax stores
what zstd cannot compress as it is: a flipped bit in a weight would pass unnoticed. Files behind a
URL (``gs://``) are listed by size alone; object stores keep checksums of their own, and reading
everything twice would cost more than it tells.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from videobooth_jax.paths import is_remote, put_text

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


class DamagedError(ValueError):
    """A folder is unfinished, or its files are not those that were written."""


def seal(
    root: epath.Path,
    parts: Iterable[str],
    arrays: Mapping[str, Any],
    score: float | None = None,
) -> None:
    """Write the manifest of ``root``, whole or not at all; local files are flushed to the disk on
    the way.

    Args:
        root: the folder.
        parts: names of the files and folders in it that the seal covers.
        arrays: the arrays stored in them, or anything with their shapes and dtypes, by name.
        score: how good what is stored is, by a measure of the caller's.

    Raises:
        OSError: a file cannot be read or the manifest not written.
    """
    files = sorted(_files(root, parts), key=str)
    content = {
        "format_version": FORMAT_VERSION,
        "files": {str(file.relative_to(root)): _describe(file, flush=True) for file in files},
        "arrays": {name: [x.shape, jnp.dtype(x.dtype).name] for name, x in arrays.items()},
        "score": score,
    }
    put_text(root / MANIFEST, json.dumps(content))


def check(root: epath.Path, editable: Iterable[str] = ()) -> frozenset[str]:
    """Compare the files of ``root`` with its manifest: sizes of all first, then digests.

    Args:
        root: a sealed folder.
        editable: files that may be changed after sealing.

    Returns:
        Those of ``editable`` that were changed, or may have been (no digest is known).

    Raises:
        DamagedError: no manifest, or another file that is missing, of another size, or of other
            content.
    """
    entries = _read(root)["files"]
    fixed = {name: entry for name, entry in entries.items() if name not in set(editable)}
    for name, entry in fixed.items():
        if not (root / name).is_file():
            raise DamagedError(f"{name} is missing")
        if (size := (root / name).stat().length) != entry["size"]:
            raise DamagedError(f"{name} has {size} bytes, but {entry['size']} were written")
    for name, entry in fixed.items():
        if "sha256" in entry and not _unchanged(root / name, entry):
            raise DamagedError(f"the content of {name} has changed since it was written")
    return frozenset(
        name for name in editable if not _unchanged(root / name, entries.get(name, {}))
    )


def _unchanged(file: epath.Path, entry: dict[str, Any]) -> bool:
    return "sha256" in entry and _describe(file).get("sha256") == entry["sha256"]


def arrays(root: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays in a sealed folder, by name.

    Raises:
        DamagedError: the manifest is missing or unreadable.
    """
    entries = _read(root)["arrays"]
    return {n: jax.ShapeDtypeStruct(shape, jnp.dtype(kind)) for n, (shape, kind) in entries.items()}


def score(root: epath.Path) -> float | None:
    """The score a folder was sealed with; None without one, or if the manifest is damaged."""
    try:
        return _read(root).get("score")
    except DamagedError:
        return None


def is_sealed(root: epath.Path) -> bool:
    """Whether ``root`` was finished, sound or not."""
    return (root / MANIFEST).exists()


def _read(root: epath.Path) -> dict[str, Any]:
    if not is_sealed(root):
        raise DamagedError(f"{MANIFEST} is missing: it was not written or copied to the end")
    try:
        content = json.loads((root / MANIFEST).read_text())
        version = content["format_version"]
        content["files"], content["arrays"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} is not readable ({error})") from error
    if version != FORMAT_VERSION:
        raise DamagedError(
            f"it has format version {version}, and this videobooth_jax reads {FORMAT_VERSION}"
        )
    return content


def _files(root: epath.Path, parts: Iterable[str]) -> Iterator[epath.Path]:
    for path in (root / part for part in parts):
        if path.is_dir():
            yield from _files(path, [child.name for child in path.iterdir()])
        elif path.exists():
            yield path


def _describe(file: epath.Path, flush: bool = False) -> dict[str, Any]:
    size = file.stat().length
    if is_remote(file):
        return {"size": size}
    with Path(file).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if flush:
            os.fsync(stream.fileno())
    return {"size": size, "sha256": digest}

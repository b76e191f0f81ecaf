"""Traced programs on disk, so that a run that starts again need not trace anew.

JAX's cache keeps what the compiler made of a program and finds it by the program's text, for which
every process has to trace and lower its Python first. Here the text itself is kept: StableHLO
written by `jax.export`, in which nothing is a pickle. It is found by all that it was made of: the
sources of this package, the libraries that shape it, JAX's settings, and what the caller names.
Code from elsewhere that a program calls is not among these.
"""

import hashlib
import importlib
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax import export

from videobooth_jax.checkpointing.manifest import DamagedError
from videobooth_jax.paths import is_remote, make_private, put_shared

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
UNRELATED = ("jax_compilation_cache", "jax_persistent_cache", "jax_platforms")
"""Beginnings of settings that say where programs are kept or run, which is in no text; where a
program is to run the caller names."""

_PACKAGE = Path(__file__).parents[1]


class NotKeptError(Exception):
    """A program cannot be written down."""


@dataclass(frozen=True)
class TracedProgram:
    """A function of arrays, traced and lowered for one kind of device.

    Attributes:
        exported: its arguments and results are trees of lists, tuples and dictionaries.
        notes: what else was learned while tracing; anything JSON can hold.
    """

    exported: export.Exported
    notes: Mapping[str, Any] = field(default_factory=dict)


def export_program(
    function: Callable[..., Any], arguments: Sequence[Any], platform: str
) -> export.Exported:
    """Trace ``function`` for ``arguments``; what it raises is raised.

    Raises:
        NotKeptError: `jax.export` refuses it, as it does host callbacks and calls into libraries
            whose interfaces are not kept stable (cuDNN).
    """
    jitted: Any = jax.jit(function)
    jitted.trace(*arguments)  # an error of the function's own is told here
    try:
        return export.export(jitted, platforms=[platform])(*arguments)
    except (NotImplementedError, ValueError) as error:
        raise NotKeptError(str(error)) from error


def kept_program(
    folder: epath.Path, name: str, made_of: Sequence[str], trace: Callable[[], TracedProgram]
) -> TracedProgram:
    """The program in ``folder`` that was made of the same things, or else what ``trace`` gives,
    which is kept there.

    Always what was written is read, so that every process of a run, and every run, compiles the
    same text, whoever traced it. A damaged file is named, and made anew; where nothing can be read
    or written, a warning says so. Into a bucket one process of a run writes for all.

    Args:
        folder: only the user may write there: who else could, could make this process run theirs.
        name: what the program is, for people who look into the folder.
        made_of: all that ``trace`` depends on beside this package's sources and JAX's settings.
        trace: makes the program; what it raises is raised.

    Raises:
        NotKeptError: the program cannot be written down.
    """
    file = folder / f"{re.sub(r'[^0-9A-Za-z_.-]', '_', name)[:64]}-{_key(made_of)}.program"
    if found := _found(file):
        return found
    content = _content(trace())
    if jax.process_index() == 0 or not is_remote(folder):
        try:
            make_private(folder)
            put_shared(file, content)
        except Exception as error:  # each kind of file system has errors of its own
            warnings.warn(f"traced programs cannot be kept in {folder}: {error}", stacklevel=2)
    return _parse(content)


def surroundings() -> tuple[tuple[str, str], ...]:
    """JAX's settings as they are now, of this thread, but for `UNRELATED` ones."""
    settings = jax.config.values.items()
    return tuple((n, repr(value)) for n, value in settings if not n.startswith(UNRELATED))


def _key(made_of: Sequence[str]) -> str:
    """Raises NotKeptError: there are no sources to tell one version from another by."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    if not sources:
        raise NotKeptError("the package was installed without its sources")
    parts = [
        *(f"{path.relative_to(_PACKAGE)} {_digest(path.read_bytes())}" for path in sources),
        *(f"{name} {importlib.import_module(name).__version__}" for name in LIBRARIES),
        *map(str, surroundings()),
        *made_of,
    ]
    return _digest("\n".join(_digest(part.encode()) for part in parts).encode())[:32]


def _found(file: epath.Path) -> TracedProgram | None:
    try:
        return _parse(file.read_bytes()) if file.exists() else None
    except Exception as error:  # each kind of file system has errors of its own
        warnings.warn(f"{file}: {error}; the program is traced anew", stacklevel=3)
        return None


def _content(traced: TracedProgram) -> bytes:
    """A digest, the notes, the text; the first two a line each.

    Raises:
        NotKeptError: arguments or results are of types that have no written form.
    """
    try:
        text = bytes(traced.exported.serialize())
    except (NotImplementedError, ValueError) as error:
        raise NotKeptError(str(error)) from error
    body = json.dumps(dict(traced.notes)).encode() + b"\n" + text
    return _digest(body).encode() + b"\n" + body


def _parse(content: bytes) -> TracedProgram:
    """Raises DamagedError: this is not what was written."""
    digest, _, body = content.partition(b"\n")
    if digest != _digest(body).encode():
        raise DamagedError("it is damaged or unfinished")
    notes, _, text = body.partition(b"\n")
    return TracedProgram(export.deserialize(bytearray(text)), json.loads(notes))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

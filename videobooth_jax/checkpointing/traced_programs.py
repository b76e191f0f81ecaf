"""Traced programs on disk, so that a run that starts again need not trace anew.

JAX's cache keeps what the compiler made of a program and finds it by the program's text, for which
every process has to trace and lower its Python first. Here the text itself is kept: StableHLO
written by `jax.export`, in which nothing is a pickle. It is found by all that it was made of: the
sources of this package, the libraries that shape it, JAX's settings, and what the caller names.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax import export

from videobooth_jax.checkpointing.manifest import DamagedError
from videobooth_jax.checkpointing.paths import put_bytes
from videobooth_jax.compilation_cache import make_private

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
UNRELATED = ("jax_compilation_cache", "jax_persistent_cache", "jax_platforms")
"""Beginnings of settings that say where programs are kept or run, which is in no text; where a
program is to run the caller names."""

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class TracedProgram:
    """A function of arrays, traced and lowered for one kind of device.

    Attributes:
        exported: its arguments and results are trees of lists, tuples and dictionaries.
        notes: what else was learned while tracing; anything JSON can hold.
    """

    exported: export.Exported
    notes: Mapping[str, Any] = field(default_factory=dict)


def kept_program(
    folder: epath.Path, name: str, made_of: Sequence[str], trace: Callable[[], TracedProgram]
) -> TracedProgram:
    """The program in ``folder`` that was made of the same things, or else what ``trace`` gives,
    which is kept there.

    Always what was written is read, so that every process of a run, and every run, compiles the
    same text, whoever traced it. A damaged file is named, and made anew; where nothing can be
    written, a warning says so.

    Args:
        folder: only the user may write there: who else could, could make this process run theirs.
        name: what the program is, for people who look into the folder.
        made_of: all that ``trace`` depends on beside the sources and JAX's settings.
        trace: makes the program; what it raises is raised.
    """
    file = folder / f"{name}-{_key(made_of)}.program"
    if file.exists():
        try:
            return _parse(file.read_bytes())
        except (DamagedError, OSError) as error:
            warnings.warn(f"{file}: {error}; the program is traced anew", stacklevel=2)
    content = _content(trace())
    try:
        make_private(folder)
        put_bytes(file, content)
    except OSError as error:
        warnings.warn(f"traced programs cannot be kept in {folder}: {error}", stacklevel=2)
    return _parse(content)


def _key(made_of: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in (*_surroundings(), *made_of):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def _surroundings() -> list[str]:
    """What every trace depends on: sources, libraries, settings."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    settings = sorted(jax.config.values.items())
    return [
        *(
            f"{p.relative_to(_PACKAGE)} {hashlib.sha256(p.read_bytes()).hexdigest()}"
            for p in sources
        ),
        *(f"{name} {metadata.version(name)}" for name in LIBRARIES),
        *(f"{name} {value!r}" for name, value in settings if not name.startswith(UNRELATED)),
    ]


def _content(traced: TracedProgram) -> bytes:
    """One line of JSON, then the text."""
    text = bytes(traced.exported.serialize())
    head = {"sha256": hashlib.sha256(text).hexdigest(), "notes": traced.notes}
    return json.dumps(head).encode() + b"\n" + text


def _parse(content: bytes) -> TracedProgram:
    """Raises DamagedError: this is not what was written."""
    head, _, text = content.partition(b"\n")
    try:
        fields = json.loads(head)
        sound = fields["sha256"] == hashlib.sha256(text).hexdigest()
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise DamagedError("it is damaged or unfinished")
    return TracedProgram(export.deserialize(bytearray(text)), fields["notes"])

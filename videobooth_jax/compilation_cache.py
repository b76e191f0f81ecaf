"""Compiled programs kept on disk, so that only the very first run waits for the compiler.

JAX finds a program again by its content, its compile options, the versions of JAX and XLA and the
machine's features; nothing ever has to be cleared. Importing this package never turns it on. Of a
run of several processes one writes, and all read: they should share the folder.
"""

import os
import warnings
from pathlib import Path

import jax
from etils import epath

SWITCH = "VIDEOBOOTH_CACHE"


def cache_folder() -> epath.Path | None:
    """Where programs are kept: the user's cache folder, or what ``VIDEOBOOTH_CACHE`` says.

    Returns:
        The folder, ``gs://`` and its kind included, that ``VIDEOBOOTH_CACHE`` names, None if it
        says ``off``, and else ``videobooth_jax/programs`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    wish = os.environ.get(SWITCH, "")
    if wish.lower() == "off":
        return None
    if wish:
        return epath.Path(wish).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return epath.Path(caches) / "videobooth_jax" / "programs"


def enable_compilation_cache() -> epath.Path | None:
    """Keep all programs that this process compiles from now on, however quick they were to make.

    A folder already chosen through JAX's own settings is left alone. Whoever may write to the
    folder may make this process run their code: it is made for the user alone.

    Returns:
        The folder in use, or None when there is none: switched off, or, with a warning, not
        writable.
    """
    if chosen := jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return epath.Path(chosen)
    folder = cache_folder()
    if folder is None:
        return None
    try:
        make_private(folder)
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or error
        warnings.warn(
            f"compiled programs cannot be kept in {folder} ({reason}): every run compiles "
            f"anew; set {SWITCH} to a folder of yours",
            stacklevel=2,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def make_private(folder: epath.Path) -> None:
    """Make a folder that is the user's alone; in a bucket, whoever may write to it may do so here.

    Raises:
        OSError: it cannot be made. ImportError: its file system is not installed.
    """
    mode = {} if "://" in str(folder) else {"mode": 0o700}
    folder.mkdir(parents=True, exist_ok=True, **mode)


def traced_programs_folder() -> epath.Path | None:
    """Beside the compiled programs: where traced ones are kept. None where none are."""
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return epath.Path(folder) / "traced" if folder else None

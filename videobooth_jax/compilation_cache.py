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

from videobooth_jax.paths import make_private, resolve

SWITCH = "VIDEOBOOTH_CACHE"


def cache_folder() -> epath.Path | None:
    """Where programs are kept: the user's cache folder, or what ``VIDEOBOOTH_CACHE`` says.

    Returns:
        The folder, ``gs://`` and its kind included, that ``VIDEOBOOTH_CACHE`` names, None if it
        says ``off``, and else ``videobooth_jax/programs`` in ``XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        ValueError: it names what is no folder, see `paths.resolve`.
    """
    wish = os.environ.get(SWITCH, "")
    if wish.lower() == "off":
        return None
    if wish:
        return resolve(wish)
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
    try:
        folder = cache_folder()
        if folder is None:
            return None
        make_private(folder)
    except Exception as error:  # each kind of file system has errors of its own
        warnings.warn(
            f"compiled programs cannot be kept ({error}): every run compiles anew; set {SWITCH} to "
            "a folder of yours",
            stacklevel=2,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def traced_programs_folder() -> epath.Path | None:
    """Beside the compiled programs: where traced ones are kept.

    None where none are: JAX keeps nothing, or is to run functions as they are written.
    """
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    kept = folder and jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    return epath.Path(folder) / "traced" if kept and not is_debugging() else None


def is_debugging() -> bool:
    """Whether JAX is told to run functions line by line, or to say which operation made a NaN;
    neither can be done once a program is traced.
    """
    return any(
        getattr(jax.config, f"jax_{name}") for name in ("disable_jit", "debug_nans", "debug_infs")
    )

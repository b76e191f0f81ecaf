"""Config files, with fields overridden as on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags


def read_config(path: str, overrides: Sequence[str]) -> Any:
    """The ConfigDict that a config file's ``get_config()`` returns, with fields overridden.

    Args:
        path: a Python file, with ``:argument`` after it where its ``get_config`` takes one.
        overrides: ``--config.section.field=value``, or the value as the next item.

    Raises:
        ValueError: an override that names no field, or does not fit its type.
        FileNotFoundError: no such file.
    """
    if not Path(path.split(":")[0]).is_file():
        raise FileNotFoundError(f"there is no config file {path}")
    values = flags.FlagValues()
    argv = ["videobooth", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        unused = values(argv)[1:]
    except (AttributeError, KeyError) as error:
        raise ValueError(_unknown_field(path, overrides)) from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if unused:
        raise ValueError(f"unrecognized arguments: {' '.join(unused)}")
    return values.config


def _unknown_field(path: str, overrides: Sequence[str]) -> str:
    """Which override names a field that its section does not have, and what the section has."""
    for override in overrides:
        section = read_config(path, ())
        for name in override.split("=")[0].split(".")[1:]:
            if not hasattr(section, "keys") or name not in section:
                known = ", ".join(sorted(section)) if hasattr(section, "keys") else "no fields"
                return f"{override}: there is no field {name!r} here; there is {known}"
            section = section[name]
    return f"{path} and {' '.join(overrides)} do not fit together"

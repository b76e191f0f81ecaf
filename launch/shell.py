"""Pieces of shell scripts and YAML, quoted."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

END = "END_OF_INPUT"


def command(*words: str) -> str:
    """Words as one shell command, every word quoted, each option on a line of its own."""
    text = ""
    for word in words:
        text += (" \\\n  " if word.startswith("--") else " ") + shlex.quote(word)
    return text.lstrip()


def with_input(line: str, text: str) -> str:
    """A command that reads ``text`` on its standard input; nothing in it is expanded.

    Raises:
        ValueError: ``text`` contains the line that ends the input.
    """
    if END in text:
        raise ValueError(f"{END} cannot be part of what a command reads")
    return f"{line} <<'{END}'\n{text.rstrip()}\n{END}"


def to_yaml(value: Mapping[str, Any], indent: int = 0) -> str:
    """Mappings, sequences and scalars as block YAML; strings are double-quoted, keys are plain."""
    pad = " " * indent
    return "\n".join(f"{pad}{key}:{_value(item, indent)}" for key, item in value.items())


def _value(value: Any, indent: int) -> str:
    if isinstance(value, Mapping):
        return "\n" + to_yaml(value, indent + 2) if value else " {}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n" + "\n".join(_item(item, indent) for item in value) if value else " []"
    return f" {json.dumps(value)}"


def _item(value: Any, indent: int) -> str:
    pad = " " * indent
    if isinstance(value, Mapping):
        return f"{pad}- {to_yaml(value, indent + 2).lstrip()}"
    return f"{pad}- {json.dumps(value)}"

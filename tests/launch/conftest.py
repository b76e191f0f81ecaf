"""`launch` is used from the checkout, it is no part of the installed package."""

import os
import stat
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: the installed videobooth_jax goes first


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put a script on PATH in the place of a program; the interpreter of the tests is there too."""
    folder = tmp_path / "programs"
    folder.mkdir()
    interpreters = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{folder}:{interpreters}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return put


@pytest.fixture
def calls(programs, tmp_path):
    """Programs that write down their words and standard input and do nothing.

    ``calls.stub(name, script)`` adds one, ``calls()`` lists ``(words, input)``.
    """
    log = tmp_path / "calls"
    log.mkdir()

    class Calls:
        def stub(self, name: str, script: str = "") -> None:
            record = f"""
call={log}/$(printf '%04d' "$(ls {log} | grep -c words)")
input=
[ -p /dev/stdin ] || [ -f /dev/stdin ] && input=$(cat)
printf '%s\\0' {name} "$@" > "$call.words"
printf '%s' "$input" > "$call.input"
"""
            programs(name, record + script)

        def __call__(self) -> list[tuple[list[str], str]]:
            found = sorted(log.glob("*.words"))
            return [
                (f.read_text().split("\0")[:-1], f.with_suffix(".input").read_text()) for f in found
            ]

    return Calls()

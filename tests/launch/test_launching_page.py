"""The commands of docs/launching.md, as far as they can be tried here."""

import os
import re
import shlex
from pathlib import Path

import pytest

from launch import __main__ as cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "launching.md").read_text(encoding="utf-8")
LINES = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)).replace("\\\n", "")
SETTINGS = dict(
    word.split("=", 1)
    for line in re.findall(r"^export (.*)$", LINES, re.M)
    for word in shlex.split(line)
)
COMMANDS = re.findall(r"^python3 -m launch (.*)$", LINES, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_launch_commands_are_understood(command, monkeypatch, capsys):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, os.path.expandvars(value))
    words = [os.path.expandvars(word) for word in shlex.split(command, comments=True)]
    assert cli.main([*words, "--dry-run"]) == 0
    assert "$" not in " ".join(words)
    assert capsys.readouterr().out


def test_every_launcher_has_a_command():
    assert {command.split()[0] for command in COMMANDS} == set(cli.LAUNCHERS)

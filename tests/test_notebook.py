"""The Colab notebook: well formed, short, and every code cell runs, here on a CPU in few steps."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "launch" / "colab" / "videobooth.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]

ENVIRONMENT = {"VIDEOBOOTH_NOTEBOOK_STEPS": "2", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
INSTALL = "pip install"
"""Shell lines with this are left out: the package under test is installed already."""


def shell(command: str, environment: dict[str, str]) -> None:
    """Run a ``!`` line; unlike a notebook, stop if it fails."""
    if INSTALL not in command:
        subprocess.run(["bash", "-euc", command], check=True, env=os.environ | environment)


def as_script(source: str) -> str:
    """A cell as plain Python: ``!command {name}`` becomes a call with the names filled in."""
    lines = source.splitlines()
    return "\n".join(f"shell(f{line[1:]!r})" if line.startswith("!") else line for line in lines)


def stand_in_for_ipython(shown: list[str]) -> dict[str, types.ModuleType]:
    """`IPython.display` as far as the notebook uses it; pictures must exist to be shown."""
    display: Any = types.ModuleType("IPython.display")
    display.Image = lambda path, width=None: Path(path).resolve(strict=True)
    display.display = lambda *pictures: shown.extend(picture.name for picture in pictures)
    return {"IPython": types.ModuleType("IPython"), "IPython.display": display}


def test_is_a_valid_notebook_of_under_ten_cells():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(NOTEBOOK["cells"]) < 10
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert set(cell) >= {"cell_type", "id", "metadata", "source"}
    for cell in CODE:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_the_first_cell_says_in_plain_words_what_device_it_found(capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert NOTEBOOK["cells"][0] is CODE[0]
    exec("".join(CODE[0]["source"]), {})
    assert "No accelerator, just a CPU" in capsys.readouterr().out


@pytest.mark.slow(reason="generates twice and trains both phases for a few steps")
def test_every_code_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = ENVIRONMENT | {
        "VIDEOBOOTH_SOURCE": f"file://{ROOT}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown: list[str] = []
    for name, module in stand_in_for_ipython(shown).items():
        monkeypatch.setitem(sys.modules, name, module)
    namespace: dict[str, Any] = {"shell": lambda command: shell(command, environment)}
    for cell in CODE:
        exec(as_script("".join(cell["source"])), namespace)
    assert shown == ["panda.png", "panda.gif", "mine.gif"]
    assert (tmp_path / "fine" / "model" / "weights").is_dir()

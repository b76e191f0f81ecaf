"""Quoting: what goes in comes out of bash and of a YAML parser."""

import subprocess

import pytest
import yaml

from launch.shell import command, to_yaml, with_input

NASTY = ("plain", "--option=a b", "it's", '"$HOME"', "$(id)", "a\\b", "*", "--x=;|&", "", "ü\n2")


def test_words_survive_bash():
    line = command("printf", r"%s\0", *NASTY)
    made = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert made.stdout.split("\0")[:-1] == list(NASTY)


def test_options_have_lines_of_their_own():
    assert command("a", "b", "--c=1", "d", "--e") == "a b \\\n  --c=1 d \\\n  --e"


def test_input_is_not_expanded():
    script = with_input("cat", "$HOME `id`\n'quoted'\n")
    made = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout == "$HOME `id`\n'quoted'\n"
    with pytest.raises(ValueError, match="END_OF_INPUT"):
        with_input("cat", "a\nEND_OF_INPUT\n")


def test_yaml_is_read_back():
    value = {
        "words": list(NASTY),
        "cloud.google.com/x": "true",
        "numbers": [1, 2.5],
        "flag": True,
        "none": None,
        "empty": {"list": [], "map": {}},
        "items": [{"name": "a", "nested": {"deep": [{"x": 1}, {"y": ["z"]}]}}, {"name": "yes"}],
    }
    assert yaml.safe_load(to_yaml(value)) == value

"""`videobooth prepare`: what it takes, and what it says."""

import json
from pathlib import Path

import pytest
from made_videos import write_folder

from videobooth_jax.cli import main
from videobooth_jax.preparation.config import PrepareConfig, from_values


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("videos"), 3)


def test_it_ends_with_what_it_made_and_where(in_process, videos: Path, tmp_path: Path, capsys):
    command = ["prepare", "--videos", str(videos), "--out", str(tmp_path), "--crf", "30"]
    assert main(command) == 0
    said = capsys.readouterr()
    folder = tmp_path / "videobooth_clips" / "1.0.0"
    assert said.out == f"2 clips, 1 set aside (too_short: 1)\n{folder}\n"
    assert "clip/s" in said.err
    assert json.loads((folder / "prepare.json").read_text())["config"]["crf"] == 30
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_options_stand_over_the_file(in_process, videos: Path, tmp_path: Path):
    file = tmp_path / "my.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'crf': 25, 'resolution': 32, 'timeout': 9})\n"
    )
    command = ["prepare", "--videos", str(videos), "--out", str(tmp_path / "out")]
    assert main([*command, "--config", str(file), "--config.resolution=40", "--crf", "26"]) == 0
    stored = tmp_path / "out" / "videobooth_clips" / "1.0.0" / "prepare.json"
    config = from_values(json.loads(stored.read_text())["config"])
    assert config == PrepareConfig(crf=26, resolution=40, timeout=9.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crf", "60"], "crf is 60; it must lie between 0 and 51"),
        (["--max-frames", "9"], "max_frames 9 is less than min_frames 16"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--video-root", "x"], "--published and --video-root go together"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--config.crf=3"], "changes a --config FILE"),
        (["--config", "gone.py"], "no config file gone.py"),
    ],
)
def test_slips_are_one_sentence(videos: Path, tmp_path: Path, capsys, options, message):
    assert main(["prepare", "--videos", str(videos), "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_dataset_does_not_go_among_the_videos(videos: Path, capsys):
    assert main(["prepare", "--videos", str(videos), "--out", str(videos / "out")]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_a_configuration_has_known_fields_of_known_types():
    for values, message in (
        ({"crff": 1}, "unknown fields"),
        ({"crf": "18"}, "crf must be int"),
        ({"segment": "magic"}, "choose one of auto, given"),
        ({"validation": 2}, "between 0 and 1"),
        ({"timeout": float("nan")}, "must lie between"),
    ):
        with pytest.raises(ValueError, match=message):
            from_values(values)

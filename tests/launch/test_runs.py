"""A run: its two phases, its arguments there and back, and what it refuses."""

import argparse
from pathlib import Path

import pytest

from launch.runs import (
    Run,
    add_run_arguments,
    check_in_bucket,
    check_name,
    check_shared,
    phases,
    run_from,
)

ROOT = Path(__file__).parents[2]


def read(*words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_run_arguments(parser)
    return run_from(*parser.parse_known_args(words))


GIVEN = ("--workdir", "gs://bucket/run/", "--init-from", "gs://bucket/sd14")


def test_the_fine_phase_starts_from_the_coarse_model():
    coarse, fine = phases(read(*GIVEN))
    assert coarse.command() == (
        *("videobooth", "train", "--distributed"),
        *("--config=configs/videobooth_coarse.py", "--workdir=gs://bucket/run/coarse"),
        "--config.init_from=gs://bucket/sd14",
    )
    assert fine.command() == (
        *("videobooth", "train", "--distributed"),
        *("--config=configs/videobooth_fine.py", "--workdir=gs://bucket/run/fine"),
        "--config.init_from=gs://bucket/run/coarse/model",
    )
    assert fine.sealed == "gs://bucket/run/fine/model/manifest.json"


def test_overrides_are_for_both_phases_or_for_one():
    theirs = ("--config.seed=1", "--coarse.steps=2", "--fine.optimizer.learning_rate=3e-4")
    coarse, fine = phases(read(*GIVEN, "--data=gs://bucket/latents", *theirs))
    data = "--config.data.path=gs://bucket/latents"
    assert coarse.overrides[1:] == (data, "--config.seed=1", "--config.steps=2")
    assert fine.overrides[1:] == (data, "--config.seed=1", "--config.optimizer.learning_rate=3e-4")


def test_arguments_there_and_back():
    run = read(
        *GIVEN, "--data", "gs://bucket/latents", "--config.name=it's $HOME", "--fine.steps=5"
    )
    assert read(*run.arguments()) == run
    assert run.on_each_host()[:3] == ("python3", "-m", "launch.train_phases")


def test_configs_are_named_from_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = ROOT / "configs" / "sprites_coarse.py"
    run = read(*GIVEN, f"--coarse={absolute}", "--fine=configs/sprites_fine.py")
    assert (run.coarse, run.fine) == ("configs/sprites_coarse.py", "configs/sprites_fine.py")
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ValueError, match="outside the checkout"):
        read(*GIVEN, "--coarse=mine.py")
    with pytest.raises(ValueError, match="does not exist"):
        read(*GIVEN, "--coarse=nowhere.py")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.steps", "unrecognized"),
        ("--base.steps=4", "unrecognized"),
        ("steps=4", "unrecognized"),
        ("--config.name=two\nlines", "unrecognized"),
        ("--config.init_from=x", "give --init-from instead"),
        ("--fine.init_from=x", "give --init-from instead"),
        ("--config.data.path=x", "give --data instead"),
    ],
)
def test_wrong_overrides(word, message):
    with pytest.raises(ValueError, match=message):
        read(*GIVEN, word)


@pytest.mark.parametrize("name", ["", "Run", "1run", "run-", "a_b", "a b", "a" * 41, "run\n"])
def test_wrong_names(name):
    with pytest.raises(ValueError, match="lower-case letters"):
        check_name(name)


def test_right_names():
    for name in ("a", "run-1", "a" * 40):
        check_name(name)


GOOD = {"workdir": "gs://bucket/run", "init_from": "gs://bucket/sd14", "data": "gs://bucket/lat"}


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize(
    "folder", ["runs/a", "/data/run", "gs://bucket", "gs:/bucket/run", "gs://"]
)
def test_machines_without_a_shared_disk_need_a_bucket(field, folder):
    check_in_bucket(Run(**GOOD))
    option = f"--{field.replace('_', '-')} "
    with pytest.raises(ValueError, match=rf"{option}.*gs://BUCKET/FOLDER"):
        check_in_bucket(Run(**GOOD | {field: folder}))


@pytest.mark.parametrize("folder", ["runs/a", "gs://bucket/run", "/with space/run", "~/run"])
def test_slurm_needs_shared_paths(folder):
    good = {"workdir": "/shared/run", "init_from": "/shared/sd14", "data": ""}
    check_shared(Run(**good))
    with pytest.raises(ValueError, match="absolute path"):
        check_shared(Run(**good | {"workdir": folder}))

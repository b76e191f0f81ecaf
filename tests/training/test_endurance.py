"""Runs that are killed, stopped, or meet a full disk: in the end they leave what an unbroken run
leaves, and what goes wrong is told.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_in
from stand_in import MOMENTS, Numbers, config, go, outcome

from videobooth_jax.checkpointing import SaveError, TrainCheckpoints, manifest
from videobooth_jax.training import records

TESTS = Path(__file__).parents[1]


def start(workdir, *moment):
    """A process of the stand-in run, which gets a signal at a moment if one is given."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, stand_in.__file__, workdir, *map(str, moment)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    go(workdir, config())
    return outcome(workdir)


def check_killed_at(moment, count, workdir, straight):
    killed = start(workdir, moment, count, "SIGKILL")
    killed.communicate(timeout=600)
    assert killed.returncode == -9
    go(workdir, config())
    assert outcome(workdir) == straight


@pytest.mark.parametrize("moment", ["while arrays are written", "half a seal"])
def test_killed_in_a_save_it_ends_as_if_nothing_had_happened(moment, straight, tmp_path):
    check_killed_at(moment, 3, tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(moment, count, straight, tmp_path):
    if moment == "while it compiles":
        count = 1
    check_killed_at(moment, count, tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_at_random_moments(seed, straight, tmp_path):
    rng = random.Random(seed)
    kills = 0
    for _ in range(8):
        process = start(tmp_path)
        for _ in range(rng.choice([0, 1, 1, 2, 3])):  # reports, two steps each
            process.stderr.readline()
            time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        kills += process.returncode == -9
    print(f"seed {seed}: {kills} kills")
    assert kills >= 4
    go(tmp_path, config())
    assert outcome(tmp_path) == straight


def check_stopped_at(moment, count, workdir, straight):
    process = start(workdir, moment, count, "SIGTERM")
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert told.count("SIGTERM: saving and stopping") == 1
    with TrainCheckpoints(workdir / "checkpoints") as checkpoints:
        done = checkpoints.latest_step() or 0
    assert done < stand_in.STEPS
    go(workdir, config())
    metrics, bits, _ = outcome(workdir)
    assert (metrics, bits) == straight[:2]
    return done


def test_stopped_while_it_samples_it_saves_that_very_step(straight, tmp_path):
    assert check_stopped_at("while it samples", 2, tmp_path, straight) == 8


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("moment", sorted({*MOMENTS} - {"half a seal", "half a line"}))
def test_stopped_at_any_moment_it_saves_and_goes_on_later(moment, count, straight, tmp_path):
    count = 1 if moment == "while it compiles" else count
    done = check_stopped_at(moment, count, tmp_path, straight)
    assert done >= (count - 1) * 3


def test_stopped_before_the_first_step_there_is_nothing_to_save(tmp_path):
    state = go(tmp_path, config(), stopped=lambda: True)
    assert int(state.step) == 0
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    straight, tmp_path, caplog
):
    go(tmp_path, config(steps=9))
    newest = tmp_path / "checkpoints" / "00000009"
    data = newest / "data" / "process_0.txt"
    data.write_text(data.read_text().replace("1", "2"))
    go(tmp_path, config())
    assert "checkpoint 9 is damaged" in caplog.text
    assert outcome(tmp_path) == straight


def test_a_full_disk_ends_the_run_with_a_reason_and_it_goes_on_later(
    straight, tmp_path, monkeypatch
):
    seal = manifest.seal

    def full(root, *args):
        if root.name == "00000009":
            raise OSError(28, "No space left on device")
        seal(root, *args)

    monkeypatch.setattr(manifest, "seal", full)
    with pytest.raises(SaveError, match="No space left on device; the one of step 6 is still good"):
        go(tmp_path, config(), data=Numbers(pause=0.05))
    monkeypatch.undo()
    go(tmp_path, config())
    assert outcome(tmp_path) == straight


def test_reports_that_cannot_be_written_end_the_run_with_a_reason(tmp_path, monkeypatch):
    def full(row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "_line", full)
    with pytest.raises(OSError, match=r"speed\.jsonl cannot be written: No space left on device"):
        go(tmp_path, config())

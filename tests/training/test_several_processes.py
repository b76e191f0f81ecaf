"""Several processes on one machine train as one does, through the command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_start

TESTS = Path(__file__).parents[1]
CONFIG = """
import sys
sys.path[:0] = [{tests!r}]
import jax
from ml_collections import ConfigDict
from tiny_run import config_dict

jax.config.update("jax_numpy_dtype_promotion", "strict")

def get_config():
    return config_dict({start!r}, **{overrides!r})
"""
PHASES = {
    "coarse": {
        "trainable": ("projector", "text_kv"),
        "copies": ("text_kv",),
        "objective.kv": "coarse",
        "objective.exemplar": False,
    },
    "fine": {},
}
DEVICES = 4


def write_config(folder, start, **overrides):
    fields = {"mesh.data": -1, "data.batch_size": 4, "steps": 6} | overrides
    path = folder / "config.py"
    text = CONFIG.format(tests=str(TESTS), start=str(start), overrides=fields)
    path.write_text(text)
    return path


def run(config, workdir, count, caches=None):
    """Start the processes of one run, together of `DEVICES` devices; each keeps its programs in a
    folder of its own in ``caches``, if that is given.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={DEVICES // count}"
    flags += " --xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "videobooth_jax.cli", "train"]
    command += [f"--config={config}", f"--workdir={workdir}"]
    join = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count), "--process-id"]
    return [
        subprocess.Popen(
            [*command, *([*join, str(i)] if count > 1 else [])],
            env=os.environ
            | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
            | ({"VIDEOBOOTH_CACHE": str(caches / str(i))} if caches else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def finish(processes, codes):
    """Wait for all; their error outputs."""
    ends = [process.communicate(timeout=500)[1] for process in processes]
    assert [p.returncode for p in processes] == codes, "\n".join(ends)
    return ends


def reports(workdir, name="metrics.jsonl"):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def wait_for_step(workdir, step, processes):
    until = time.monotonic() + 300
    while time.monotonic() < until and all(p.poll() is None for p in processes):
        if (
            (workdir / "metrics.jsonl").exists()
            and reports(workdir)[-1:]
            and (reports(workdir)[-1]["step"] >= step)
        ):
            return
        time.sleep(0.2)
    raise AssertionError("\n".join(p.communicate(timeout=100)[1] for p in processes))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


@pytest.mark.slow
@pytest.mark.parametrize("phase", sorted(PHASES))
def test_two_and_four_processes_make_the_losses_of_one(start, phase, tmp_path):
    held_out = {"validation.every": 3, "validation.batches": 2}
    config = write_config(tmp_path, start, **PHASES[phase], **held_out)
    found = {}
    for count in (1, 2, 4):
        finish(run(config, tmp_path / str(count), count), [0] * count)
        found[count] = reports(tmp_path / str(count))
        found[count] += reports(tmp_path / str(count), "validation.jsonl")
        assert (tmp_path / str(count) / "model" / "manifest.json").exists()
    assert [row["step"] for row in found[1]] == [1, 2, 3, 4, 5, 6, 3, 6]
    for count in (2, 4):
        for one, several in zip(found[1], found[count], strict=True):
            assert one.keys() == several.keys()
            for name in one:
                np.testing.assert_allclose(several[name], one[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_the_others_stop_when_one_is_killed_and_the_run_goes_on_later(start, tmp_path):
    config = write_config(tmp_path, start, steps=4000, checkpoint_every=5)
    workdir = tmp_path / "run"
    processes = run(config, workdir, 2)
    wait_for_step(workdir, 12, processes)
    processes[1].kill()
    killed = time.monotonic()
    processes[0].wait(timeout=120)
    assert time.monotonic() - killed < 120
    error = processes[0].communicate()[1]
    assert processes[0].returncode not in (0, None)
    assert "start all processes again" in error or "distributed service detected" in error, error
    processes = run(config, workdir, 2)
    wait_for_step(workdir, 20, processes)
    processes[1].send_signal(signal.SIGTERM)  # one is told, both save the same step and end well
    errors = finish(processes, [0, 0])
    assert "resumed from step" in errors[0]
    assert "stopped at step" in errors[0]
    assert "stopped at step" not in errors[1]  # one reports for all


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one_of_four(start, tmp_path):
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    finish(run(write_config(tmp_path, start), straight, 1), [0])
    finish(run(write_config(tmp_path, start, steps=3), moved, 2), [0, 0])
    finish(run(write_config(tmp_path, start), moved, 4), [0] * 4)
    for one, other in zip(reports(straight), reports(moved), strict=True):
        np.testing.assert_allclose(other["loss"], one["loss"], rtol=1e-4)


@pytest.mark.slow
def test_a_process_that_traces_joins_one_that_finds_its_program(start, tmp_path):
    config, caches = write_config(tmp_path, start), tmp_path / "caches"
    finish(run(config, tmp_path / "first", 2, caches), [0, 0])
    (program,) = (caches / "1" / "traced").iterdir()
    assert program.read_bytes() == (caches / "0" / "traced" / program.name).read_bytes()
    program.unlink()
    finish(run(config, tmp_path / "again", 2, caches), [0, 0])
    assert reports(tmp_path / "again") == reports(tmp_path / "first")


@pytest.mark.slow
def test_a_mistake_ends_every_process_as_one(start, tmp_path):
    config = write_config(tmp_path, start, **{"data.batch_size": 6})  # over 4 devices
    for error in finish(run(config, tmp_path / "run", 2), [2, 2]):
        assert "a batch of 6 cannot be split evenly" in error
        assert "start all processes again" not in error
        assert "Traceback" not in error

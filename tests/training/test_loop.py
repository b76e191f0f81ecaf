"""The loop end to end at the smallest size.

It learns, freezes what is frozen, resumes bit-exactly, and stops on a signal.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from tiny_model import TOKENIZER_FILE, random_params
from tiny_run import run_config, run_model, write_start

from videobooth_jax.checkpointing import load_model, save_model
from videobooth_jax.sharding import make_mesh
from videobooth_jax.training import loop, phases, program


def flat(params):
    return {p: np.asarray(v) for p, v in traverse_util.flatten_dict(params, sep="/").items()}


def first_params(config):
    mesh = make_mesh(config.mesh)
    return flat(program.initial_state(program.train_program(config, mesh)).params())


def moved_groups(config, model_directory):
    before, after = first_params(config), flat(load_model(model_directory)[1])
    return {phases.group_of(p) for p in before if not np.array_equal(before[p], after[p])}


PROCESS = """
import os, pathlib, signal, sys
from tiny_run import run_config
from videobooth_jax.checkpointing import manifest
from videobooth_jax.compilation_cache import enable_compilation_cache
from videobooth_jax.training import loop

start, workdir, steps, killed_in_save_of = sys.argv[1:]
seal = manifest.seal
def seal_or_die(root, *args):
    if root.name == killed_in_save_of:
        os.kill(os.getpid(), signal.SIGKILL)
    seal(root, *args)
manifest.seal = seal_or_die
enable_compilation_cache()
loop.train(run_config(pathlib.Path(start), steps=int(steps)), workdir)
"""


def process(start, workdir, programs, steps=4, killed_in_save_of=""):
    """A run as a process of its own, its compiled programs kept in the folder ``programs``."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, start, workdir, str(steps), killed_in_save_of],
        env=os.environ | {"PYTHONPATH": path, "VIDEOBOOTH_CACHE": str(programs)},
        stderr=subprocess.PIPE,
        text=True,
    )


HELD_OUT = {"validation.every": 2, "validation.batches": 1}


def check_same_end(one, two):
    expected, found = (flat(load_model(workdir / "model")[1]) for workdir in (one, two))
    for path, value in expected.items():
        np.testing.assert_array_equal(value, found[path], err_msg=path)
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """A run that also looks at held-out examples, which changes nothing else."""
    config = run_config(start, **HELD_OUT)
    return loop.train(config, tmp_path_factory.mktemp("straight"))


def test_only_the_named_groups_move(start, straight):
    config = run_config(start)
    assert moved_groups(config, straight) == set(config.trainable)


def test_resuming_gives_the_same_bits_as_an_unbroken_run(start, straight, tmp_path, monkeypatch):
    make = program.make_train_step

    def interrupted(*args):
        step_fn = make(*args)

        def step(state, batch):
            jax.debug.callback(
                lambda s: os.kill(os.getpid(), signal.SIGTERM) if s == 1 else None, state.step
            )
            return step_fn(state, batch)

        return step

    monkeypatch.setattr(program, "make_train_step", interrupted)
    config = run_config(start, **HELD_OUT)
    assert loop.train(config, tmp_path) is None
    monkeypatch.undo()
    loop.train(config, tmp_path)
    check_same_end(straight.parent, tmp_path)
    one, two = ((path / "validation.jsonl").read_text() for path in (straight.parent, tmp_path))
    assert one == two
    assert [json.loads(line)["step"] for line in one.splitlines()] == [2, 4]


@pytest.mark.slow
def test_killed_in_a_save_and_resumed_every_bit_is_that_of_an_unbroken_run(
    start, straight, tmp_path
):
    killed = process(start, tmp_path, tmp_path / "programs", killed_in_save_of="00000004")
    _, told = killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL, told
    loop.train(run_config(start), tmp_path)
    check_same_end(straight.parent, tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments_every_bit_is_that_of_an_unbroken_run(start, tmp_path):
    rng, programs = random.Random(0), tmp_path / "programs"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = process(start, whole, programs, steps=20)
    assert "wrote" in unbroken.communicate(timeout=600)[1]
    kills = 0
    while not (broken / "model").exists():
        run = process(start, broken, programs, steps=20)
        for _ in range(rng.choice([0, 3, 4, 5, 6])):  # lines told, mostly one a step
            run.stderr.readline()
        time.sleep(rng.uniform(0, 0.3))
        if kills < 6:
            run.kill()
        run.communicate(timeout=600)
        kills += run.returncode == -signal.SIGKILL
    print(f"{kills} kills")
    assert kills >= 4
    check_same_end(whole, broken)


def test_an_autoencoder_runs_through_the_same_loop_and_leaves_with_latents_of_unit_variance(
    start, tmp_path
):
    config = run_config(start, task="autoencoder", trainable=("vae",), steps=2)
    made = loop.train(config, tmp_path)
    assert moved_groups(config, made) == {"vae"}
    assert load_model(made)[0].vae.scaling_factor != run_model().vae.scaling_factor


@pytest.mark.slow
def test_both_towers_run_through_the_same_loop(start, tmp_path):
    towers = ("text_encoder", "vision_encoder", "contrastive_head")
    config = run_config(start, task="clip", trainable=towers, steps=2)
    assert moved_groups(config, loop.train(config, tmp_path)) == set(towers)


def test_later_phases_keep_the_latent_scale_that_was_measured(tmp_path):
    model = run_model()
    model = dataclasses.replace(model, vae=dataclasses.replace(model.vae, scaling_factor=0.7))
    save_model(tmp_path / "model", model, random_params(model), tokenizer_file=TOKENIZER_FILE)
    config = run_config(tmp_path / "model")
    assert program.with_measured_scale(config).model.vae.scaling_factor == 0.7
    config = dataclasses.replace(config, task="autoencoder")
    assert program.with_measured_scale(config).model.vae.scaling_factor == 1.0


def test_weights_of_another_size_are_named(start):
    config = run_config(start, **{"model.projector.hidden_dim": 4})
    with pytest.raises(ValueError, match="projector/mapping_0"):
        first_params(config)


def test_missing_networks_start_fresh_and_given_ones_are_taken(start, monkeypatch):
    config = run_config(start, **{"model.unet.exemplar_projection": "separate"})
    given = flat(load_model(start)[1])
    del given["vae/encoder/conv_in/kernel"]
    partial = traverse_util.unflatten_dict(given, sep="/")
    monkeypatch.setattr(program, "load_model", lambda path, **_: (config.model, partial))
    found = first_params(config)
    assert "vae/encoder/conv_in/kernel" in found
    np.testing.assert_array_equal(
        found["unet/conv_in/kernel"], np.asarray(given["unet/conv_in/kernel"])
    )

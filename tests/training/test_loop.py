"""The loop end to end at the smallest size.

It learns, freezes what is frozen, resumes bit-exactly, stops on a signal.
"""

import os
import signal

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.training.tiny import tiny_config
from videobooth_jax.checkpointing import load_model
from videobooth_jax.training import loop, phases


def flat(params):
    return {p: np.asarray(v) for p, v in traverse_util.flatten_dict(params, sep="/").items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return loop.train(tiny_config(), tmp_path_factory.mktemp("straight"))


def test_only_the_named_groups_move(straight):
    config = tiny_config()
    before, after = flat(loop.initial_params(config)), flat(load_model(straight)[1])
    moved = {p for p in before if not np.array_equal(before[p], after[p])}
    assert moved
    assert {phases.group_of(p) for p in moved} == set(config.trainable)


def test_resuming_gives_the_same_bits_as_an_unbroken_run(straight, tmp_path, monkeypatch):
    make = loop.make_train_step

    def interrupted(*args):
        step_fn = make(*args)

        def step(state, batch):
            jax.debug.callback(
                lambda s: os.kill(os.getpid(), signal.SIGTERM) if s == 1 else None, state.step
            )
            return step_fn(state, batch)

        return step

    monkeypatch.setattr(loop, "make_train_step", interrupted)
    assert loop.train(tiny_config(), tmp_path) is None
    monkeypatch.undo()
    resumed = loop.train(tiny_config(), tmp_path)
    expected, found = flat(load_model(straight)[1]), flat(load_model(resumed)[1])
    for path, value in expected.items():
        np.testing.assert_array_equal(value, found[path], err_msg=path)


@pytest.mark.parametrize(
    ("task", "trainable"),
    [("autoencoder", ("vae",)), ("clip", ("text_encoder", "vision_encoder", "contrastive_head"))],
)
def test_the_other_tasks_run_through_the_same_loop(task, trainable, tmp_path):
    config = tiny_config(task=task, trainable=trainable, steps=2)
    before, after = (
        flat(loop.initial_params(config)),
        flat(load_model(loop.train(config, tmp_path))[1]),
    )
    moved = {phases.group_of(p) for p in before if not np.array_equal(before[p], after[p])}
    assert moved == set(trainable)


def test_weights_of_another_size_are_named(straight):
    config = tiny_config(init_from=str(straight), **{"model.projector.hidden_dim": 8})
    with pytest.raises(ValueError, match="projector/mapping_0"):
        loop.initial_params(config)

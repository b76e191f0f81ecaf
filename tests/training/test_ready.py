"""Steps made ready: found in a folder, they are those that were traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from stand_in import LOSS, OPTIMIZER, Numbers, config, fresh_state, go, outcome
from tiny_run import run_config, run_model, write_start

from videobooth_jax.aot.collectives import collectives
from videobooth_jax.aot.hlo import parse
from videobooth_jax.aot.loops import schedule
from videobooth_jax.sharding import MeshSizes, make_mesh, place_batch, replicated
from videobooth_jax.training import program as programs
from videobooth_jax.training import run
from videobooth_jax.training.config import ValidationConfig
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.ready import FIRST, compiled, kept_train_program
from videobooth_jax.training.train_step import make_train_step, make_validation_step

LOOKS = ValidationConfig(every=4, batches=1)


class Traced:
    """The stand-in's loss, and how often it was traced."""

    def __init__(self):
        self.count = 0

    def program(self, loss=LOSS, devices=2, **fields):
        mesh = make_mesh(MeshSizes(data=devices))

        def evaluate(*args):
            self.count += 1
            return loss.evaluate(*args)

        counted = dataclasses.replace(loss, evaluate=evaluate)
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
            jax.eval_shape(fresh_state),
        )
        step = programs.jit_step(make_train_step(counted, OPTIMIZER, 0.9), mesh, state)
        look = programs.jit_validation(make_validation_step(counted), mesh)
        settings = config(validation=LOOKS, **fields)
        program = programs.TrainProgram(settings, mesh, OPTIMIZER, state, step, look)
        return program, place_batch(mesh, next(Numbers()), 4)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "traced")


def taken(program, batch):
    """What a step and a look at held-out examples make of the fresh state."""
    state = jax.device_put(fresh_state(), replicated(program.mesh))
    look = program.validate(state, batch, FIRST)
    state, metrics = program.step(state, batch)
    state = dataclasses.replace(state, key=jax.random.key_data(state.key))
    return jax.device_get((state, metrics, look))


def check_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_steps_of_a_folder_give_every_bit_and_the_flops_of_traced_ones(folder):
    expected = taken(*Traced().program())
    flops = programs.model_flops(*Traced().program())
    for _ in range(2):  # the first writes them, the second finds them
        program, batch = Traced().program()
        program, found = kept_train_program(program, batch, folder)
        check_same(taken(program, batch), expected)
        assert found == flops
    assert sorted(p.name.rpartition("-")[0] for p in folder.iterdir()) == [
        "tiny-step",
        "tiny-validation",
    ]


def test_what_is_found_is_not_traced(folder):
    kept_train_program(*Traced().program(), folder)
    traced = Traced()
    program, batch = traced.program()
    taken(kept_train_program(program, batch, folder)[0], batch)
    assert traced.count == 0


@pytest.mark.parametrize("change", ["config", "batch", "dtype", "mesh", "split"])
def test_another_run_is_another_program(folder, change):
    kept_train_program(*Traced().program(), folder)
    traced = Traced()
    fields = {"config": {"seed": 7}, "mesh": {"devices": 4}}.get(change, {})
    program, batch = traced.program(**fields)
    if change == "batch":
        batch = place_batch(program.mesh, {"x": np.zeros((8, 64), np.float32)}, 8)
    if change == "dtype":
        batch |= place_batch(program.mesh, {"ids": np.zeros((4, 1), np.int8)}, 4)
    if change == "split":
        batch = jax.device_put(batch, replicated(program.mesh))
    kept_train_program(program, batch, folder)
    assert traced.count > 0


def test_what_cannot_be_exported_is_traced_and_said(folder):
    def evaluate(params, batch, draws):
        loss, metrics = LOSS.evaluate(params, batch, draws)
        told = jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), 1.0)
        return loss, metrics | {"told": told}

    program, batch = Traced().program(dataclasses.replace(LOSS, evaluate=evaluate))
    with pytest.warns(UserWarning, match="tiny: not kept for a restart: "):
        kept, _ = kept_train_program(program, batch, folder)
    assert taken(kept, batch)[1]["told"] == 1.0


def test_a_mistake_in_the_loss_is_told_as_it_is(folder, recwarn):
    def evaluate(*_):
        raise ValueError("the subject's word is missing")

    with pytest.raises(ValueError, match="the subject's word is missing"):
        kept_train_program(*Traced().program(dataclasses.replace(LOSS, evaluate=evaluate)), folder)
    assert not [w for w in recwarn if "not kept" in str(w.message)]


@pytest.mark.parametrize("setting", ["jax_disable_jit", "jax_debug_nans"])
def test_where_jax_is_to_debug_nothing_is_compiled_ahead(tmp_path, setting):
    jax.config.update(setting, True)
    try:
        program, batch = Traced().program()
        assert compiled(program, program.state, batch) is program
        go(tmp_path / "run", config(steps=1))
    finally:
        jax.config.update(setting, False)


def test_compiled_steps_are_those_that_were_given(folder):
    program, batch = Traced().program()
    expected = taken(program, batch)
    for given in (program, kept_train_program(program, batch, folder)[0]):
        state = jax.device_put(fresh_state(), replicated(program.mesh))
        ready = compiled(given, state, batch)
        check_same(taken(ready, batch), expected)
        with pytest.raises(TypeError, match=r"shape|float32"):
            ready.step(state, {"x": jnp.zeros((2, 64)), "ids": batch["ids"]})


def test_a_run_that_keeps_its_programs_is_the_run_that_does_not(tmp_path, folder, monkeypatch):
    go(tmp_path / "one", config())
    monkeypatch.setattr(run, "traced_programs_folder", lambda: folder)
    for name in ("two", "three"):
        go(tmp_path / name, config())
        assert outcome(tmp_path / name) == outcome(tmp_path / "one")
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_on_a_mesh_the_real_step_is_the_traced_one(tmp_path, folder):
    start = write_start(tmp_path / "model", exemplar_timestep="same")
    sizes = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "mesh.frames": 1}
    model = run_model(exemplar_timestep="same")
    settings = run_config(start, model, **sizes, **{"data.batch_size": 4, "data.num_frames": 4})
    mesh = make_mesh(settings.mesh)
    program = programs.train_program(settings, mesh)
    batch = place_batch(mesh, next(open_training_data(settings.data, settings.model)), 4)
    found = []
    for given in (program, kept_train_program(program, batch, folder)[0]):
        state = programs.initial_state(program)
        ready = compiled(given, state, batch)
        sent = collectives(schedule(parse(ready.step.as_text())), mesh.size)
        memory = ready.step.memory_analysis()
        state, metrics = ready.step(state, batch)
        state = dataclasses.replace(state, key=jax.random.key_data(state.key))
        found.append((state, metrics, sent, memory.temp_size_in_bytes))
    (state, metrics, sent, memory), (kept_state, kept_metrics, kept_sent, kept_memory) = found
    assert list(kept_sent) == list(sent)
    assert kept_memory <= 1.01 * memory
    check_same(jax.device_get((kept_state, kept_metrics)), jax.device_get((state, metrics)))
    assert jax.tree.map(lambda x: x.sharding, kept_state) == jax.tree.map(
        lambda x: x.sharding, state
    )

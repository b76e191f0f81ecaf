"""Every axis of the mesh, alone and mixed, computes what one device does."""

import contextlib
import functools
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny_run import run_config, run_model, write_start

from videobooth_jax.checkpointing import TrainCheckpoints
from videobooth_jax.sharding import make_mesh, place_batch
from videobooth_jax.training import program as programs
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.loop import train
from videobooth_jax.training.phases import merge
from videobooth_jax.training.train_step import make_loss

ALONE = [{"data": 4}, {"fsdp": 4}, {"frames": 4}, {"tensor": 2}]
MIXED = [
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 2, "frames": 2, "tensor": 2},
    {"data": 2, "frames": 4},
]
ONE_DEVICE = {"data": 1, "fsdp": 1, "frames": 1, "tensor": 1}


def rows_of(sizes):
    """Four clips; where frames are split, one for every group of devices."""
    return sizes.get("data", 1) * sizes.get("fsdp", 1) if "frames" in sizes else 4


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model", exemplar_timestep="same")


def run(start, sizes, rows):
    """Loss and gradients of the first step, parameters after it; on the host."""
    overrides = {f"mesh.{axis}": size for axis, size in (ONE_DEVICE | sizes).items()}
    model = run_model(exemplar_timestep="same")
    config = run_config(
        start, model, **overrides, **{"data.batch_size": rows, "data.num_frames": 4}
    )
    mesh = make_mesh(config.mesh)
    program = programs.train_program(config, mesh)
    state = programs.initial_state(program)
    batch = place_batch(mesh, next(open_training_data(config.data, config.model)), rows)
    loss = make_loss(config)
    shardings = jax.tree.map(lambda x: x.sharding, state.trained)

    @functools.partial(jax.jit, out_shardings=(None, shardings))
    def differentiate(state, batch):
        draws = loss.draw(batch, jax.random.fold_in(state.key, state.step))

        def of(trained):
            return loss.evaluate(merge(trained, state.frozen), batch, draws)[0]

        return jax.value_and_grad(of)(state.trained)

    value, gradients = jax.device_get(differentiate(state, batch))
    state, _ = program.step(state, batch)
    return value, *(flatten_dict(jax.device_get(x), sep="/") for x in (gradients, state.trained))


@pytest.fixture(scope="module")
def expected(start):
    return functools.cache(lambda rows: run(start, {}, rows))


def check(found, expected):
    (loss, gradients, params), (wanted_loss, wanted_gradients, wanted_params) = found, expected
    assert abs(loss - wanted_loss) <= 1e-5 * abs(wanted_loss)
    for path, wanted in wanted_gradients.items():
        difference = np.linalg.norm(gradients[path] - wanted)
        assert difference <= 1e-4 * np.linalg.norm(wanted), path
    close = [
        np.isclose(params[p], x, rtol=1e-5, atol=1e-5).ravel() for p, x in wanted_params.items()
    ]
    assert np.concatenate(close).mean() >= 0.999


def test_all_axes_at_once(start, expected):
    check(run(start, MIXED[1], 2), expected(2))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [*ALONE, MIXED[0], MIXED[2]], ids=str)
def test_each_axis(start, expected, sizes):
    check(run(start, sizes, rows_of(sizes)), expected(rows_of(sizes)))


MOVES = [
    ({"data": 8}, {"data": 1}, {"data": 4}),
    ({"data": 2, "fsdp": 4}, {"data": 2, "tensor": 2}),
]


def moving(start, sizes, steps):
    mesh = {f"mesh.{axis}": size for axis, size in (ONE_DEVICE | sizes).items()}
    return run_config(start, **mesh, **{"data.batch_size": 8, "steps": steps})


@pytest.mark.parametrize("meshes", MOVES, ids=str)
def test_a_state_is_restored_onto_another_mesh(start, tmp_path, meshes):
    before, *later = [
        programs.train_program(moving(start, sizes, 4), make_mesh(moving(start, sizes, 4).mesh))
        for sizes in meshes
    ]
    state = programs.initial_state(before)
    with contextlib.closing(TrainCheckpoints(tmp_path / "checkpoints", keep=1)) as checkpoints:
        checkpoints.save(7, state, "here")
        checkpoints.wait()
        for program in later:
            found, position = checkpoints.restore(program.state)
            assert position == "here"
            jax.tree.map(
                lambda x, wanted: np.testing.assert_equal(x.sharding == wanted.sharding, True),
                found,
                program.state,
            )
            jax.tree.map(np.testing.assert_array_equal, *map(_on_host, (found, state)))


def _on_host(state):
    return jax.tree.map(
        lambda x: np.asarray(
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        ),
        state,
    )


@pytest.mark.slow
@pytest.mark.parametrize("meshes", MOVES, ids=str)
def test_a_run_that_moves_from_mesh_to_mesh_makes_the_losses_of_one_device(start, tmp_path, meshes):
    steps = 2 * len(meshes)
    train(moving(start, {}, steps), tmp_path / "straight")
    for index, sizes in enumerate(meshes):
        train(moving(start, sizes, 2 * index + 2), tmp_path / "moved")
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("straight", "moved")
    ]
    assert [row["step"] for row in rows[1]] == list(range(1, steps + 1))
    for straight, moved in zip(*rows, strict=True):
        np.testing.assert_allclose(moved["loss"], straight["loss"], rtol=1e-4)

"""What a training step sends on every mesh, counted: a change that doubles it is seen here."""

import functools

import jax
import pytest
from tiny_run import run_config, run_model

from videobooth_jax.aot.collectives import collectives
from videobooth_jax.aot.hlo import parse
from videobooth_jax.aot.loops import schedule
from videobooth_jax.aot.work import work
from videobooth_jax.sharding import make_mesh
from videobooth_jax.training.program import abstract_batch, train_program


def program(rows, num_frames=4, **sizes):
    mesh = {f"mesh.{axis}": size for axis, size in ({"data": 1} | sizes).items()}
    model = run_model(exemplar_timestep="same")
    settings = {
        "data.batch_size": rows,
        "data.num_frames": num_frames,
        "model.unet.attention_implementation": "xla",  # as on accelerators
    }
    config = run_config("", model, **mesh, **settings)
    return config, train_program(config, make_mesh(config.mesh))


@functools.cache
def counted(rows, num_frames=4, **sizes):
    """FLOPs on a device, and bytes of the results of collectives by (kind, devices in a group)."""
    config, found = program(rows, num_frames, **sizes)
    lowered = found.step.lower(found.state, abstract_batch(config, found.mesh))
    module = parse(lowered.compile().as_text())
    runs = schedule(module)
    parts = collectives(runs, found.mesh.size)
    return work(module, runs).flops, {(c.kind, c.group_size): c for c in parts}


def trained_bytes():
    state = program(1)[1].state
    return sum(4 * leaf.size for leaf in jax.tree.leaves(state.trained))


@pytest.mark.slow
def test_data_sums_the_trained_gradients_once_and_sends_nothing_else(capfd):
    flops, sent = counted(8, data=8)
    assert list(sent) == [("all-reduce", 8)]
    assert trained_bytes() <= sent["all-reduce", 8].result_bytes <= 1.5 * trained_bytes()
    assert flops == pytest.approx(counted(1)[0], rel=0.02)
    assert "nvoluntary full rematerialization" not in capfd.readouterr().err


@pytest.mark.slow
def test_frames_split_the_work_and_send_little(capfd):
    """Sums of group norms, frame 0 and attention over time to all, one frame to the neighbour.

    A device does the work of a clip of one frame, which only attends to half as many keys; what is
    not of frames is computed by all.
    """
    flops, sent = counted(2, data=2, frames=4)
    assert flops <= 1.15 * counted(1, num_frames=1)[0]
    kinds = {key: part.result_bytes for key, part in sent.items()}
    assert set(kinds) == {
        ("all-reduce", 2),
        ("all-reduce", 4),
        ("all-gather", 4),
        ("collective-permute", 2),
    }
    assert kinds["all-gather", 4] <= 1.5 * 65_536
    assert kinds["collective-permute", 2] <= 1.5 * 49_152
    assert kinds["all-reduce", 4] <= 1.5 * 175_620
    assert "nvoluntary full rematerialization" not in capfd.readouterr().err


@pytest.mark.slow
def test_fsdp_gathers_weights_and_sums_gradients(capfd):
    _, sent = counted(8, fsdp=4)
    kinds = {key: part.result_bytes for key, part in sent.items()}
    assert kinds["all-gather", 4] <= 1.5 * 203_080
    assert kinds["all-reduce", 4] <= 1.5 * 143_272
    assert "nvoluntary full rematerialization" not in capfd.readouterr().err

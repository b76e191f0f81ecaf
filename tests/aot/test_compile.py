"""`videobooth compile`: what it says early, what it exits with, and the compiler for TPUs."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from test_roofline import report, with_temporaries
from tiny_run import run_config, run_model

from videobooth_jax import cli
from videobooth_jax.aot import command, compilation, program
from videobooth_jax.aot.chips import CHIPS, GIB
from videobooth_jax.aot.environment import ENVIRONMENT
from videobooth_jax.outputs import written_whole

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from tiny_run import run_model
from videobooth_jax.models.videobooth import config_to_dict
from videobooth_jax.training.config import default_config

def get_config():
    config = default_config("sprites")
    with config.unlocked():
        config.model = config_to_dict(run_model())
    config.name, config.trainable = "tiny", ("projector", "text_kv", "frame_kv")
    config.data.source, config.data.num_frames = "latents", 2
    return config
"""
has_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG.format(tests=str(Path(__file__).parents[1])))
    return ["compile", f"--config={path}", "--topology=v5e:2x2"]


@pytest.fixture
def compiled_as(monkeypatch):
    """Let the compiler say what the test says."""
    calls = []

    def stand_in(made):
        def compile_report(*args):
            calls.append(args)
            return made

        monkeypatch.setattr(command, "compile_report", compile_report)
        return calls

    return stand_in


def test_a_program_that_fits_exits_with_0_and_is_written(words, compiled_as, tmp_path, capsys):
    calls = compiled_as(report())
    out = tmp_path / "report.json"
    assert cli.main([*words, f"--out={out}", "--what=sample", "--config.data.batch_size=8"]) == 0
    ((config, *rest),) = calls
    assert config.data.batch_size == 8
    assert rest == ["v5e:2x2", "sample", ["--config.data.batch_size=8"]]
    assert json.loads(out.read_text()) == json.loads(report().to_json())
    said = capsys.readouterr()
    assert "MFU at most" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    "made", [with_temporaries(9 * GIB), report(costs=None, refusal="Ran out of memory")]
)
def test_one_that_does_not_fit_exits_with_1_and_says_what_helps(words, compiled_as, capsys, made):
    compiled_as(made)
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert made.refusal in said.out
    assert "does not fit" in said.err
    assert "--config.data.batch_size=8" in said.err


def test_a_report_that_cannot_be_finished_leaves_nothing(tmp_path):
    def write():
        with written_whole([tmp_path / "a.json"]) as (partial,):
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert not list(tmp_path.iterdir())


MISTAKES = {
    "generation": (["--topology=v9:2x2"], "there is no topology 'v9:2x2'"),
    "field": (["--config.data.batch=8"], "there is no field 'batch'"),
    "folder": (["--out=no/such/folder/report.json"], "there is no such folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_anything_is_compiled(words, capsys, name):
    changes, message = MISTAKES[name]
    assert cli.main([*words, *changes]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_compiler_is_named(words, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(words) == 2
    assert "pip install 'videobooth_jax[aot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mesh.data": 16}, "there are 8 devices"),
        ({"mesh.data": -1, "data.batch_size": 3}, "a batch of 3 cannot be split evenly"),
        ({"mesh.data": 4, "mesh.frames": 2, "data.num_frames": 1}, "1 frames cannot be split"),
    ],
)
@pytest.mark.parametrize("what", program.PROGRAMS)
def test_a_mesh_that_does_not_fit_is_told(what, overrides, message):
    config = run_config("start", **({"data.batch_size": 16} | overrides))
    with pytest.raises(ValueError, match=message):
        program.PROGRAMS[what](config, jax.devices())


@pytest.mark.slow
@pytest.mark.parametrize("what", program.PROGRAMS)
def test_programs_compile_and_split_their_work_evenly(what):
    """On the CPU's eight devices: FLOPs of one are an eighth of the model's, but for padding."""
    config = run_config("start", **{"data.source": "latents", "data.batch_size": 8, "mesh.data": 8})
    made = program.PROGRAMS[what](config, jax.devices())
    assert made.mesh.size == 8
    compiled = made.step.lower(*made.arguments).compile()
    costs = compilation.count(compiled, 8, CHIPS["v5e"], made.model_flops / 8)
    assert costs.unknown_loops == ()
    assert 0.5 < costs.work.flops / (made.model_flops / 8) <= 1.05


@pytest.mark.slow
def test_training_flops_are_of_the_model_alone_and_of_what_is_trained():
    def flops(remat="none", **overrides):
        model = run_model()
        model = dataclasses.replace(model, unet=dataclasses.replace(model.unet, remat=remat))
        fixed = {"data.source": "latents", "mesh.data": 1}
        config = run_config("start", model, **(fixed | overrides))
        return program.train(config, jax.devices()).model_flops

    assert flops(**{"optimizer.name": "muon"}) == flops() == flops("blocks")
    more = ("projector", "text_kv", "frame_kv", "unet", "temporal")
    assert flops() < flops(trainable=more) < 2 * flops()


SMALL = """
import functools
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from videobooth_jax.aot import compilation
from videobooth_jax.aot.chips import CHIPS
from videobooth_jax.aot.program import topology_devices

mesh = Mesh(np.array(topology_devices("v5e:2x4")), ("data",), axis_types=(AxisType.Auto,))

def step(x, w):
    def once(c, _):
        return jnp.tanh(jax.lax.psum(c @ w, "data")), None
    return jax.lax.scan(once, x, None, length=5)[0]

step = jax.shard_map(
    step, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), check_vma=False
)
x = jax.ShapeDtypeStruct((1024, 256), jnp.bfloat16, sharding=NamedSharding(mesh, P("data")))
w = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=NamedSharding(mesh, P()))
costs = compilation.count(jax.jit(step).lower(x, w).compile(), 8, CHIPS["v5e"], 0)
print(mesh.size, costs.unknown_loops, costs.work.flops, costs.memory.arguments)
print(*((c.kind, c.group_size, c.count, c.result_bytes) for c in costs.collectives))
"""


def for_tpus(*words):
    """Run Python as `videobooth compile` does: this process has another platform already."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, *words],
        env=environment | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@has_libtpu
def test_the_compiler_for_tpus_makes_a_program_that_is_counted_exactly():
    code, said, errors = for_tpus("-c", SMALL)
    assert code == 0, errors
    first, second = said.splitlines()
    rows, side = 1024 // 8, 256
    assert first == f"8 () {5 * 2 * rows * side * side} {2 * (rows * side + side * side)}"
    assert second == str(("all-reduce", 8, 5, 5 * rows * side * 2))


@has_libtpu
def test_a_topology_that_the_compiler_does_not_know(words):
    code, _, errors = for_tpus("-m", "videobooth_jax.cli", *words[:-1], "--topology=v5e:3x3")
    assert code == 2
    assert "no topology 'v5e:3x3'" in errors
    assert "16x16" in errors


@has_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("what", program.PROGRAMS)
def test_a_run_compiles_for_tpus(words, tmp_path, what):
    out = tmp_path / "report.json"
    options = [f"--what={what}", "--config.mesh.fsdp=2", f"--out={out}"]
    code, said, errors = for_tpus("-m", "videobooth_jax.cli", *words, *options)
    assert code == 0, errors
    values = json.loads(out.read_text())
    assert values["fits"] is True
    assert values["mesh"] == {"data": 2, "fsdp": 2, "frames": 1, "tensor": 1}
    assert values["costs"]["unknown_loops"] == []
    kinds = {part["kind"] for part in values["costs"]["collectives"]}
    assert "all-gather" in kinds
    assert "on v5e:2x2, 4 devices" in said

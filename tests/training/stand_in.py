"""A run whose model is a handful of numbers: the real loop, checkpoints and reports around a step
that compiles in no time. As a program it is one process of such a run, to be killed.
"""

import dataclasses
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tiny_run import run_config

from videobooth_jax.checkpointing import TrainCheckpoints, arrays, manifest
from videobooth_jax.paths import resolve
from videobooth_jax.sharding import MeshSizes, make_mesh, replicated
from videobooth_jax.training import run
from videobooth_jax.training.config import OptimizerConfig
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.program import TrainProgram
from videobooth_jax.training.progress import Progress
from videobooth_jax.training.state import TrainState
from videobooth_jax.training.stopping import stop_signals
from videobooth_jax.training.train_step import Loss, make_train_step, make_validation_step

STEPS = 20


class Numbers:
    """Batches drawn from the position alone."""

    def __init__(self, pause=0.0, bad=()):
        self._position, self._pause, self._bad = 0, pause, bad

    def __next__(self):
        time.sleep(self._pause)
        x = np.random.default_rng(self._position).normal(size=(4, 64)).astype("float32")
        if self._position in self._bad:
            x[0, 0] = np.nan
        self._position += 1
        return {"ids": np.zeros((4, 1), np.int32), "x": x}

    def __iter__(self):
        return self

    def position(self):
        return json.dumps(self._position)

    def set_position(self, position):
        self._position = json.loads(position)


def evaluate(params, batch, draws):
    error = (batch["x"] + draws - params["a"] * params["b"]) ** 2
    return jnp.mean(error), {"error": jnp.mean(error)}


LOSS = Loss(lambda batch, key: 0.1 * jax.random.normal(key, batch["x"].shape), evaluate)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2), STEPS)


def config(**fields):
    base = run_config("", steps=STEPS, checkpoint_every=3, log_every=2)
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, batch_size=4))
    return dataclasses.replace(base, **fields)


def fresh_state():
    trained = {"a": jnp.zeros((1, 64))}
    return TrainState(
        step=jnp.int32(0),
        trained=trained,
        frozen={"b": jnp.full((1, 64), 2.0)},
        opt_state=OPTIMIZER.init(trained),
        ema={"a": jnp.zeros((1, 64))},
        key=jax.random.key(0),
    )


def go(workdir, config, loss=LOSS, data=None, stopped=None, held_out=None):
    """What `loop.train` does around `run_steps`, for the stand-in; the last state."""
    workdir = resolve(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = make_mesh(MeshSizes(data=1))
    state, data = jax.device_put(fresh_state(), replicated(mesh)), data or Numbers()
    step = jax.jit(make_train_step(loss, OPTIMIZER, 0.9), donate_argnums=0)
    validate = jax.jit(make_validation_step(loss))
    program = TrainProgram(config, mesh, OPTIMIZER, jax.eval_shape(fresh_state), step, validate)
    with (
        stop_signals() as signalled,
        TrainCheckpoints(workdir / "checkpoints", 2, 1) as checkpoints,
    ):
        progress = Progress(data.position())
        if checkpoints.latest_step() is not None:
            state, saved = checkpoints.restore(state)
            progress = Progress.from_saved(saved)
            data.set_position(progress.data)
        return run.run_steps(
            program, state, data, checkpoints, workdir, stopped or signalled, progress, held_out
        )


def outcome(workdir: Path) -> tuple[bytes, bytes, list[str]]:
    """Everything a run leaves that must not depend on how often it was killed."""
    with TrainCheckpoints(workdir / "checkpoints") as checkpoints:
        state, saved = checkpoints.restore(jax.eval_shape(fresh_state))
        steps = [str(step) for step in checkpoints.steps()]
    state = dataclasses.replace(state, key=jax.random.key_data(state.key))
    bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
    saved.pop("productive_seconds")
    return (workdir / "metrics.jsonl").read_bytes(), bits + repr(saved).encode(), steps


def _write_half_a_seal(root, *_):
    (root / ".manifest.json.partial").write_text('{"format_version": 1, "fil')


def _write_half_a_line(*_):
    with (Path(sys.argv[1]) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')


MOMENTS = {
    "while it compiles": (run, "kept_train_program", None, False),
    "while arrays are written": (arrays, "start_write", None, True),
    "before the seal": (manifest, "seal", None, False),
    "half a seal": (manifest, "seal", _write_half_a_seal, False),
    "after the seal": (manifest, "seal", None, True),
    "half a line": (run, "summarize", _write_half_a_line, False),
    "while it samples": (run, "sample_grid", None, False),
}
"""Name -> module, function, what happens first, and whether the signal comes after the call."""


def signal_at(moment: str, count: int, number: int) -> None:
    """Arrange for a signal at the ``count``-th time a moment comes."""
    times = itertools.count(1)
    module, function, first, after = MOMENTS[moment]
    real = getattr(module, function)

    def wrapped(*args, **kwargs):
        if next(times) != count:
            return real(*args, **kwargs)
        if first:
            first(*args)
        result = real(*args, **kwargs) if after else None
        for _ in range(2):  # a second one must do no more harm than the first
            os.kill(os.getpid(), number)
        return result if after else real(*args, **kwargs)

    setattr(module, function, wrapped)


if __name__ == "__main__":
    run.sample_grid, run.open_training_data = lambda *_: None, lambda *_: Numbers()
    if len(sys.argv) > 2:
        signal_at(sys.argv[2], int(sys.argv[3]), getattr(signal, sys.argv[4]))
    go(sys.argv[1], config(sample_every=4), data=Numbers(pause=0.01))

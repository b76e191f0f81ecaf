"""The training loop.

Data in, checkpoints and a model directory out; one loop for every task and phase.

A run owns ``workdir``: ``checkpoints/`` (state and data position, one atomic unit),
``tensorboard/``, and at the end ``model/``, a model directory with the averaged weights. Starting
again in the same folder goes on where the last checkpoint stands. SIGTERM and SIGINT let the step
under way finish, save, and return.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from videobooth_jax.checkpointing import TrainCheckpoints, save_model
from videobooth_jax.models.videobooth import VideoBooth, VideoBoothConfig
from videobooth_jax.sharding import check_batch, make_mesh, place_batch, process_rows
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.data import TrainingData, open_training_data
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.metrics import Reporter
from videobooth_jax.training.program import (
    TrainProgram,
    initial_state,
    train_program,
    with_measured_scale,
)
from videobooth_jax.training.samples import sample_grid
from videobooth_jax.training.state import TrainState
from videobooth_jax.typing import Array, Params


def train(config: TrainConfig, workdir: str | Path) -> Path | None:
    """Run ``config`` in ``workdir`` up to its last step.

    Returns the model directory, or None when a signal stopped the run early (start it again to go
    on).

    Raises:
        ValueError: ``init_from`` does not fit the model, or data or devices do not fit the config;
        before anything is compiled. OSError: ``workdir`` cannot be written.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    config = with_measured_scale(config)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.data.batch_size, config.data.num_frames)
    data = open_training_data(config.data, config.model, process_rows(mesh, config.data.batch_size))
    program = train_program(config, mesh)
    with contextlib.closing(
        TrainCheckpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    ) as checkpoints:
        state = resume_or_start(program, data, checkpoints)
        with stop_signals() as stopped:
            state = run_steps(program, state, data, checkpoints, workdir, stopped)
    if int(state.step) < config.steps:
        print(f"{config.name}: stopped at step {int(state.step)}, saved", file=sys.stderr)
        return None
    return write_model(program, state, data, workdir / "model")


def resume_or_start(
    program: TrainProgram, data: TrainingData, checkpoints: TrainCheckpoints
) -> TrainState:
    """The newest sound checkpoint's state, with ``data`` set to its position; or a first one."""
    if checkpoints.latest_step() is None:
        return initial_state(program)
    state, position = checkpoints.restore(program.state)
    data.set_position(str(position))
    print(f"{program.config.name}: resumed from step {int(state.step)}", file=sys.stderr)
    return state


def run_steps(
    program: TrainProgram,
    state: TrainState,
    data: TrainingData,
    checkpoints: TrainCheckpoints,
    workdir: Path,
    stopped: Callable[[], bool],
) -> TrainState:
    """Step until ``config.steps`` or a stop signal, reporting and saving on the way and at the
    end.
    """
    config = program.config
    step = saved = int(state.step)
    reporter = Reporter(workdir, config.name, step, config.steps, config.data.batch_size)
    pending: list[Metrics] = []
    examples = next(open_training_data(config.data, config.model)) if config.sample_every else {}
    with contextlib.closing(reporter):
        while step < config.steps and not stopped():
            batch = place_batch(program.mesh, _next(data, reporter), config.data.batch_size)
            state, metrics = program.step(state, batch)
            step += 1
            pending.append(metrics)
            if step % config.log_every == 0:
                reporter.report(step, _mean(pending))
                pending.clear()
            if config.sample_every and step % config.sample_every == 0:
                picture = sample_grid(config, state.ema_params(), examples)
                if picture is not None:
                    reporter.image("samples", picture, step)
            if step % config.checkpoint_every == 0:
                checkpoints.save(step, state, data.position())
                saved = step
        if step != saved:
            checkpoints.save(step, state, data.position())
    return state


def _next(data: TrainingData, reporter: Reporter) -> Batch:
    start = time.monotonic()
    batch = next(data)
    reporter.waited(time.monotonic() - start)
    return batch


def _mean(pending: list[Metrics]) -> dict[str, float]:
    columns = jax.device_get(pending)
    return {name: float(np.mean([row[name] for row in columns])) for name in columns[0]}


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and SIGINT into a question the loop asks between steps."""
    received: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, _: received.append(number))
        for s in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def write_model(program: TrainProgram, state: TrainState, data: TrainingData, path: Path) -> Path:
    """Write the averaged weights as a model directory; an autoencoder also gets its scaling
    factor, 1 / std of its latents.
    """
    config, params = program.config, state.ema_params()
    model_config = config.model
    if config.task == "autoencoder":
        batch = place_batch(program.mesh, next(data), config.data.batch_size)
        model_config = with_scaling_factor(model_config, params, batch)
    save_model(path, model_config, params, tokenizer_file=data.tokenizer_file, overwrite=True)
    print(f"{config.name}: wrote {path}", file=sys.stderr)
    return path


def with_scaling_factor(config: VideoBoothConfig, params: Params, batch: Batch) -> VideoBoothConfig:
    """Scale latents to unit variance, measured on one batch (latent diffusion, Section G)."""
    model = VideoBooth(config)

    @jax.jit
    def deviation(params: Params, video: Array) -> Array:
        return jnp.std(model.apply({"params": params}, video, method="encode")[0])

    factor = config.vae.scaling_factor / float(deviation(params, batch["video"]))
    return replace(config, vae=replace(config.vae, scaling_factor=factor))

"""A training run from beginning to end.

Data in, checkpoints and a model directory out; one loop for every task and phase.

A run owns ``workdir``: ``checkpoints/`` (state, data position and progress, one atomic unit),
``metrics.jsonl``, ``speed.jsonl``, ``tensorboard/``, where asked for ``validation.jsonl`` and
``profile/``, and at the end ``model/``, a model directory with the averaged weights. Starting again
in the same folder goes on where the last checkpoint stands. SIGTERM and SIGINT, whenever they come,
let the step under way finish, save, and return.
"""

import contextlib
import os
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
from etils import epath

from videobooth_jax.checkpointing import TrainCheckpoints, save_model
from videobooth_jax.distributed import is_primary
from videobooth_jax.models.videobooth import VideoBooth, VideoBoothConfig
from videobooth_jax.paths import make_writable, resolve
from videobooth_jax.sharding import make_mesh, place_batch, process_rows
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.data import TrainingData, open_training_data, open_validation_data
from videobooth_jax.training.losses import Batch, pixels_as_floats
from videobooth_jax.training.program import (
    TrainProgram,
    check_batches,
    initial_state,
    train_program,
    with_measured_scale,
)
from videobooth_jax.training.progress import Progress
from videobooth_jax.training.run import run_steps
from videobooth_jax.training.state import TrainState
from videobooth_jax.training.stopping import Stopped, stop_signals
from videobooth_jax.typing import Array, Params


def train(config: TrainConfig, workdir: str | os.PathLike[str]) -> epath.Path | None:
    """Run ``config`` in ``workdir`` up to its last step.

    Returns the model directory, or None when a signal stopped the run early (start it again to go
    on).

    Raises:
        ValueError: ``init_from`` does not fit the model, or data or devices do not fit the config;
        before anything is compiled. OSError: ``workdir`` cannot be written.
    """
    with stop_signals() as stopped:
        return _train(config, resolve(workdir), stopped)


def _train(config: TrainConfig, workdir: epath.Path, stopped: Stopped) -> epath.Path | None:
    make_writable(workdir, "a run", jax.process_index())
    config = with_measured_scale(config)
    mesh = make_mesh(config.mesh)
    check_batches(config, mesh)
    rows = process_rows(mesh, config.data.batch_size)
    data = open_training_data(config.data, config.model, rows, config.init_from)
    with contextlib.closing(data):
        held_out = open_validation_data(config, rows)
        program = train_program(config, mesh)
        with contextlib.closing(
            TrainCheckpoints(
                workdir / "checkpoints", config.keep_checkpoints, config.keep_best, config.best_mode
            )
        ) as checkpoints:
            state, progress = resume_or_start(program, data, checkpoints)
            state = run_steps(
                program, state, data, checkpoints, workdir, stopped, progress, held_out
            )
        if int(state.step) < config.steps:
            tell(f"{config.name}: stopped at step {int(state.step)}, saved")
            return None
        return write_model(program, state, data, workdir / "model")


def resume_or_start(
    program: TrainProgram, data: TrainingData, checkpoints: TrainCheckpoints
) -> tuple[TrainState, Progress]:
    """The newest sound checkpoint, with ``data`` set to its position; or a fresh start."""
    if checkpoints.latest_step() is None:
        return initial_state(program), Progress(data.position())
    state, saved = checkpoints.restore(program.state)
    progress = Progress.from_saved(saved)
    data.set_position(progress.data)
    tell(f"{program.config.name}: resumed from step {int(state.step)}")
    return state, progress


def tell(text: str) -> None:
    """A line for people, from one process only."""
    if is_primary():
        print(text, file=sys.stderr, flush=True)


def write_model(
    program: TrainProgram, state: TrainState, data: TrainingData, path: epath.Path
) -> epath.Path:
    """Write the averaged weights as a model directory; an autoencoder also gets its scaling
    factor, 1 / std of its latents.
    """
    config, params = program.config, state.ema_params()
    model_config = config.model
    if config.task == "autoencoder":
        batch = place_batch(program.mesh, next(data), config.data.batch_size)
        model_config = with_scaling_factor(model_config, params, batch)
    save_model(path, model_config, params, tokenizer_file=data.tokenizer_file, overwrite=True)
    tell(f"{config.name}: wrote {path}")
    return path


def with_scaling_factor(config: VideoBoothConfig, params: Params, batch: Batch) -> VideoBoothConfig:
    """Scale latents to unit variance, measured on one batch (latent diffusion, Section G)."""
    model = VideoBooth(config)

    @jax.jit
    def deviation(params: Params, video: Array) -> Array:
        return jnp.std(model.apply({"params": params}, video, method="encode")[0])

    video = pixels_as_floats(batch)["video"]
    factor = config.vae.scaling_factor / float(deviation(params, video))
    return replace(config, vae=replace(config.vae, scaling_factor=factor))

"""A training run from beginning to end.

Data in, checkpoints and a model directory out; one loop for every task and phase.

A run owns ``workdir``: ``checkpoints/`` (state, data position and progress, one atomic unit),
``metrics.jsonl``, ``speed.jsonl``, ``tensorboard/``, where asked for ``profile/``, and at the end
``model/``, a model directory with the averaged weights. Starting again in the same folder goes on
where the last checkpoint stands. SIGTERM and SIGINT, whenever they come, let the step under way
finish, save, and return.
"""

import contextlib
import os
import sys
from dataclasses import replace

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from videobooth_jax.checkpointing import TrainCheckpoints, load_config, load_model, save_model
from videobooth_jax.checkpointing.paths import make_writable, resolve
from videobooth_jax.models.videobooth import (
    VideoBooth,
    VideoBoothConfig,
    abstract_params,
    init_params,
)
from videobooth_jax.sharding import check_batch, make_mesh, place_state
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.data import TrainingData, open_training_data
from videobooth_jax.training.losses import Batch
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.phases import start_from_copies
from videobooth_jax.training.progress import Progress
from videobooth_jax.training.run import run_steps
from videobooth_jax.training.state import TrainState, create_state
from videobooth_jax.training.stopping import Stopped, stop_signals
from videobooth_jax.training.train_step import check_accumulation, make_loss, make_train_step
from videobooth_jax.typing import Params


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
    mesh = make_mesh(config.mesh.data)
    check_batch(mesh, config.data.batch_size)
    check_accumulation(config, mesh.devices.size)
    data = open_training_data(config.data, config.model)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = create_state(
        initial_params(config),
        config.trainable,
        optimizer,
        jax.random.key(config.seed),
        config.frozen_dtype,
    )
    state = place_state(mesh, state)
    with contextlib.closing(
        TrainCheckpoints(
            workdir / "checkpoints", config.keep_checkpoints, config.keep_best, config.best_mode
        )
    ) as checkpoints:
        progress = Progress(data.position())
        if checkpoints.latest_step() is not None:
            state, saved = checkpoints.restore(state)
            progress = Progress.from_saved(saved)
            data.set_position(progress.data)
            print(f"{config.name}: resumed from step {int(state.step)}", file=sys.stderr)
        step_fn = jax.jit(
            make_train_step(
                make_loss(config), optimizer, config.ema_decay, config.accumulate_steps
            ),
            donate_argnums=0,
        )
        state = run_steps(
            config, mesh, state, step_fn, data, checkpoints, workdir, stopped, progress
        )
    if int(state.step) < config.steps:
        print(f"{config.name}: stopped at step {int(state.step)}, saved", file=sys.stderr)
        return None
    return write_model(config, state, data, workdir / "model")


def with_measured_scale(config: TrainConfig) -> TrainConfig:
    """The config with the latent scale measured when the autoencoder of ``init_from`` was trained.

    An autoencoder in training keeps its own.
    """
    if not config.init_from or config.task == "autoencoder":
        return config
    factor = load_config(config.init_from).vae.scaling_factor
    model = replace(config.model, vae=replace(config.model.vae, scaling_factor=factor))
    return replace(config, model=model)


def initial_params(config: TrainConfig) -> Params:
    """Fresh parameters, overwritten by those of ``init_from`` that exist there; then the stage's
    copies.

    ``init_from`` is a model directory; its networks must have the sizes of ``config.model``.

    Raises:
        ValueError: a parameter of ``init_from`` has another shape here; all are named.
    """
    expected = traverse_util.flatten_dict(abstract_params(config.model), sep="/")
    given = {}
    if config.init_from:
        given = traverse_util.flatten_dict(load_model(config.init_from)[1], sep="/")
    wrong = [
        f"{path}: {given[path].shape} there, {expected[path].shape} here"
        for path in given.keys() & expected.keys()
        if given[path].shape != expected[path].shape
    ]
    if wrong:
        raise ValueError(f"{config.init_from} is of another size:\n  " + "\n  ".join(wrong))
    flat = {}
    if not expected.keys() <= given.keys():
        fresh = init_params(config.model, jax.random.key(config.seed))
        flat = traverse_util.flatten_dict(fresh, sep="/")
    flat |= {path: given[path] for path in given.keys() & expected.keys()}
    params = traverse_util.unflatten_dict(flat, sep="/")
    return start_from_copies(params, config.copies)


def write_model(
    config: TrainConfig, state: TrainState, data: TrainingData, path: epath.Path
) -> epath.Path:
    """Write the averaged weights as a model directory; an autoencoder also gets its scaling
    factor, 1 / std of its latents.
    """
    model_config, params = config.model, state.ema_params()
    if config.task == "autoencoder":
        model_config = with_scaling_factor(model_config, params, next(data))
    save_model(path, model_config, params, tokenizer_file=data.tokenizer_file, overwrite=True)
    print(f"{config.name}: wrote {path}", file=sys.stderr)
    return path


def with_scaling_factor(config: VideoBoothConfig, params: Params, batch: Batch) -> VideoBoothConfig:
    """Scale latents to unit variance, measured on one batch (latent diffusion, Section G)."""
    model = VideoBooth(config)
    mean, _ = model.apply({"params": params}, batch["video"], method="encode")
    factor = config.vae.scaling_factor / float(np.std(np.asarray(mean)))
    return replace(config, vae=replace(config.vae, scaling_factor=factor))

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
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from videobooth_jax.checkpointing import TrainCheckpoints, load_config, load_model, save_model
from videobooth_jax.models.videobooth import (
    VideoBooth,
    VideoBoothConfig,
    abstract_params,
    init_params,
)
from videobooth_jax.sharding import check_batch, make_mesh, place_batch, place_state
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.data import TrainingData, open_training_data
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.metrics import Reporter
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.phases import start_from_copies
from videobooth_jax.training.samples import sample_grid
from videobooth_jax.training.state import TrainState, create_state
from videobooth_jax.training.train_step import TrainStep, make_loss, make_train_step
from videobooth_jax.typing import Params


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
    mesh = make_mesh(config.mesh.data)
    check_batch(mesh, config.data.batch_size)
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
        TrainCheckpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    ) as checkpoints:
        if checkpoints.latest_step() is not None:
            state, position = checkpoints.restore(state)
            data.set_position(str(position))
            print(f"{config.name}: resumed from step {int(state.step)}", file=sys.stderr)
        step_fn = jax.jit(
            make_train_step(make_loss(config), optimizer, config.ema_decay), donate_argnums=0
        )
        with stop_signals() as stopped:
            state = run_steps(config, mesh, state, step_fn, data, checkpoints, workdir, stopped)
    if int(state.step) < config.steps:
        print(f"{config.name}: stopped at step {int(state.step)}, saved", file=sys.stderr)
        return None
    return write_model(config, state, data, workdir / "model")


def run_steps(
    config: TrainConfig,
    mesh: Mesh,
    state: TrainState,
    step_fn: TrainStep,
    data: TrainingData,
    checkpoints: TrainCheckpoints,
    workdir: Path,
    stopped: Callable[[], bool],
) -> TrainState:
    """Step until ``config.steps`` or a stop signal, reporting and saving on the way and at the
    end.
    """
    step = saved = int(state.step)
    reporter = Reporter(workdir, config.name, step, config.steps, config.data.batch_size)
    pending: list[Metrics] = []
    examples = next(open_training_data(config.data, config.model)) if config.sample_every else {}
    with contextlib.closing(reporter):
        while step < config.steps and not stopped():
            batch = place_batch(mesh, _next(data, reporter), config.data.batch_size)
            state, metrics = step_fn(state, batch)
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


def write_model(config: TrainConfig, state: TrainState, data: TrainingData, path: Path) -> Path:
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

"""One optimizer step of any task, and the table of tasks."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from videobooth_jax.diffusion.schedules import NoiseSchedule, make_schedule, respace
from videobooth_jax.models.videobooth import DiffusionSettings, VideoBooth
from videobooth_jax.training import losses
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.optimizer import update_ema, warmed_up_decay
from videobooth_jax.training.phases import merge
from videobooth_jax.training.progress import NONFINITE
from videobooth_jax.training.state import TrainState
from videobooth_jax.typing import Array, Params

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
ValidationStep = Callable[[TrainState, Batch, Array | np.integer], Metrics]

HELD_OUT = 2**32 - 1
"""Folded into a run's key for the draws of validation; no step has this number."""


def training_schedule(settings: DiffusionSettings, respacing: str) -> NoiseSchedule:
    """The process timesteps are drawn from; respaced to 250 by the published trainers (quirk 9)."""
    schedule = make_schedule(
        settings.num_train_timesteps,
        settings.beta_schedule,
        settings.beta_start,
        settings.beta_end,
        zero_terminal_snr=settings.zero_terminal_snr,
    )
    return respace(schedule, respacing)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A task's loss in two parts, so that a batch can be evaluated piece by piece on draws made for
    the whole of it.

    Attributes:
        draw: ``(batch, key) -> draws``, everything random; leaves with as many rows as the batch
            belong to its rows, the others to all.
        evaluate: ``(params, batch, draws) -> (loss, metrics)``.
        is_mean: whether the loss is a mean over rows, so that the mean over equal pieces is the
            loss of the whole.
    """

    draw: Callable[[Batch, Array], Any]
    evaluate: Callable[[Params, Batch, Any], tuple[Array, Metrics]]
    is_mean: bool = True


def make_loss(config: TrainConfig) -> Loss:
    """The loss of ``config.task``, of batches whose pictures may be uint8."""
    model = VideoBooth(config.model)
    objective = config.objective
    table = {
        "diffusion": lambda: _diffusion(config, model),
        "autoencoder": lambda: Loss(
            partial(losses.autoencoder_noise, model),
            partial(losses.autoencoder_loss, model, objective),
        ),
        "clip": lambda: Loss(
            lambda batch, key: (),
            lambda params, batch, draws: losses.clip_loss(model, params, batch),
            is_mean=False,
        ),
    }
    loss = table[config.task]()

    def evaluate(params: Params, batch: Batch, draws: Any) -> tuple[Array, Metrics]:
        return loss.evaluate(params, losses.pixels_as_floats(batch), draws)

    return dataclasses.replace(loss, evaluate=evaluate)


def _diffusion(config: TrainConfig, model: VideoBooth) -> Loss:
    objective = config.objective
    schedule = training_schedule(config.model.diffusion, objective.respacing)

    def draw(batch: Batch, key: Array) -> tuple[dict[str, Array] | None, losses.Draws]:
        encode_key, draw_key = jax.random.split(key)
        noise = losses.posterior_noise(model, batch, encode_key)
        latents = batch["latents"] if "latents" in batch else noise["latents"]
        copies = latents.shape[1] if config.model.diffusion.exemplar_mode == "replicated" else 1
        draws = losses.draw(
            draw_key, latents, len(schedule.timestep_map), copies, objective.drop_probability
        )
        return (noise if objective.sample_posterior else None), draws

    def evaluate(params: Params, batch: Batch, draws: Any) -> tuple[Array, Metrics]:
        noise, draws = draws
        batch = losses.encode_pixels(model, params, batch, noise)
        return losses.diffusion_loss(model, objective, schedule, params, batch, draws)

    return Loss(draw, evaluate)


def check_accumulation(config: TrainConfig, devices: int) -> None:
    """Raises ValueError unless batches can be split into ``accumulate_steps`` parts over
    ``devices``.
    """
    count, rows = config.accumulate_steps, config.data.batch_size
    if count < 1:
        raise ValueError(f"accumulate_steps={count}: give 1, or more to save memory")
    if rows % (count * devices):
        raise ValueError(
            f"accumulate_steps={count}: a batch of {rows} cannot be split evenly into {count} "
            f"parts over {devices} devices; make data.batch_size a multiple of {count * devices}"
        )
    if count > 1 and not make_loss(config).is_mean:
        raise ValueError(
            f"accumulate_steps={count}: the {config.task} task compares all rows of a batch with "
            "one another and cannot be split; set it to 1"
        )


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate_steps: int = 1,
) -> TrainStep:
    """Gradient of the trained leaves only, one optimizer update, one EMA update.

    A step whose loss or gradient norm is not finite changes nothing but the step counter, so that
    data and draws go on; its metric ``nonfinite`` is 1. To be jitted by the caller, state donated.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        draws = loss.draw(batch, jax.random.fold_in(state.key, state.step))
        value, metrics, gradients = _gradients(loss, state, batch, draws, accumulate_steps)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        ema = update_ema(state.ema, trained, warmed_up_decay(ema_decay, state.step))
        trained, opt_state, ema = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (trained, opt_state, ema),
            (state.trained, state.opt_state, state.ema),
        )
        metrics = metrics | {
            "loss": value,
            "grad_norm": norm,
            NONFINITE: jnp.logical_not(finite).astype(jnp.float32),
        }
        new = dataclasses.replace(
            state,
            step=state.step + jnp.int32(1),
            trained=trained,
            opt_state=opt_state,
            ema=ema,
        )
        return new, metrics

    return train_step


def make_validation_step(loss: Loss, accumulate_steps: int = 1) -> ValidationStep:
    """Loss and metrics of the averaged weights on a batch, in as many parts as in training; what is
    drawn depends on the run's key and the number of the batch, (), int32.
    """

    def validation_step(state: TrainState, batch: Batch, number: Array | np.integer) -> Metrics:
        key = jax.random.fold_in(jax.random.fold_in(state.key, HELD_OUT), number)
        params = state.ema_params()

        def evaluate(batch: Batch, draws: Any) -> tuple[Array, Metrics]:
            return loss.evaluate(params, batch, draws)

        value, metrics = _mean(evaluate, batch, loss.draw(batch, key), accumulate_steps)
        return metrics | {"loss": value}

    return validation_step


def _gradients(
    loss: Loss, state: TrainState, batch: Batch, draws: Any, count: int
) -> tuple[Array, Metrics, Params]:
    """Loss, metrics and gradient of the trained leaves, see `_mean`."""

    def loss_of(trained: Params, batch: Batch, draws: Any) -> tuple[Array, Metrics]:
        return loss.evaluate(merge(trained, state.frozen), batch, draws)

    def evaluate(batch: Batch, draws: Any) -> tuple[Array, Metrics, Params]:
        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        (value, metrics), gradients = differentiate(state.trained, batch, draws)
        return value, metrics, gradients

    return _mean(evaluate, batch, draws, count)


def _mean(evaluate: Callable[[Batch, Any], Any], batch: Batch, draws: Any, count: int) -> Any:
    """Means of what ``evaluate`` gives, any pytree, over ``count`` equal parts of the batch, one
    after the other, so that activations of one part are held at a time.
    """
    if count == 1:
        return evaluate(batch, draws)
    parts, whole = _split_rows((batch, draws), len(batch["ids"]), count)

    def add(total: Any, part: list[Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, evaluate(*whole(part))), None

    shapes = jax.eval_shape(lambda: evaluate(*whole([part[0] for part in parts])))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / count, total)


def _split_rows(
    tree: Any, rows: int, count: int
) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Leaves of ``rows`` rows as (count, rows / count, ...), and a function from one part of each
    to a tree like the one given, the other leaves whole.

    Part i takes rows i, i + count, ...: where rows are spread over devices in blocks, every part is
    spread in the same way and nothing has to move.
    """
    leaves, structure = jax.tree.flatten(tree)
    split = [leaf.ndim > 0 and len(leaf) == rows for leaf in leaves]
    parts = [
        leaf.reshape(rows // count, count, *leaf.shape[1:]).swapaxes(0, 1)
        for leaf, is_split in zip(leaves, split, strict=True)
        if is_split
    ]

    def whole(part: list[Array]) -> Any:
        given = iter(part)
        chosen = (next(given) if s else leaf for s, leaf in zip(split, leaves, strict=True))
        return jax.tree.unflatten(structure, chosen)

    return parts, whole

"""One optimizer step of any task, and the table of tasks."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from videobooth_jax.diffusion.schedules import NoiseSchedule, make_schedule, respace
from videobooth_jax.models.videobooth import DiffusionSettings, VideoBooth
from videobooth_jax.training import losses
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.losses import Batch, LossFn, Metrics
from videobooth_jax.training.optimizer import update_ema, warmed_up_decay
from videobooth_jax.training.phases import merge
from videobooth_jax.training.state import TrainState
from videobooth_jax.typing import Array, Params

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


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


def make_loss(config: TrainConfig) -> LossFn:
    """The loss of ``config.task`` as ``(params, batch, key) -> (loss, metrics)``."""
    model = VideoBooth(config.model)
    objective = config.objective

    def diffusion(params: Params, batch: Batch, key: Array) -> tuple[Array, Metrics]:
        encode_key, draw_key = jax.random.split(key)
        batch = losses.encode_pixels(model, params, batch, encode_key, objective.sample_posterior)
        frames = batch["latents"].shape[1]
        copies = frames if config.model.diffusion.exemplar_mode == "replicated" else 1
        schedule = training_schedule(config.model.diffusion, objective.respacing)
        draws = losses.draw(
            draw_key,
            batch["latents"],
            len(schedule.timestep_map),
            copies,
            objective.drop_probability,
        )
        return losses.diffusion_loss(model, objective, schedule, params, batch, draws)

    table: dict[str, LossFn] = {
        "diffusion": diffusion,
        "autoencoder": partial(losses.autoencoder_loss, model, objective),
        "clip": partial(losses.clip_loss, model),
    }
    return table[config.task]


def make_train_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, ema_decay: float
) -> TrainStep:
    """Gradient of the trained leaves only, one optimizer update, one EMA update.

    To be jitted by the caller, state donated.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def loss_of(trained: Params) -> tuple[Array, Metrics]:
            return loss_fn(merge(trained, state.frozen), batch, key)

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.trained)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        decay = warmed_up_decay(ema_decay, state.step)
        metrics = metrics | {"loss": loss, "grad_norm": optax.global_norm(gradients)}
        new = dataclasses.replace(
            state,
            step=state.step + jnp.int32(1),
            trained=trained,
            opt_state=opt_state,
            ema=update_ema(state.ema, trained, decay),
        )
        return new, metrics

    return train_step

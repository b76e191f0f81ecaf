"""Runners of the diffusion process: its tables, and single steps with a toy model."""

from dataclasses import fields
from typing import Any

import jax.numpy as jnp
import numpy as np

from parity.cases import Case
from videobooth_jax.diffusion import gaussian
from videobooth_jax.diffusion.samplers import make_sampler
from videobooth_jax.diffusion.schedules import make_schedule, respace


def run_tables(case: Case, dtype: str) -> dict[str, Any]:
    schedule = respace(make_schedule(**case.config), case.options["respacing"])
    return {field.name: getattr(schedule, field.name) for field in fields(schedule)}


def run_toy(case: Case, dtype: str) -> dict[str, Any]:
    """Toy model: 0.3 x + 0.05 (original timestep / 1000)."""
    x, noise, t = (jnp.asarray(case.inputs(dtype)[role]) for role in ("x", "noise", "t"))
    full = make_schedule(**case.config)
    sampler = make_sampler("ddpm", full, case.options["respacing"])
    clipped = make_sampler("ddpm", full, case.options["respacing"], clip_x0=1.0)
    schedule = sampler.schedule

    def model(x_t):
        return 0.3 * x_t + 0.05 * gaussian.look_up(schedule.timestep_map / 1000, t, x_t)

    epsilon, step = model(x), len(sampler) - 1 - t
    state, pred_xstart = sampler.step(sampler.init(x), step, epsilon, noise)
    _, clip_pred_xstart = clipped.step(clipped.init(x), step, epsilon, noise)
    reverse = gaussian.posterior(schedule, pred_xstart, x, t)
    noised = gaussian.q_sample(schedule, x, noise, t)
    target = gaussian.training_target(schedule, "epsilon", x, noise, t)
    error = np.square(np.asarray(model(noised) - target))
    return {
        "q_sample": noised,
        "mean": reverse.mean,
        "variance": reverse.variance.reshape(-1),
        "log_variance": reverse.log_variance.reshape(-1),
        "pred_xstart": pred_xstart,
        "clip_mean": gaussian.posterior(schedule, clip_pred_xstart, x, t).mean,
        "clip_pred_xstart": clip_pred_xstart,
        "p_sample": state.latents,
        "training_loss": error.reshape(len(error), -1).mean(axis=1),
    }

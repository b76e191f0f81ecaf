"""AdamW or Muon, schedule, clip, and the moving average of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from videobooth_jax.training.config import OptimizerConfig
from videobooth_jax.typing import Array, Params


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant or a cosine down to a tenth."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(1, steps - warmup), alpha=0.1),
    }[config.schedule]
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def _adamw(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Decoupled decay, which is 0 in the published stages."""
    return optax.adamw(
        rate, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )


NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of Muon's five steps (Jordan et al. 2024), for each step: so Optax writes a loop.
Given once, the steps are unrolled, and five times as many matmuls make compiling, starting again
and, on CPUs, every step longer (docs/training.md)."""


def _muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon for kernels, AdamW for the rest; 0.2 is AdamW's usual size of an update (Liu et al.
    2025, arXiv 2502.16982).
    """
    return muon(
        rate,
        ns_coeffs=NEWTON_SCHULZ,
        beta=0.95,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=0.2,
    )


def _matrices(params: optax.Params) -> Any:
    """For each kernel which axes go in and which come out; None for everything else."""

    def axes(path: tuple[Any, ...], leaf: Array) -> MuonDimensionNumbers | None:
        if leaf.ndim < 2 or path[-1].key != "kernel":
            return None
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


OPTIMIZERS = {"adamw": _adamw, "muon": _muon}
"""``OptimizerConfig.name`` -> what follows the clip."""


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then the optimizer of ``config.name``."""
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        OPTIMIZERS[config.name](config, learning_rate(config, steps)),
    )

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        # Optax raises floats to integer step counts, which strict dtype promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def update_ema(ema: Params, params: Params, decay: float | Array) -> Params:
    """``decay * ema + (1 - decay) * params``, leaf by leaf."""
    return jax.tree.map(lambda e, p: e * decay + p * (1 - decay), ema, params)


def warmed_up_decay(decay: float, step: Array) -> Array:
    """min(decay, (1 + step) / (10 + step)): early averages follow, late ones hold."""
    step = step.astype(jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1.0 + step) / (10.0 + step))

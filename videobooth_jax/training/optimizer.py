"""AdamW, schedule, clip, and the moving average of weights."""

import jax
import jax.numpy as jnp
import optax

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


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (decoupled decay, which is 0 in the published stages)."""
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        ),
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

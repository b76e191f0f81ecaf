"""The state of a run: what is trained, what is frozen, moments, moving average, position."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from videobooth_jax.training.phases import merge, split
from videobooth_jax.typing import Array, Params


@flax.struct.dataclass
class TrainState:
    """One pytree, saved and restored as a unit.

    Only ``trained`` leaves have gradients, moments (``opt_state``) and an average (``ema``).
    ``key`` is the run's base key: step k uses ``fold_in(key, k)``, so a resumed run draws what an
    unbroken one would have.
    """

    step: Array
    trained: Params
    frozen: Params
    opt_state: optax.OptState
    ema: Params
    key: Array

    def params(self) -> Params:
        """All parameters as they are being trained."""
        return merge(self.trained, self.frozen)

    def ema_params(self) -> Params:
        """All parameters with the trained ones averaged: what is sampled from and shipped."""
        return merge(self.ema, self.frozen)


def create_state(
    params: Params,
    trainable: tuple[str, ...],
    optimizer: optax.GradientTransformation,
    key: Array,
    frozen_dtype: str = "float32",
) -> TrainState:
    """Start a phase from ``params``: trained leaves in float32, frozen ones in ``frozen_dtype``.

    Every leaf is a copy, so that the state can be donated whatever ``params`` shares.
    """
    trained, frozen = split(params, trainable)
    trained = jax.tree.map(lambda x: jnp.array(x, jnp.float32), trained)
    frozen = jax.tree.map(lambda x: jnp.array(x, frozen_dtype), frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained),
        key=key,
    )

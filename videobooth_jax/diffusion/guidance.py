"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598)."""

import jax.numpy as jnp
from jaxtyping import Float

from videobooth_jax.typing import Array

Predictions = Float[Array, "batch ... channels"]


def guide(
    conditional: Predictions,
    unconditional: Predictions,
    scale: float | Array,
    guided_channels: int | None = None,
) -> Predictions:
    """Push the conditional prediction away from the unconditional one: ``u + scale (c - u)``.

    Args:
        conditional: prediction of the prompt, channels last.
        unconditional: prediction without it, same shape.
        scale: 1 gives the conditional prediction, 0 the unconditional one.
        guided_channels: guide only the first so many channels; the others stay the conditional
            branch's own. The published sampler guides 3 of 4 latent channels. None guides all.

    Raises:
        ValueError: if the shapes differ, or there are fewer channels than ``guided_channels``.
    """
    if conditional.shape != unconditional.shape:
        raise ValueError(
            "guidance needs two predictions of one shape, "
            f"not {conditional.shape} and {unconditional.shape}"
        )
    channels = conditional.shape[-1]
    count = channels if guided_channels is None else guided_channels
    if not 0 <= count <= channels:
        raise ValueError(f"guided_channels={count}, but the prediction has {channels} channels")
    first = unconditional[..., :count]
    guided = first + scale * (conditional[..., :count] - first)
    return jnp.concatenate([guided, conditional[..., count:]], axis=-1)

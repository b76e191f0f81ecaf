"""The forward process, and the three things a network may predict, each a linear map of another.

With ``a = sqrt(abar_t)`` and ``s = sqrt(1 - abar_t)``::

    x_t = a x_0 + s eps      v = a eps - s x_0      x_0 = a x_t - s v      eps = s x_t + a v

(Ho et al. 2020, arXiv 2006.11239; v: Salimans & Ho 2022, arXiv 2202.00512, appendix D). Arrays are
(batch, ...) of any rank, ``t`` (batch,) indexes the tables of the schedule given: original
timesteps for an unrespaced one. Results have the dtype of ``x_t``; keep latents in float32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from videobooth_jax.diffusion.schedules import NoiseSchedule
from videobooth_jax.typing import Array, Images, Keys, Latents, Timesteps

Samples = Float[Array, "batch ..."]
_Weights = tuple[np.ndarray, np.ndarray]
_Conversions = dict[tuple[str, str], Callable[[np.ndarray, np.ndarray], _Weights]]

# (from, to) -> weights of x_t and of the prediction, given a and s.
_CONVERSIONS: _Conversions = {
    ("epsilon", "x0"): lambda a, s: (1 / a, -s / a),
    ("v", "x0"): lambda a, s: (a, -s),
    ("x0", "epsilon"): lambda a, s: (1 / s, -a / s),
    ("v", "epsilon"): lambda a, s: (s, a),
    ("epsilon", "v"): lambda a, s: (-s / a, 1 / a),
    ("x0", "v"): lambda a, s: (a / s, -1 / s),
}
PREDICTION_TYPES = ("epsilon", "x0", "v")


def check_prediction_type(schedule: NoiseSchedule, prediction_type: str) -> None:
    """Refuse what cannot be sampled.

    Raises:
        ValueError: if the type is unknown, or is "epsilon" where a schedule with zero terminal SNR
            leaves nothing but noise.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"unknown prediction_type {prediction_type!r}; "
            f"choose one of {', '.join(PREDICTION_TYPES)}"
        )
    if prediction_type == "epsilon" and schedule.alphas_cumprod[-1] == 0:
        raise ValueError(
            'prediction_type="epsilon" cannot work with zero_terminal_snr: at the last timestep x '
            "is pure noise, and knowing the noise says nothing about the picture; "
            'use prediction_type="v", or zero_terminal_snr=False'
        )


def look_up(table: np.ndarray, t: Timesteps, like: Array) -> Array:
    """Entries ``t`` (batch,) of a table, shaped (batch, 1, ...) and typed to multiply ``like``."""
    return jnp.asarray(table, like.dtype)[t].reshape(-1, *(1,) * (like.ndim - 1))


def _amplitudes(schedule: NoiseSchedule) -> _Weights:
    return np.sqrt(schedule.alphas_cumprod), np.sqrt(1 - schedule.alphas_cumprod)


def q_sample(schedule: NoiseSchedule, x0: Samples, noise: Samples, t: Timesteps) -> Samples:
    """Noised samples ``x_t = a x_0 + s eps`` (DDPM, eq. 4)."""
    signal, sigma = _amplitudes(schedule)
    return look_up(signal, t, x0) * x0 + look_up(sigma, t, x0) * noise


def velocity(schedule: NoiseSchedule, x0: Samples, noise: Samples, t: Timesteps) -> Samples:
    """``v = a eps - s x_0``."""
    signal, sigma = _amplitudes(schedule)
    return look_up(signal, t, x0) * noise - look_up(sigma, t, x0) * x0


def training_target(
    schedule: NoiseSchedule, prediction_type: str, x0: Samples, noise: Samples, t: Timesteps
) -> Samples:
    """What a network of this prediction type should say about ``q_sample(schedule, x0, noise, t)``.

    Raises:
        ValueError: see `check_prediction_type`.
    """
    check_prediction_type(schedule, prediction_type)
    targets = {"epsilon": noise, "x0": x0, "v": velocity(schedule, x0, noise, t)}
    return targets[prediction_type]


def _convert(
    schedule: NoiseSchedule,
    source: str,
    target: str,
    x_t: Samples,
    prediction: Samples,
    t: Timesteps,
) -> Samples:
    check_prediction_type(schedule, source)
    prediction = prediction.astype(x_t.dtype)
    if source == target:
        return prediction
    of_x, of_prediction = _CONVERSIONS[source, target](*_amplitudes(schedule))
    return look_up(of_x, t, x_t) * x_t + look_up(of_prediction, t, x_t) * prediction


def to_x0(
    schedule: NoiseSchedule, prediction_type: str, x_t: Samples, prediction: Samples, t: Timesteps
) -> Samples:
    """The clean sample that a prediction at ``x_t`` stands for.

    Raises:
        ValueError: see `check_prediction_type`.
    """
    return _convert(schedule, prediction_type, "x0", x_t, prediction, t)


def to_epsilon(
    schedule: NoiseSchedule, prediction_type: str, x_t: Samples, prediction: Samples, t: Timesteps
) -> Samples:
    """The noise that a prediction at ``x_t`` stands for.

    Raises:
        ValueError: see `check_prediction_type`.
    """
    return _convert(schedule, prediction_type, "epsilon", x_t, prediction, t)


def to_v(
    schedule: NoiseSchedule, prediction_type: str, x_t: Samples, prediction: Samples, t: Timesteps
) -> Samples:
    """The velocity that a prediction at ``x_t`` stands for.

    Raises:
        ValueError: see `check_prediction_type`.
    """
    return _convert(schedule, prediction_type, "v", x_t, prediction, t)


class ReverseStep(NamedTuple):
    """Gaussian of a reverse step: mean like x_t, variance and log variance (batch, 1, ...)."""

    mean: Samples
    variance: Samples
    log_variance: Samples


def posterior(schedule: NoiseSchedule, x0: Samples, x_t: Samples, t: Timesteps) -> ReverseStep:
    """The reverse step given (a prediction of) x_0: mean of DDPM eq. 7, variance "fixed large"."""
    of_x0 = look_up(schedule.posterior_mean_coef1, t, x_t)
    of_x = look_up(schedule.posterior_mean_coef2, t, x_t)
    return ReverseStep(
        mean=of_x0 * x0 + of_x * x_t,
        variance=look_up(schedule.used_variance, t, x_t),
        log_variance=look_up(schedule.used_log_variance, t, x_t),
    )


def draw_noise(keys: Keys, shape: tuple[int, ...], dtype: jnp.dtype | str = "float32") -> Samples:
    """Standard normal noise (batch, *shape); a row depends on its own key only."""
    return jax.vmap(lambda key: normal(key, shape, dtype))(keys)


def normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype | str = "float32") -> Array:
    """The values of ``jax.random.normal``, drawn flat: XLA compiles that many times faster."""
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def noise_exemplar(
    schedule: NoiseSchedule,
    latents: Images,
    t: Timesteps,
    keys: Keys,
    copies: int,
    shared: bool = False,
) -> Latents:
    """Copies of the exemplar, noised to step ``t`` for its own branch (VideoBooth, section 3.3).

    Args:
        schedule: the process that ``t`` indexes.
        latents: scaled latents of the image prompt (b h w c).
        t: steps (b,).
        keys: one per sample (b,).
        copies: how many; the published model uses one per frame.
        shared: whether all copies of a sample get the same noise (then one copy gives the same
            result), or each its own.

    Returns:
        Noised latents (b copies h w c).
    """
    shape = latents.shape[1:]
    noise = draw_noise(keys, (1 if shared else copies, *shape), latents.dtype)
    full = (latents.shape[0], copies, *shape)
    clean = jnp.broadcast_to(latents[:, None], full)
    return q_sample(schedule, clean, jnp.broadcast_to(noise, full), t)

"""DDPM, DDIM and DPM-Solver++(2M): one linear step each, so a sampler is a table.

Every step of all three methods is a weighted sum ::

    x_next = p x + q D + r D_previous + w z

of the current sample, the predicted clean sample ``D``, the previous step's ``D``, and fresh noise
``z``; methods differ in the weights alone (`SAMPLERS`). Weights are worked out once in float64,
with limits taken where the terminal SNR is zero.

Randomness: one typed key per sample. Step ``i`` (0 is the noisiest) draws from ``fold_in(key, i)``,
split into ``(exemplar_key, x_key)`` in this order: the network's own noise first, then the step's,
at every step, the last included. The starting noise (`initial_latents`) comes from a fold no step
uses, the same for any number of steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videobooth_jax.diffusion.gaussian import (
    Samples,
    check_prediction_type,
    draw_noise,
    look_up,
    to_x0,
)
from videobooth_jax.diffusion.schedules import NoiseSchedule, Table, respace
from videobooth_jax.typing import Array, Keys, Latents, Timesteps

Denoise = Callable[[Latents, Timesteps, Keys], Latents]
"""``denoise(latents, timesteps (b,), keys (b,)) -> prediction``: original timesteps; keys for the
exemplar's own noise.
"""

INITIAL_FOLD = 2**32 - 1


class Weights(NamedTuple):
    """One row per sampling step, noisiest first: weights of x, D, the previous D, and noise."""

    x: Table
    x0: Table
    previous_x0: Table
    noise: Table


def _descending(schedule: NoiseSchedule) -> tuple[Table, Table]:
    """``abar`` where a step starts and where it ends; the last one ends at the clean sample."""
    abar = schedule.alphas_cumprod
    return abar[::-1], np.append(1.0, abar[:-1])[::-1]


def _ddpm(schedule: NoiseSchedule, eta: float) -> Weights:
    """Ancestral sampling with "fixed large" variance (Ho et al. 2020, algorithm 2)."""
    zeros = np.zeros(len(schedule))
    deviation = np.exp(0.5 * schedule.used_log_variance)
    deviation[0] = 0.0
    coef1, coef2 = schedule.posterior_mean_coef1, schedule.posterior_mean_coef2
    return Weights(coef2[::-1], coef1[::-1], zeros, deviation[::-1])


def _ddim(schedule: NoiseSchedule, eta: float) -> Weights:
    """Song et al. 2020 (arXiv 2010.02502), eq. 12, 16; eta 0 is deterministic, 1 resembles DDPM."""
    now, then = _descending(schedule)
    # 1 - now / then, the respaced beta, is 1 where nothing of the signal is left.
    noise = eta * np.sqrt((1 - then) / (1 - now) * (1 - now / then))
    x = np.sqrt((1 - then - noise**2) / (1 - now))
    return Weights(x, np.sqrt(then) - x * np.sqrt(now), np.zeros(len(schedule)), noise)


def _dpmpp_2m(schedule: NoiseSchedule, eta: float) -> Weights:
    """Lu et al. 2022 (arXiv 2211.01095), algorithm 2, over ``log(a/s)``; ends are first order."""
    now, then = _descending(schedule)
    with np.errstate(divide="ignore"):  # lambda is -inf at zero SNR and +inf at the clean sample
        lambda_now, lambda_then = (0.5 * (np.log(a) - np.log1p(-a)) for a in (now, then))
    step = lambda_then - lambda_now
    half_ratio = np.zeros(len(schedule))  # 1 / (2 r) with r = previous step / step
    half_ratio[1:-1] = step[1:-1] / (2 * step[:-2])
    x0 = -np.sqrt(then) * np.expm1(-step)
    return Weights(np.sqrt((1 - then) / (1 - now)), x0 * (1 + half_ratio), -x0 * half_ratio, 0 * x0)


class Method(NamedTuple):
    """A way to sample: weights for a (respaced) schedule and eta; how n steps are spread."""

    weights: Callable[[NoiseSchedule, float], Weights]
    spacing: str


# The published spacing visits timestep 0, from which one step leads almost nowhere; before it lies
# the widest gap in log(a / s), over which a second-order step overshoots. Hence "trailing".
SAMPLERS: dict[str, Method] = {
    "ddpm": Method(_ddpm, "{}"),
    "ddim": Method(_ddim, "trailing{}"),
    "dpmpp_2m": Method(_dpmpp_2m, "trailing{}"),
}


class SamplerState(NamedTuple):
    """Carried from step to step: the sample and the last prediction of x_0, both (b, ...)."""

    latents: Samples
    previous_x0: Samples


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """A method bound to a (respaced) schedule; make one with `make_sampler`.

    Attributes:
        schedule: the process of the steps visited.
        prediction_type: what the network predicts.
        weights: see `Weights`.
        clip_x0: clip predicted clean samples to [-clip_x0, clip_x0], or None.
    """

    schedule: NoiseSchedule
    prediction_type: str
    weights: Weights
    clip_x0: float | None = None

    def __len__(self) -> int:
        return len(self.schedule)

    @property
    def timesteps(self) -> np.ndarray:
        """Original timesteps (k,) in the order they are visited, descending, int32."""
        return self.schedule.timestep_map[::-1].astype(np.int32)

    def init(self, latents: Samples) -> SamplerState:
        """The state before step 0, from standard normal latents."""
        return SamplerState(latents, jnp.zeros_like(latents))

    def step(
        self, state: SamplerState, i: int | Array, prediction: Samples, noise: Samples
    ) -> tuple[SamplerState, Samples]:
        """Take step ``i``.

        Args:
            state: from `init` or the previous step.
            i: which step, 0 .. len(self) - 1; a number, a traced scalar, or one per sample (b,).
            prediction: the network's, at ``state.latents`` and ``timesteps[i]``; cast to the dtype
                of the latents.
            noise: standard normal; methods without randomness ignore it.

        Returns:
            The next state, and the prediction of x_0 that led to it (clipped, if so asked).
        """
        x = state.latents
        steps = jnp.broadcast_to(jnp.asarray(i, jnp.int32), x.shape[:1])
        t = len(self) - 1 - steps
        x0 = to_x0(self.schedule, self.prediction_type, x, prediction, t)
        if self.clip_x0 is not None:
            x0 = jnp.clip(x0, -self.clip_x0, self.clip_x0)
        terms = zip(self.weights, (x, x0, state.previous_x0, noise), strict=True)
        weighted = [look_up(weights, steps, x) * term for weights, term in terms]
        return SamplerState(sum(weighted[1:], start=weighted[0]), x0), x0


def make_sampler(
    name: str,
    schedule: NoiseSchedule,
    num_inference_steps: int | str,
    prediction_type: str = "epsilon",
    *,
    eta: float = 0.0,
    clip_x0: float | None = None,
) -> Sampler:
    """Bind a method to a schedule.

    Args:
        name: a key of `SAMPLERS`.
        schedule: the process the network was trained on.
        num_inference_steps: how many of its steps to visit, spread in the method's own way, or a
            respacing text, see `schedules.respaced_steps`.
        prediction_type: what the network predicts: "epsilon", "x0" or "v".
        eta: share of DDPM's noise in a "ddim" step, 0 .. 1.
        clip_x0: clip predicted clean samples to [-clip_x0, clip_x0]; the published sampler does not
            clip.

    Raises:
        ValueError: if the method or prediction type is unknown, the number of steps or eta does not
            fit, or an epsilon network is to be sampled with zero terminal SNR.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}")
    if not 0 <= eta <= 1 or (eta and name != "ddim"):
        raise ValueError(
            f'eta={eta} with sampler "{name}": eta is for "ddim" only, between 0 and 1'
        )
    check_prediction_type(schedule, prediction_type)
    method = SAMPLERS[name]
    exact = isinstance(num_inference_steps, str)
    respacing = num_inference_steps if exact else method.spacing.format(num_inference_steps)
    respaced = respace(schedule, respacing)
    if respaced.timestep_map[-1] == 0:
        raise ValueError(
            f'{num_inference_steps} step with sampler "{name}" would visit the cleanest timestep '
            "only; take at least 2"
        )
    return Sampler(respaced, prediction_type, method.weights(respaced, eta), clip_x0)


def initial_latents(
    keys: Keys, shape: tuple[int, ...], dtype: jnp.dtype | str = "float32"
) -> Samples:
    """Starting noise (b, *shape), one key per sample; apart from the draws of every step."""
    return draw_noise(
        jax.vmap(lambda key: jax.random.fold_in(key, INITIAL_FOLD))(keys), shape, dtype
    )


def step_keys(keys: Keys, i: int | Array) -> tuple[Keys, Keys]:
    """``(exemplar_keys, x_keys)``, each (b,), of step ``i``."""
    pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, i)))(keys)
    return pairs[:, 0], pairs[:, 1]


def _advance(
    sampler: Sampler, state: SamplerState, i: Array, prediction: Samples, x_keys: Keys
) -> tuple[SamplerState, Samples]:
    noise = draw_noise(x_keys, state.latents.shape[1:], state.latents.dtype)
    return sampler.step(state, i, prediction, noise)


def _timesteps(sampler: Sampler, i: int | Array, batch: int) -> Timesteps:
    return jnp.broadcast_to(jnp.asarray(sampler.timesteps)[i], (batch,))


def sample(sampler: Sampler, denoise: Denoise, latents: Latents, keys: Keys) -> Latents:
    """Run all steps as one `jax.lax.scan`.

    Call it inside a jitted function that takes the weights as arguments, so that they are not
    compiled in as constants.

    Args:
        sampler: from `make_sampler`.
        denoise: the network with everything but these three arguments bound; see `Denoise`.
        latents: starting noise (b, ...), see `initial_latents`.
        keys: typed keys (b,).

    Returns:
        Clean latents, same shape. A row depends on its own key only, on any batch split.
    """

    def body(state: SamplerState, i: Array) -> tuple[SamplerState, None]:
        exemplar_keys, x_keys = step_keys(keys, i)
        timesteps = _timesteps(sampler, i, latents.shape[0])
        prediction = denoise(state.latents, timesteps, exemplar_keys)
        return _advance(sampler, state, i, prediction, x_keys)[0], None

    state, _ = jax.lax.scan(body, sampler.init(latents), jnp.arange(len(sampler), dtype=jnp.int32))
    return state.latents


def sample_steps(
    sampler: Sampler, denoise: Denoise, latents: Latents, keys: Keys
) -> Iterator[tuple[int, Latents, Latents]]:
    """Run step by step, for progress bars and notebooks; the same numbers as `sample`.

    Give it a jitted ``denoise``. Arguments as for `sample`.

    Yields:
        ``(i, latents, pred_x0)`` after every step; the last latents are the result.
    """
    advance = jax.jit(functools.partial(_advance, sampler))
    state = sampler.init(latents)
    for i in range(len(sampler)):
        exemplar_keys, x_keys = step_keys(keys, i)
        timesteps = _timesteps(sampler, i, latents.shape[0])
        prediction = denoise(state.latents, timesteps, exemplar_keys)
        state, pred_x0 = advance(state, jnp.int32(i), prediction, x_keys)
        yield i, state.latents, pred_x0

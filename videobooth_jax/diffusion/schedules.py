"""Noise schedules and their respacing, as float64 tables.

The forward process adds noise (Ho et al. 2020, arXiv 2006.11239)::

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps      abar_t = prod_{s <= t} (1 - beta_s)

Respacing (Nichol & Dhariwal 2021, arXiv 2102.09672) keeps some of the timesteps and makes them a
process of its own with the same ``abar`` at what it kept. Zero terminal SNR is that of Lin et al.
(2023, arXiv 2305.08891).
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

Table = Float64[np.ndarray, "steps"]


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """One diffusion process; all tables have one entry per step, in order of growing noise.

    Attributes:
        betas: variance added by a step.
        alphas_cumprod: share of the signal's variance left, ``abar``.
        posterior_mean_coef1, posterior_mean_coef2: weights of x_0 and x_t in the mean of q(x_{t-1}
            | x_t, x_0) (DDPM, eq. 7).
        posterior_variance: its variance, 0 at step 0.
        posterior_log_variance_clipped: its logarithm, entry 0 replaced by entry 1.
        used_variance: the reverse step's variance actually used ("fixed large"): betas, entry 0
            replaced by the posterior's entry 1.
        used_log_variance: its logarithm.
        timestep_map: the original timestep of every step, which is what the network is told.
    """

    betas: Table
    alphas_cumprod: Table
    posterior_mean_coef1: Table
    posterior_mean_coef2: Table
    posterior_variance: Table
    posterior_log_variance_clipped: Table
    used_variance: Table
    used_log_variance: Table
    timestep_map: Int64[np.ndarray, "steps"]

    def __len__(self) -> int:
        return len(self.betas)


def _linear(steps: int, start: float, end: float) -> Table:
    return np.linspace(start, end, steps, dtype=np.float64)


def _scaled_linear(steps: int, start: float, end: float) -> Table:
    return np.linspace(start**0.5, end**0.5, steps, dtype=np.float64) ** 2


def _cosine(steps: int, start: float, end: float) -> Table:
    """Improved DDPM, eq. 17; the end points have no meaning here."""
    signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], 0.999)


BETA_SCHEDULES: dict[str, Callable[[int, float, float], Table]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "cosine": _cosine,
}


def _with_zero_terminal_snr(betas: Table) -> Table:
    """Shift and scale ``sqrt(abar)`` so that its last entry is 0 and its first stays (Lin et al.
    2023, algorithm 1).
    """
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    abar = root**2
    return 1 - abar / np.append(1.0, abar[:-1])


def _from_betas(betas: Table, timestep_map: np.ndarray) -> NoiseSchedule:
    abar = np.cumprod(1 - betas)
    previous = np.append(1.0, abar[:-1])
    variance = betas * (1 - previous) / (1 - abar)
    floor = variance[1] if len(betas) > 1 else betas[0]  # entry 0 is 0, and has no logarithm
    used = np.append(floor, betas[1:])
    return NoiseSchedule(
        betas=betas,
        alphas_cumprod=abar,
        posterior_mean_coef1=betas * np.sqrt(previous) / (1 - abar),
        posterior_mean_coef2=(1 - previous) * np.sqrt(1 - betas) / (1 - abar),
        posterior_variance=variance,
        posterior_log_variance_clipped=np.log(np.append(floor, variance[1:])),
        used_variance=used,
        used_log_variance=np.log(used),
        timestep_map=timestep_map,
    )


def make_schedule(
    num_train_timesteps: int = 1000,
    beta_schedule: str = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 2e-2,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """The process a model is trained on; the defaults are the published ones.

    Args:
        num_train_timesteps: number of steps.
        beta_schedule: a key of `BETA_SCHEDULES`.
        beta_start: first variance (not for "cosine").
        beta_end: last variance (not for "cosine").
        zero_terminal_snr: rescale so that nothing of the signal is left at the last step:
            ``alphas_cumprod[-1] == 0``. Such a model predicts v or x0, since the noise alone says
            nothing there.

    Raises:
        ValueError: if the schedule is unknown or the numbers make no process.
    """
    if beta_schedule not in BETA_SCHEDULES:
        raise ValueError(
            f"unknown beta_schedule {beta_schedule!r}; choose one of {', '.join(BETA_SCHEDULES)}"
        )
    if num_train_timesteps < 2 or not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            "a schedule needs at least 2 timesteps and 0 < beta_start <= beta_end < 1, "
            f"not {num_train_timesteps} timesteps, beta_start={beta_start}, beta_end={beta_end}"
        )
    betas = BETA_SCHEDULES[beta_schedule](num_train_timesteps, beta_start, beta_end)
    if zero_terminal_snr:
        betas = _with_zero_terminal_snr(betas)
    return _from_betas(betas, np.arange(num_train_timesteps))


def respaced_steps(num_timesteps: int, respacing: str | int) -> list[int]:
    """The steps that a respacing keeps, ascending.

    ================  ==========================================================================
    ``""``            all
    ``25``, ``"25"``  that many, evenly, with both ends
    ``"10,15,20"``    that many in each of so many equal sections
    ``"ddim25"``      every k-th, from the first, for the whole k that gives 25
    ``"trailing25"``  that many, evenly, down from the last and without the first (Lin et al.)
    ================  ==========================================================================

    All but the last are the published code's.

    Args:
        num_timesteps: length of the process.
        respacing: one of the above.

    Raises:
        ValueError: if the text is none of these, or asks for more steps than there are.
    """
    text = str(respacing).strip() or str(num_timesteps)
    for prefix, spread in (("ddim", _strided_steps), ("trailing", _trailing_steps)):
        if re.fullmatch(rf"{prefix}0*[1-9]\d*", text):
            return spread(num_timesteps, int(text.removeprefix(prefix)))
    if not re.fullmatch(r"0*[1-9]\d*( *, *0*[1-9]\d*)*", text):
        raise ValueError(
            f'cannot read respacing {respacing!r}; write a number of steps ("25"), '
            'numbers per section ("10,15,20"), "ddim25" or "trailing25"'
        )
    return _sectioned_steps(num_timesteps, [int(count) for count in text.split(",")])


def _strided_steps(num_timesteps: int, count: int) -> list[int]:
    for stride in range(1, num_timesteps):
        steps = range(0, num_timesteps, stride)
        if len(steps) == count:
            return list(steps)
    raise ValueError(
        f"no whole stride through {num_timesteps} timesteps gives {count} steps; "
        "choose another number"
    )


def _trailing_steps(num_timesteps: int, count: int) -> list[int]:
    if count > num_timesteps:
        raise ValueError(f"cannot keep {count} of {num_timesteps} timesteps")
    return [round((i + 1) * num_timesteps / count) - 1 for i in range(count)]


def _sectioned_steps(num_timesteps: int, counts: list[int]) -> list[int]:
    """The published rounding: a float stride is added up and rounded half to even."""
    size, extra = divmod(num_timesteps, len(counts))
    start, steps = 0, []
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise ValueError(
                f"cannot keep {count} of {length} timesteps "
                f"(section {i + 1} of {len(counts)} of a process of {num_timesteps})"
            )
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):
            steps.append(start + round(position))
            position += stride
        start += length
    return steps


def respace(schedule: NoiseSchedule, respacing: str | int) -> NoiseSchedule:
    """The process of only some steps of ``schedule``, with the same ``alphas_cumprod`` there.

    Args:
        schedule: the process to thin out.
        respacing: see `respaced_steps`.

    Raises:
        ValueError: see `respaced_steps`.
    """
    kept = schedule.alphas_cumprod[steps := respaced_steps(len(schedule), respacing)]
    return _from_betas(1 - kept / np.append(1.0, kept[:-1]), schedule.timestep_map[steps])

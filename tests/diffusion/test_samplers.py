"""Samplers against Gaussian data, for which the best prediction and the exact flow are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.diffusion.gaussian import posterior, to_x0
from videobooth_jax.diffusion.samplers import (
    SAMPLERS,
    initial_latents,
    make_sampler,
    sample,
    sample_steps,
    step_keys,
)
from videobooth_jax.diffusion.schedules import make_schedule, respace

MEAN, DEVIATION = 0.7, 0.4
SCHEDULES = {"epsilon": make_schedule(), "v": make_schedule(zero_terminal_snr=True)}


def ideal_prediction(schedule, kind, x, timesteps):
    """What a perfect network says about data from N(MEAN, DEVIATION^2)."""
    abar = jnp.asarray(schedule.alphas_cumprod, x.dtype)[timesteps].reshape(-1, 1)
    a, s = jnp.sqrt(abar), jnp.sqrt(1 - abar)
    gain = a * DEVIATION**2 / (abar * DEVIATION**2 + s**2)
    x0 = MEAN + gain * (x - a * MEAN)
    epsilon = s * (x - a * MEAN) / (abar * DEVIATION**2 + s**2)
    return {"x0": x0, "epsilon": epsilon, "v": a * epsilon - s * x0}[kind]


def run(name, kind, steps, count=4096, **options):
    schedule = SCHEDULES[kind]
    sampler = make_sampler(name, schedule, steps, kind, **options)
    keys = jax.random.split(jax.random.key(3), count)

    def denoise(x, timesteps, keys):
        return ideal_prediction(schedule, kind, x, timesteps)

    return jax.jit(lambda keys: sample(sampler, denoise, initial_latents(keys, (1,)), keys))(keys)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [("ddpm", 250, {}), ("ddim", 100, {}), ("ddim", 100, {"eta": 1.0}), ("dpmpp_2m", 25, {})],
)
def test_samples_have_the_datas_mean_and_deviation(name, kind, steps, options):
    out = run(name, kind, steps, **options)
    assert abs(float(out.mean()) - MEAN) < 0.03
    assert abs(float(out.std()) - DEVIATION) < 0.03


def flow_error(name, steps):
    """Error at an intermediate time against the exact solution of the probability flow.

    For Gaussian data the flow keeps (x - a MEAN) / sqrt(a^2 DEVIATION^2 + s^2). Many training steps
    make the time grid smooth. Float64 shows the order before rounding does.
    """
    schedule = make_schedule(6401, "linear", 2e-5, 3.2e-3)
    sampler = make_sampler(name, schedule, str(steps + 1), "x0")
    abar = schedule.alphas_cumprod[sampler.timesteps]
    spread = np.sqrt(abar * DEVIATION**2 + 1 - abar)
    x = jnp.asarray([[-1.3], [0.2], [1.9]], jnp.float64)
    state = sampler.init(x)
    stop = steps // 2
    for i in range(stop):
        timesteps = jnp.full(3, sampler.timesteps[i])
        prediction = ideal_prediction(schedule, "x0", state.latents, timesteps)
        state, _ = sampler.step(state, i, prediction, jnp.zeros_like(x))
    rescaled = (np.asarray(x) - np.sqrt(abar[0]) * MEAN) * spread[stop] / spread[0]
    exact = np.sqrt(abar[stop]) * MEAN + rescaled
    return np.abs(np.asarray(state.latents) - exact).max()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(name, order):
    with jax.enable_x64(True):
        errors = [flow_error(name, steps) for steps in (20, 40, 80)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (np.abs(orders - order) < 0.3).all(), orders


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", ["x0", "v"])
@pytest.mark.parametrize("steps", [2, 3, 25, "10,5", "trailing1"])
def test_zero_terminal_snr_gives_finite_weights_and_ends_at_the_prediction(name, kind, steps):
    sampler = make_sampler(name, SCHEDULES["v"], steps, kind)
    assert sampler.timesteps[0] == 999
    assert all(np.isfinite(weights).all() for weights in sampler.weights)
    assert [w[-1] for w in sampler.weights] == pytest.approx([0, 1, 0, 0], abs=1e-12)
    assert sampler.weights.previous_x0[0] == 0
    assert sampler.weights.previous_x0[-1] == 0


def test_a_ddpm_step_is_the_posterior_and_its_noise():
    schedule = respace(SCHEDULES["epsilon"], "50")
    sampler = make_sampler("ddpm", SCHEDULES["epsilon"], "50")
    rng = np.random.default_rng(0)
    x, prediction, noise = jnp.asarray(rng.standard_normal((3, 4, 2, 3)), jnp.float32)
    t = jnp.asarray([49, 20, 1, 0], jnp.int32)
    x0 = to_x0(schedule, "epsilon", x, prediction, t)
    step = posterior(schedule, x0, x, t)
    expected = step.mean + jnp.exp(0.5 * step.log_variance) * noise
    state, pred_x0 = sampler.step(sampler.init(x), 49 - t, prediction, noise)
    np.testing.assert_allclose(state.latents[:3], expected[:3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.latents[3], step.mean[3], rtol=1e-5)  # the last: no noise
    np.testing.assert_array_equal(pred_x0, x0)
    np.testing.assert_array_equal(state.previous_x0, x0)


def test_ddim_of_the_true_noise_stays_on_its_line():
    schedule = SCHEDULES["epsilon"]
    sampler = make_sampler("ddim", schedule, 10)
    x0, noise = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5)), jnp.float32)
    abar = schedule.alphas_cumprod[sampler.timesteps]
    state = sampler.init(np.sqrt(abar[0]) * x0 + np.sqrt(1 - abar[0]) * noise)
    for i in range(9):
        state, _ = sampler.step(state, i, noise, jnp.zeros_like(x0))
        expected = np.sqrt(abar[i + 1]) * x0 + np.sqrt(1 - abar[i + 1]) * noise
        np.testing.assert_allclose(state.latents, expected, atol=2e-4)


def test_clipping_bounds_every_predicted_sample():
    sampler = make_sampler("ddim", SCHEDULES["epsilon"], 5, clip_x0=1.0)
    x = 3 * jnp.ones((1, 4), jnp.float32)
    state, x0 = sampler.step(sampler.init(x), 0, -x, x)
    np.testing.assert_array_equal(x0, 1)
    np.testing.assert_array_equal(state.previous_x0, 1)


def noisy_denoise(x, timesteps, keys):
    """A network with randomness of its own, as the exemplar's noise is."""
    own = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
    share = (timesteps.astype(jnp.float32) / 1000).reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.tanh(x) * share + 0.1 * own


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m"])
def test_scan_and_steps_agree_on_any_batch_split(name):
    """One scan over four rows; two of them again, alone and step by step."""
    keys = jax.random.split(jax.random.key(0), 4)
    latents = initial_latents(keys, (2, 3, 3, 4))
    sampler = make_sampler(name, SCHEDULES["epsilon"], 6)
    together = jax.jit(lambda x, keys: sample(sampler, noisy_denoise, x, keys))(latents, keys)
    rows = slice(1, 3)
    steps = list(sample_steps(sampler, jax.jit(noisy_denoise), latents[rows], keys[rows]))
    assert [i for i, _, _ in steps] == list(range(6))
    _, last, pred_x0 = steps[-1]
    np.testing.assert_allclose(last, together[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last, pred_x0, rtol=1e-4, atol=1e-4)


def test_draws_are_the_documented_ones():
    key = jax.random.key(7)
    exemplar_keys, x_keys = step_keys(key[None], 4)
    expected = jax.random.split(jax.random.fold_in(key, 4))
    assert exemplar_keys[0] == expected[0]
    assert x_keys[0] == expected[1]
    start = initial_latents(jax.random.split(key, 2), (3,))
    alone = initial_latents(jax.random.split(key, 2)[1:], (3,))
    np.testing.assert_array_equal(start[1:], alone)


def test_spacing_of_a_number_of_steps():
    schedule = SCHEDULES["epsilon"]
    assert make_sampler("ddpm", schedule, 3).timesteps.tolist() == [999, 500, 0]
    assert make_sampler("ddim", schedule, 4).timesteps.tolist() == [999, 749, 499, 249]
    assert make_sampler("ddim", schedule, "3").timesteps.tolist() == [999, 500, 0]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("euler", 10), {}, "unknown sampler 'euler'; choose one of ddpm, ddim, dpmpp_2m"),
        (("ddim", 1001), {}, "cannot keep 1001 of 1000"),
        (("ddim", 0), {}, "cannot read respacing 'trailing0'"),
        (("ddpm", 1), {}, "cleanest timestep only"),
        (("ddpm", 10), {"eta": 0.5}, 'eta is for "ddim" only'),
        (("ddim", 10), {"eta": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_requests_are_refused(arguments, options, message):
    name, steps = arguments
    with pytest.raises(ValueError, match=message):
        make_sampler(name, SCHEDULES["epsilon"], steps, **options)


def test_epsilon_with_zero_terminal_snr_is_refused():
    with pytest.raises(ValueError, match="pure noise"):
        make_sampler("ddim", SCHEDULES["v"], 10, "epsilon")

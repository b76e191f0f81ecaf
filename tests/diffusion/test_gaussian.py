import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.diffusion import gaussian
from videobooth_jax.diffusion.schedules import make_schedule

PLAIN, ZERO_SNR = make_schedule(), make_schedule(zero_terminal_snr=True)
CONVERTERS = {"x0": gaussian.to_x0, "epsilon": gaussian.to_epsilon, "v": gaussian.to_v}


def samples(seed: int = 0):
    rng = np.random.default_rng(seed)
    x0, noise = rng.standard_normal((2, 3, 2, 4, 4, 2)).astype(np.float32)
    return jnp.asarray(x0), jnp.asarray(noise)


def test_noised_samples_have_the_right_share_of_each():
    x0, noise = samples()
    t = jnp.asarray([0, 400, 999], jnp.int32)
    x_t = gaussian.q_sample(PLAIN, x0, noise, t)
    for row, step in enumerate((0, 400, 999)):
        share = PLAIN.alphas_cumprod[step]
        expected = np.sqrt(share) * x0[row] + np.sqrt(1 - share) * noise[row]
        np.testing.assert_allclose(x_t[row], expected, atol=1e-6)


@pytest.mark.parametrize(("given", "wanted"), [*itertools.product(CONVERTERS, CONVERTERS)])
def test_every_prediction_can_be_read_as_every_other(given, wanted):
    x0, noise = samples()
    t = jnp.asarray([3, 300, 700], jnp.int32)
    x_t = gaussian.q_sample(PLAIN, x0, noise, t)
    truth = {kind: gaussian.training_target(PLAIN, kind, x0, noise, t) for kind in CONVERTERS}
    converted = CONVERTERS[wanted](PLAIN, given, x_t, truth[given], t)
    np.testing.assert_allclose(converted, truth[wanted], atol=1e-3)


@pytest.mark.parametrize("given", ["x0", "v"])
def test_pure_noise_is_no_obstacle_to_x0_and_v(given):
    x0, noise = samples()
    t = jnp.full(3, 999, jnp.int32)
    x_t = gaussian.q_sample(ZERO_SNR, x0, noise, t)
    np.testing.assert_array_equal(x_t, noise)
    target = gaussian.training_target(ZERO_SNR, given, x0, noise, t)
    for wanted, truth in (("x0", x0), ("epsilon", noise), ("v", -x0)):
        converted = CONVERTERS[wanted](ZERO_SNR, given, x_t, target, t)
        np.testing.assert_allclose(converted, truth, atol=1e-6)


def test_epsilon_with_zero_terminal_snr_is_refused():
    x0, noise = samples()
    t = jnp.zeros(3, jnp.int32)
    for call in (gaussian.to_x0, gaussian.to_v, gaussian.to_epsilon):
        with pytest.raises(ValueError, match=r'use prediction_type="v"'):
            call(ZERO_SNR, "epsilon", x0, noise, t)
    with pytest.raises(ValueError, match="zero_terminal_snr"):
        gaussian.training_target(ZERO_SNR, "epsilon", x0, noise, t)
    with pytest.raises(ValueError, match="unknown prediction_type 'score'"):
        gaussian.to_x0(PLAIN, "score", x0, noise, t)


def test_posterior_uses_the_schedules_tables():
    x0, x_t = samples()
    t = jnp.asarray([0, 10, 999], jnp.int32)
    step = gaussian.posterior(PLAIN, x0, x_t, t)
    np.testing.assert_allclose(step.mean[0], x0[0], atol=1e-6)  # at step 0, x_0 is all
    of_x0, of_x = PLAIN.posterior_mean_coef1[10], PLAIN.posterior_mean_coef2[10]
    np.testing.assert_allclose(step.mean[1], of_x0 * x0[1] + of_x * x_t[1], atol=1e-6)
    assert step.variance.shape == (3, 1, 1, 1, 1)
    np.testing.assert_allclose(step.variance.ravel()[1:], PLAIN.betas[[10, 999]], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(step.log_variance), step.variance, rtol=1e-5)


def test_predictions_are_cast_to_the_samples():
    x0, noise = samples()
    t = jnp.zeros(3, jnp.int32)
    assert gaussian.to_x0(PLAIN, "v", x0, noise.astype(jnp.bfloat16), t).dtype == jnp.float32


def test_noise_of_a_row_depends_on_its_own_key_only():
    keys = jax.random.split(jax.random.key(0), 4)
    noise = gaussian.draw_noise(keys, (3, 2))
    np.testing.assert_array_equal(noise[2:3], gaussian.draw_noise(keys[2:3], (3, 2)))
    assert len(np.unique(noise)) == noise.size


def exemplar_noise(copies: int, shared: bool):
    latents, _ = samples()
    clean = latents[:, 0]
    keys = jax.random.split(jax.random.key(0), 3)
    t = jnp.asarray([1, 500, 999], jnp.int32)
    noised = gaussian.noise_exemplar(PLAIN, clean, t, keys, copies, shared)
    share = PLAIN.alphas_cumprod[np.asarray(t)].reshape(3, 1, 1, 1, 1)
    return (np.asarray(noised) - np.sqrt(share) * np.asarray(clean)[:, None]) / np.sqrt(1 - share)


def test_exemplar_copies_share_their_noise_or_not():
    shared = exemplar_noise(copies=5, shared=True)
    assert shared.shape == (3, 5, 4, 4, 2)
    np.testing.assert_allclose(shared, np.broadcast_to(shared[:, :1], shared.shape), atol=1e-4)
    np.testing.assert_allclose(shared[:, :1], exemplar_noise(1, shared=False), atol=1e-4)
    own = exemplar_noise(copies=5, shared=False)
    assert np.abs(np.diff(own, axis=1)).mean() > 0.5
    assert abs(own.std() - 1) < 0.1

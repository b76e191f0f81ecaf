import numpy as np
import pytest

from videobooth_jax.diffusion.schedules import make_schedule, respace, respaced_steps

TABLES = (
    "betas",
    "alphas_cumprod",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "used_variance",
    "used_log_variance",
)


def test_published_process():
    schedule = make_schedule()
    assert len(schedule) == 1000
    np.testing.assert_allclose(schedule.betas[[0, 999]], [1e-4, 2e-2], rtol=1e-12)
    np.testing.assert_allclose(np.diff(schedule.betas), 1.99e-2 / 999, rtol=1e-9)
    assert schedule.posterior_variance[0] == 0
    assert schedule.used_variance[0] == schedule.posterior_variance[1]
    np.testing.assert_array_equal(schedule.used_variance[1:], schedule.betas[1:])
    assert all(getattr(schedule, name).dtype == np.float64 for name in TABLES)


def test_posterior_is_bayes_rule():
    """Product of the Gaussians q(x_t | x_{t-1}) and q(x_{t-1} | x_0): precisions add."""
    schedule = make_schedule(50, "linear", 1e-3, 0.2)
    beta, before = schedule.betas[1:], schedule.alphas_cumprod[:-1]
    precision = (1 - beta) / beta + 1 / (1 - before)
    np.testing.assert_allclose(schedule.posterior_variance[1:], 1 / precision, rtol=1e-10)
    of_x = np.sqrt(1 - beta) / beta / precision
    of_x0 = np.sqrt(before) / (1 - before) / precision
    np.testing.assert_allclose(schedule.posterior_mean_coef2[1:], of_x, rtol=1e-10)
    np.testing.assert_allclose(schedule.posterior_mean_coef1[1:], of_x0, rtol=1e-10)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_every_process_loses_signal_step_by_step_and_stays_finite(kind, zero_terminal_snr):
    schedule = make_schedule(1000, kind, 8.5e-4, 1.2e-2, zero_terminal_snr)
    assert (np.diff(schedule.alphas_cumprod) < 0).all()
    assert (schedule.alphas_cumprod[-1] == 0) == zero_terminal_snr
    for respaced in (schedule, respace(schedule, "20")):
        assert all(np.isfinite(getattr(respaced, name)).all() for name in TABLES)


def test_scaled_linear_is_linear_in_the_root():
    roots = np.sqrt(make_schedule(1000, "scaled_linear", 8.5e-4, 1.2e-2).betas)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0], rtol=1e-9)


def test_cosine_follows_its_curve():
    schedule = make_schedule(100, "cosine")
    curve = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], curve[1:-1] / curve[0], rtol=1e-9)


def test_zero_terminal_snr_keeps_the_first_step():
    plain, rescaled = make_schedule(), make_schedule(zero_terminal_snr=True)
    np.testing.assert_allclose(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0], rtol=1e-12)
    assert rescaled.betas[-1] == 1


@pytest.mark.parametrize(
    ("length", "respacing", "steps"),
    [
        (10, "", list(range(10))),
        (10, "4", [0, 3, 6, 9]),
        (10, 4, [0, 3, 6, 9]),
        (6, "3", [0, 2, 5]),  # 0, 2.5, 5: half to even
        (10, "1", [0]),
        (11, "2,3", [0, 5, 6, 8, 10]),  # sections of 6 and 5
        (10, "ddim5", [0, 2, 4, 6, 8]),
        (10, "ddim4", [0, 3, 6, 9]),
        (10, "trailing4", [1, 4, 7, 9]),  # 1.5, 4, 6.5, 9: half to even of 2.5, 5, 7.5, 10
        (10, "trailing1", [9]),
        (10, "trailing10", list(range(10))),
    ],
)
def test_respaced_steps(length, respacing, steps):
    assert respaced_steps(length, respacing) == steps


@pytest.mark.parametrize(
    ("respacing", "message"),
    [
        ("ddim7", "gives 7 steps"),
        ("11", "cannot keep 11 of 10"),
        ("2,6", r"cannot keep 6 of 5 timesteps \(section 2 of 2"),
        ("trailing11", "cannot keep 11 of 10"),
        ("ddim2,3", "cannot read"),
        ("fast", "cannot read respacing 'fast'"),
        ("0", "cannot read"),
        ("-3", "cannot read"),
        ("2,", "cannot read"),
    ],
)
def test_unreadable_respacings(respacing, message):
    with pytest.raises(ValueError, match=message):
        respaced_steps(10, respacing)


def test_respacing_keeps_the_signal_and_composes():
    schedule = make_schedule()
    half = respace(schedule, "250")
    np.testing.assert_allclose(
        half.alphas_cumprod, schedule.alphas_cumprod[half.timestep_map], rtol=1e-12
    )
    few = respace(half, "10")
    assert few.timestep_map[0] == 0
    assert few.timestep_map[-1] == 999
    np.testing.assert_allclose(
        few.alphas_cumprod, schedule.alphas_cumprod[few.timestep_map], rtol=1e-12
    )


def test_wrong_processes_are_refused():
    with pytest.raises(ValueError, match=r"unknown beta_schedule 'sqrt'.*cosine"):
        make_schedule(beta_schedule="sqrt")
    with pytest.raises(ValueError, match=r"beta_start=0.5, beta_end=0.1"):
        make_schedule(beta_start=0.5, beta_end=0.1)
    with pytest.raises(ValueError, match="at least 2 timesteps"):
        make_schedule(1)

"""Intervals against closed forms and their own promise of coverage."""

import numpy as np
import pytest

from videobooth_jax.evaluation.intervals import bootstrap, wilson


def test_wilson_solves_its_equation() -> None:
    """Its ends are the shares p with |p - 150/240| = z sqrt(p (1 - p) / 240)."""
    for end in wilson(150, 240):
        assert abs(end - 150 / 240) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 240))


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert 0.1 < wilson(0, 20)[1] < 0.2
    low, high = wilson(7, 20)
    mirrored = wilson(13, 20)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6, 0.97])
def test_wilson_covers_the_truth_95_times_of_100(share: float) -> None:
    draws = np.random.default_rng(0).binomial(240, share, 4000)
    found = [wilson(int(right), 240) for right in draws]
    inside = [low <= share <= high for low, high in found]
    assert 0.93 <= np.mean(inside) <= 0.975


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(values)
    reach = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - reach, abs=0.04)
    assert high == pytest.approx(values.mean() + reach, abs=0.04)
    assert bootstrap(values) == (low, high)
    assert bootstrap(np.ones(5)) == (1.0, 1.0)


def test_nothing_measured() -> None:
    for right, total in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="is no share"):
            wilson(right, total)
    with pytest.raises(ValueError, match="one number per video"):
        bootstrap(np.zeros((0,)))

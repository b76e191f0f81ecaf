"""Where the time goes, on a clock that the test turns."""

import time

import pytest

from videobooth_jax.costs import PEAK_FLOPS
from videobooth_jax.training.clock import Clock, Lap
from videobooth_jax.training.metrics import Work


@pytest.fixture
def turn(monkeypatch):
    now = [1000.0]
    for name in ("monotonic", "time"):
        monkeypatch.setattr(time, name, lambda: now[0])

    def turn(seconds):
        now[0] += seconds

    return turn


def test_a_lap_leaves_out_what_is_no_step_and_counts_waiting(turn):
    clock = Clock(started=1000.0, productive=0.0)
    with clock.aside():
        turn(30)
    for _ in range(4):
        clock.step()
        turn(2)
    clock.waited(2)
    assert clock.lap() == Lap(step_seconds=2.0, data_wait_share=0.25, goodput=6 / 38)
    turn(2)
    clock.step()
    assert clock.lap() == Lap(step_seconds=2.0, data_wait_share=0.0, goodput=8 / 40)


def test_goodput_reaches_over_restarts(turn):
    clock = Clock(started=900.0, productive=60.0)
    turn(20)
    assert clock.productive() == 80.0
    clock.step()
    assert clock.lap().goodput == 80 / 120


def test_rates_are_per_device_and_utilisation_only_where_the_peak_is_known():
    lap = Lap(step_seconds=2.0, data_wait_share=0.0, goodput=1.0)
    speed = Work(16, int(4e15), 8, "TPU v5 lite").speed(lap)
    assert speed["samples_per_second"] == 8.0
    assert speed["samples_per_second_per_device"] == 1.0
    assert speed["tflops_per_second_per_device"] == 250.0
    assert speed["mfu"] == 250e12 / PEAK_FLOPS["TPU v5 lite"]
    assert "mfu" not in Work(16, int(4e15), 8, "cpu").speed(lap)

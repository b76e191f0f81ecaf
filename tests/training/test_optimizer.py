"""Schedules, clipping and averaging by their formulas."""

import jax.numpy as jnp
import numpy as np
import optax

from videobooth_jax.training.config import OptimizerConfig
from videobooth_jax.training.optimizer import (
    learning_rate,
    make_optimizer,
    update_ema,
    warmed_up_decay,
)


def test_warm_up_then_cosine_to_a_tenth():
    schedule = learning_rate(
        OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule="cosine"), steps=110
    )
    values = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 0.55, 0.1], atol=1e-6)


def test_first_step_moves_by_the_learning_rate_whatever_the_gradient():
    config = OptimizerConfig(learning_rate=1e-3, clip_norm=0.1)
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    gradient = {"a": jnp.array([5.0, -3.0, 2.0]), "b": jnp.array([1.0, -1.0])}
    optimizer = make_optimizer(config, steps=10)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_allclose(moved["a"] - 1.0, [-1e-3, 1e-3, -1e-3], rtol=1e-3)


def test_average_of_a_constant_is_the_constant_and_decay_warms_up():
    ema = {"a": jnp.zeros(())}
    for _ in range(3):
        ema = update_ema(ema, {"a": jnp.ones(())}, 0.5)
    assert float(ema["a"]) == 0.875
    assert float(warmed_up_decay(0.9999, jnp.int32(0))) == np.float32(0.1)
    assert float(warmed_up_decay(0.9999, jnp.int32(10**7))) == np.float32(0.9999)


def test_muon_turns_kernels_orthogonally_and_leaves_the_rest_to_adamw():
    config = OptimizerConfig(name="muon", learning_rate=1e-2, clip_norm=1e6)
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 12), "dense": (12, 4)}
    params = {n: {"kernel": jnp.ones(s), "bias": jnp.ones(s[-1])} for n, s in shapes.items()}
    gradient = {
        n: {"kernel": jnp.asarray(rng.normal(size=s), jnp.float32), "bias": jnp.ones(s[-1])}
        for n, s in shapes.items()
    }
    optimizer = make_optimizer(config, steps=10)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    for name, shape in shapes.items():
        matrix = np.asarray(updates[name]["kernel"]).reshape(-1, shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.max() / singular.min() < 2
        size = 0.2 * 1e-2 * np.sqrt(max(matrix.shape)) * np.sqrt(min(matrix.shape) / matrix.size)
        np.testing.assert_allclose(np.sqrt(np.mean(matrix**2)), size, rtol=0.2)
        assert np.all(np.abs(updates[name]["bias"] + 1.5e-2) < 5e-4)  # Nesterov's first AdamW step

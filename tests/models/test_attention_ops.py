"""The attention implementations agree, and are softmax(Q Kᵀ / √d) V per head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.models.attention_ops import IMPLEMENTATIONS, attention


def inputs(batch=2, queries=5, keys=7, channels=12):
    rng = np.random.default_rng(0)
    shapes = [(batch, queries, channels), (batch, keys, channels), (batch, keys, channels)]
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def by_hand(query, key, value, num_heads):
    out = np.empty_like(query)
    depth = query.shape[-1] // num_heads
    for b in range(len(query)):
        for head in range(num_heads):
            part = slice(head * depth, (head + 1) * depth)
            scores = query[b, :, part] @ key[b, :, part].T / np.sqrt(depth)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[b, :, part] = weights / weights.sum(axis=1, keepdims=True) @ value[b, :, part]
    return out


@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
@pytest.mark.parametrize("num_heads", [1, 3, 4])
def test_matches_the_formula(implementation, num_heads):
    got = attention(*inputs(), num_heads=num_heads, implementation=implementation)
    np.testing.assert_allclose(got, by_hand(*inputs(), num_heads), atol=2e-6)


def test_implementations_share_their_gradient():
    def loss(qkv, implementation):
        return jnp.sum(jnp.square(attention(*qkv, num_heads=3, implementation=implementation)))

    gradients = [jax.grad(loss)(inputs(), name) for name in IMPLEMENTATIONS]
    jax.tree.map(lambda *g: np.testing.assert_allclose(g[0], g[1], atol=1e-5), *gradients)


@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
def test_bfloat16_keeps_its_dtype_and_its_digits(implementation):
    exact = attention(*inputs(), num_heads=3, implementation=implementation)
    half = (jnp.asarray(x, jnp.bfloat16) for x in inputs())
    got = attention(*half, num_heads=3, implementation=implementation)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), exact, atol=0.03)


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'flash' is unknown; use one of"):
        attention(*inputs(), num_heads=1, implementation="flash")

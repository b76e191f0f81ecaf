"""Scaled dot-product attention, softmax(Q Kᵀ / √d) V, as one small table of implementations.

``xla``  one batched product over everything: what accelerators want.
``map``  one (sample, head) after the other: the score matrix stays in a CPU's cache, which at full
size is several times faster.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from videobooth_jax.models.normalization import statistics_dtype
from videobooth_jax.typing import Array, Tokens

Heads = Float[Array, "batch tokens heads depth"]
Rows = Float[Array, "batch_heads tokens depth"]


def _softmax(scores: Array, dtype: jnp.dtype) -> Array:
    """Softmax over the last axis, in float32 at least, cast to ``dtype``."""
    wide = scores.astype(statistics_dtype(scores.dtype))
    return jax.nn.softmax(wide, axis=-1).astype(dtype)


def _fold(x: Heads) -> Rows:
    """Samples and heads on one axis: plain matrices, which every backend multiplies fastest."""
    return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])


def _unfold(x: Rows, heads: int) -> Heads:
    return jnp.swapaxes(x.reshape(-1, heads, *x.shape[1:]), 1, 2)


def _batched(query: Heads, key: Heads, value: Heads) -> Heads:
    q, k, v = _fold(query), _fold(key), _fold(value)
    scores = jnp.matmul(q, jnp.swapaxes(k, 1, 2))
    return _unfold(jnp.matmul(_softmax(scores, v.dtype), v), query.shape[2])


def _mapped(query: Heads, key: Heads, value: Heads) -> Heads:
    def one(qkv: tuple[Array, Array, Array]) -> Array:
        q, k, v = qkv
        return _softmax(q @ k.T, v.dtype) @ v

    out = jax.lax.map(one, (_fold(query), _fold(key), _fold(value)))
    return _unfold(out, query.shape[2])


IMPLEMENTATIONS: dict[str, Callable[[Heads, Heads, Heads], Heads]] = {
    "xla": _batched,
    "map": _mapped,
}
"""Name -> function of queries already divided by √d, keys and values, all (batch, tokens, heads,
depth).
"""


def attention(
    query: Tokens, key: Tokens, value: Tokens, *, num_heads: int, implementation: str = "xla"
) -> Tokens:
    """Multi-head attention of (b, q, c) queries over (b, k, c) keys and values; (b, q, c).

    Args:
      query: one row per query; channels are heads times depth, head-major.
      key: one row per key.
      value: one row per key.
      num_heads: into how many heads the channels are split.
      implementation: a key of `IMPLEMENTATIONS`.

    Raises:
      ValueError: the implementation is unknown.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"attention implementation {implementation!r} is unknown; use one of "
            f"{sorted(IMPLEMENTATIONS)}."
        )

    def split(x: Tokens) -> Heads:
        return x.reshape(*x.shape[:2], num_heads, -1)

    queries = split(query)
    out = IMPLEMENTATIONS[implementation](
        queries * queries.shape[-1] ** -0.5, split(key), split(value)
    )
    return out.reshape(query.shape)

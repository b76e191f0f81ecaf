"""Scaled dot-product attention, softmax(Q Kᵀ / √d) V, as one small table of implementations.

Keys come in *parts*, so that what many frames share is given once: a part has keys of its own for
every frame, or one set for all. The softmax runs over all parts together.

``xla``     parts repeated and joined, one batched product: what XLA fuses best on accelerators.
``parts``   every part where it lies, nothing repeated: the fastest on CPUs while scores are few.
``map``     one head, one frame, one block of queries after the other: scores stay in a CPU's cache.
``blocks``  ``xla`` for one block of queries after the other: long sequences, split over devices or
            not.
``pallas``  a TPU kernel of our own for long sequences, ``xla`` for the others.
``cudnn``   cuDNN's, for bfloat16 on NVIDIA GPUs. Not run so far.
``auto``    by platform and size, see `AUTO`.

``map`` and ``blocks`` keep no scores for the gradient: they are computed again.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from videobooth_jax.models.kernel_split import Part, mesh_is_known, on_every_device
from videobooth_jax.models.normalization import statistics_dtype
from videobooth_jax.models.pallas_attention import flash_attention_over_parts
from videobooth_jax.typing import Array, Tokens

Video = Float[Array, "batch frames tokens channels"]
Heads = Float[Array, "batch frames tokens heads depth"]

Parts = Sequence[Part]

SCORES_IN_CACHE = 2**19
"""Scores that ``map`` holds at a time, of all samples: 2 MiB in float32."""

QUERIES_PER_BLOCK = 512
"""Tokens per block of ``blocks``."""

KERNEL_SCORES = 2**24
"""Scores of one head and frame from which a kernel or blocks pay: 4,096 queries, 4,096 keys."""


def _num_scores(query: Heads, parts: Parts) -> int:
    """Scores of one sample, frame and head."""
    return query.shape[2] * sum(key.shape[2] for key, _ in parts)


def _joined(frames: int, parts: Parts) -> Part:
    """All keys and all values of every frame, (b, f, m, h, d)."""

    def join(arrays: Sequence[Heads]) -> Heads:
        whole = [jnp.broadcast_to(x, (x.shape[0], frames, *x.shape[2:])) for x in arrays]
        return jnp.concatenate(whole, axis=2)

    keys, values = zip(*parts, strict=True)
    return join(keys), join(values)


def _softmax(scores: Array, dtype: jnp.dtype) -> Array:
    """Softmax over the last axis, in float32 at least, cast to ``dtype``."""
    wide = scores.astype(statistics_dtype(scores.dtype))
    return jax.nn.softmax(wide, axis=-1).astype(dtype)


def _xla(query: Heads, parts: Parts) -> Heads:
    key, value = _joined(query.shape[1], parts)

    def fold(x: Heads) -> Array:  # plain matrices, which every backend multiplies fastest
        return jnp.swapaxes(x, 2, 3).reshape(-1, x.shape[2], x.shape[4])

    scores = jnp.matmul(fold(query), jnp.swapaxes(fold(key), 1, 2))
    out = jnp.matmul(_softmax(scores, value.dtype), fold(value))
    batch, frames, tokens, heads, depth = query.shape
    return jnp.swapaxes(out.reshape(batch, frames, heads, tokens, depth), 2, 3)


def _parts(query: Heads, parts: Parts) -> Heads:
    """Scores of a shared part are (b, h, f, n, m), of others (b, f, h, n, m): no transposes."""
    wide = statistics_dtype(query.dtype)
    shared = [key.shape[1] != query.shape[1] for key, _ in parts]
    axes = ["bfnhd,bmhd->bhfnm" if s else "bfnhd,bfmhd->bfhnm" for s in shared]
    back = ["bhfnm,bmhd->bfnhd" if s else "bfhnm,bfmhd->bfnhd" for s in shared]

    def turn(statistic: Array, is_shared: bool) -> Array:
        return jnp.swapaxes(statistic, 1, 2) if is_shared else statistic

    def own(x: Heads, is_shared: bool) -> Array:
        return x[:, 0] if is_shared else x

    scores = [
        jnp.einsum(a, query, own(key, s)).astype(wide)
        for a, s, (key, _) in zip(axes, shared, parts, strict=True)
    ]
    tops = (turn(x.max(-1), s) for x, s in zip(scores, shared, strict=True))
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, tops))
    weights = [jnp.exp(x - turn(top, s)[..., None]) for x, s in zip(scores, shared, strict=True)]
    total = sum(turn(w.sum(-1), s) for w, s in zip(weights, shared, strict=True))
    out = sum(
        jnp.einsum(a, w.astype(value.dtype), own(value, s), preferred_element_type=wide)
        for a, w, s, (_, value) in zip(back, weights, shared, parts, strict=True)
    )
    return (out / jnp.swapaxes(total, 2, 3)[..., None]).astype(query.dtype)


def _by_blocks(function: Callable[[Array], Array], query: Array, size: int) -> Array:
    """``function`` of at most ``size`` queries at a time; they lie on the first axis.

    What it computes on the way is computed again for the gradient.
    """
    count = math.ceil(query.shape[0] / size)
    block = math.ceil(query.shape[0] / count)
    padding = [(0, count * block - query.shape[0])] + [(0, 0)] * (query.ndim - 1)
    blocks = jnp.pad(query, padding).reshape(count, block, *query.shape[1:])
    out = jax.lax.map(jax.checkpoint(function), blocks)
    return out.reshape(count * block, *out.shape[2:])[: query.shape[0]]


def _map(query: Heads, parts: Parts) -> Heads:
    """Samples stay side by side, so that a batch can be split over devices."""
    frames = query.shape[1]
    num_keys = sum(key.shape[2] for key, _ in parts)
    size = max(1, SCORES_IN_CACHE // (query.shape[0] * num_keys))

    def by_head(x: Heads) -> Array:  # (h, f, b, n, d)
        return jnp.transpose(x, (3, 1, 0, 2, 4))

    def head(given: tuple[Array, list[Part]]) -> Array:
        query, parts = given
        of_all = [key.shape[0] != frames for key, _ in parts]

        def frame(given: tuple[Array, list[Part]]) -> Array:
            query, own = given
            rest = iter(own)
            both = [
                (part[0][0], part[1][0]) if shared else next(rest)
                for part, shared in zip(parts, of_all, strict=True)
            ]
            key, value = (jnp.concatenate(x, axis=1) for x in zip(*both, strict=True))

            def block(query: Array) -> Array:  # (n, b, d)
                scores = jnp.einsum("nbd,bmd->bnm", query, key)
                return jnp.einsum("bnm,bmd->nbd", _softmax(scores, value.dtype), value)

            return _by_blocks(block, jnp.swapaxes(query, 0, 1), size)

        own = [part for part, shared in zip(parts, of_all, strict=True) if not shared]
        return jax.lax.map(frame, (query, own))

    out = jax.lax.map(head, jax.tree.map(by_head, (query, list(parts))))  # (h, f, n, b, d)
    return jnp.transpose(out, (3, 1, 2, 0, 4))


def _blocks(query: Heads, parts: Parts) -> Heads:
    def block(query: Array) -> Array:
        return jnp.moveaxis(_xla(jnp.moveaxis(query, 0, 2), parts), 2, 0)

    out = _by_blocks(block, jnp.moveaxis(query, 2, 0), QUERIES_PER_BLOCK)
    return jnp.moveaxis(out, 0, 2)


def _pallas(query: Heads, parts: Parts) -> Heads:
    if _num_scores(query, parts) < KERNEL_SCORES:
        return _xla(query, parts)
    return on_every_device(flash_attention_over_parts, query, parts)


def _kernel(query: Heads, parts: Parts) -> Heads:
    """``pallas`` where it is known how the program is split, which a kernel must be told."""
    return _pallas(query, parts) if mesh_is_known() else _blocks(query, parts)


def _cudnn(query: Heads, parts: Parts) -> Heads:
    if query.dtype.itemsize != 2:
        raise ValueError(
            f"cudnn attention computes in bfloat16 or float16, and this model in {query.dtype}: "
            "set the dtype of the UNet, or attention_implementation to 'auto'."
        )

    def fold(x: Heads) -> Array:
        return x.reshape(-1, *x.shape[2:])

    key, value = _joined(query.shape[1], parts)
    out = jax.nn.dot_product_attention(
        fold(query), fold(key), fold(value), scale=1.0, implementation="cudnn"
    )
    return out.reshape(query.shape)


_LONG = ((KERNEL_SCORES, _blocks), (0, _xla))

AUTO: dict[str, tuple[tuple[int, Callable[[Heads, Parts], Heads]], ...]] = {
    "cpu": ((2**13, _map), (0, _parts)),
    "tpu": ((KERNEL_SCORES, _kernel), (0, _xla)),
    "cuda": _LONG,
    "rocm": _LONG,
    "default": ((0, _xla),),
}
"""Platform -> what ``auto`` takes from how many scores of one sample, frame and head on; the
default is the plain formula, by which FLOPs are counted (`costs`)."""


def _auto(query: Heads, parts: Parts) -> Heads:
    """Chosen when the program is lowered, so a CPU host can compile for a TPU."""
    scores = _num_scores(query, parts)
    chosen = {
        platform: next(function for least, function in rows if scores >= least)
        for platform, rows in AUTO.items()
    }
    default = chosen.pop("default")
    others = {platform: function for platform, function in chosen.items() if function != default}
    return jax.lax.platform_dependent(query, tuple(parts), **others, default=default)


IMPLEMENTATIONS: dict[str, Callable[[Heads, Parts], Heads]] = {
    "auto": _auto,
    "xla": _xla,
    "parts": _parts,
    "map": _map,
    "blocks": _blocks,
    "pallas": _pallas,
    "cudnn": _cudnn,
}
"""Name -> function of queries already divided by √d, (b, f, n, h, d), and parts of keys and values,
(b, f or 1, m, h, d); returns the queries' shape.
"""


def attention_over_parts(
    query: Video, parts: Parts, *, num_heads: int, implementation: str = "auto"
) -> Video:
    """Multi-head attention of every frame's (b, f, n, c) queries over its keys; (b, f, n, c).

    Args:
      query: one row per query; channels are heads times depth, head-major.
      parts: keys and values, (b, f, m, c) or, of all frames, (b, 1, m, c); m may differ between
        parts.
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

    def split(x: Video) -> Heads:
        return x.reshape(*x.shape[:-1], num_heads, -1)

    queries = split(query)
    out = IMPLEMENTATIONS[implementation](
        queries * queries.shape[-1] ** -0.5, [(split(key), split(value)) for key, value in parts]
    )
    return out.reshape(query.shape)


def attention(
    query: Tokens, key: Tokens, value: Tokens, *, num_heads: int, implementation: str = "auto"
) -> Tokens:
    """`attention_over_parts` of (b, q, c) queries over (b, k, c) keys and values; (b, q, c)."""
    parts = [(key[:, None], value[:, None])]
    return attention_over_parts(
        query[:, None], parts, num_heads=num_heads, implementation=implementation
    )[:, 0]

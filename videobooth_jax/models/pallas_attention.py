"""Flash attention on TPU: softmax(Qᵀ K) V without the matrix of scores ever being in main memory.

The online softmax of Milakov & Gimelshein (2018) over blocks of keys, as in FlashAttention (Dao et
al. 2022, arXiv 2205.14135; the backward pass is its algorithm 4, as two kernels). Tokens lie on the
last axis, a TPU's lanes, and channels on the one before: heads of 40 channels, which as a last
axis would be padded to 128 lanes in main memory, stay 40 rows, the per-query statistics are rows
that broadcast without a transpose, and (b, n, h·d) activations transposed once *are* (b, h, d, n).

Scores, statistics and sums are float32; products take their inputs in the dtype they came in. A
kernel is opaque to XLA's partitioner, and libtpu has none for custom calls: a call belongs to one
device, be it the only one or one of many, see `kernel_split`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float

from videobooth_jax.typing import Array

Queries = Float[Array, "batch frames heads depth tokens"]
Keys = Float[Array, "batch frames_or_1 heads depth tokens"]
Heads = Float[Array, "batch frames tokens heads depth"]
Statistics = Float[Array, "batch frames heads 1 tokens"]

LANES = 128
BLOCKS = (512, 256, 128)
"""Tokens per block, the largest that divides the padded length: 1 MiB of float32 scores at most."""

BLOCK_BYTES = 2**19
"""Most bytes of a block of tokens of one array: of deep heads in float32, blocks are shorter."""

MASKED = -1e30
"""Score of a key that is padding; finite, so that differences of two of them are no NaN."""


def _block(x: Array) -> int:
    """Tokens per block of (..., depth, tokens)."""
    token_bytes = x.shape[-2] * x.dtype.itemsize
    fitting = [block for block in BLOCKS if block * token_bytes <= BLOCK_BYTES] or BLOCKS[-1:]
    return next(block for block in fitting if x.shape[-1] % block == 0)


def _pad(x: Array) -> Array:
    """Zeros behind the last token, up to whole lanes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % LANES)])


def _dot(left: Array, right: Array, contracted: tuple[int, int]) -> Array:
    """A product of two matrices over the axes ``contracted``, in float32."""
    dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


def _scores(query: Array, key: Array, block: int | Array, num_keys: int) -> Array:
    """Scores (keys, queries) of one block of keys, the one with index ``block``."""
    scores = _dot(key, query, (0, 0))
    if num_keys % LANES == 0:
        return scores
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0) + block * key.shape[1]
    return jnp.where(place < num_keys, scores, MASKED)


def _forward_kernel(q_ref, k_ref, v_ref, out_ref, lse_ref, top, total, sums, *, num_keys: int):
    """One block of queries meets one block of keys; the innermost grid axis runs over keys."""
    step = pl.program_id(4)

    @pl.when(step == 0)
    def _():
        top[...] = jnp.full(top.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    scores = _scores(q_ref[...], k_ref[...], step, num_keys)
    highest = jnp.maximum(top[...], scores.max(axis=0, keepdims=True))
    shrink, weights = jnp.exp(top[...] - highest), jnp.exp(scores - highest)
    top[...] = highest
    total[...] = shrink * total[...] + weights.sum(axis=0, keepdims=True)
    sums[...] = shrink * sums[...] + _dot(v_ref[...], weights.astype(v_ref.dtype), (1, 0))

    @pl.when(step == pl.num_programs(4) - 1)
    def _():
        out_ref[...] = (sums[...] / total[...]).astype(out_ref.dtype)
        lse_ref[...] = top[...] + jnp.log(total[...])


def _score_gradient(refs, block: int | Array, num_keys: int) -> tuple[Array, Array]:
    """Weights and the gradient of scores, both (keys, queries): W and W ∘ (VᵀdO - Δ)."""
    q_ref, k_ref, v_ref, cotangent_ref, lse_ref, delta_ref = refs
    weights = jnp.exp(_scores(q_ref[...], k_ref[...], block, num_keys) - lse_ref[...])
    return weights, weights * (_dot(v_ref[...], cotangent_ref[...], (0, 0)) - delta_ref[...])


def _query_gradient_kernel(*refs, num_keys: int):
    """dQ = K dSᵀ for one block of queries, summed over blocks of keys (innermost)."""
    *inputs, out_ref, sums = refs
    step = pl.program_id(4)

    @pl.when(step == 0)
    def _():
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    gradient = _score_gradient(inputs, step, num_keys)[1]
    key = inputs[1][...]
    sums[...] += _dot(key, gradient.astype(key.dtype), (1, 0))

    @pl.when(step == pl.num_programs(4) - 1)
    def _():
        out_ref[...] = sums[...].astype(out_ref.dtype)


def _key_gradient_kernel(*refs, num_keys: int):
    """dK = Q dS and dV = dO W for one block of keys, summed over blocks of queries (innermost)."""
    *inputs, key_ref, value_ref, key_sums, value_sums = refs
    step = pl.program_id(4)

    @pl.when(step == 0)
    def _():
        key_sums[...] = jnp.zeros(key_sums.shape, jnp.float32)
        value_sums[...] = jnp.zeros(value_sums.shape, jnp.float32)

    weights, gradient = _score_gradient(inputs, pl.program_id(3), num_keys)
    query, cotangent = inputs[0][...], inputs[3][...]
    key_sums[...] += _dot(query, gradient.astype(query.dtype), (1, 1))
    value_sums[...] += _dot(cotangent, weights.astype(cotangent.dtype), (1, 1))

    @pl.when(step == pl.num_programs(4) - 1)
    def _():
        key_ref[...] = key_sums[...].astype(key_ref.dtype)
        value_ref[...] = value_sums[...].astype(value_ref.dtype)


class _Grid:
    """Block shapes and places of one call: grid (batch, frames, heads, outer, inner)."""

    def __init__(self, query: Queries, key: Keys, keys_inside: bool):
        self.query_block, self.key_block = _block(query), _block(key)
        self.depth = query.shape[-2]
        self.shared = key.shape[1] == 1
        self.keys_inside = keys_inside
        blocks = (query.shape[-1] // self.query_block, key.shape[-1] // self.key_block)
        self.grid = (*query.shape[:3], *(blocks if keys_inside else blocks[::-1]))

    def queries(self, rows: int) -> pl.BlockSpec:
        """``rows`` by one block of queries."""
        place = 3 if self.keys_inside else 4
        return pl.BlockSpec(
            (None, None, None, rows, self.query_block), lambda *i: (*i[:3], 0, i[place])
        )

    def keys(self, shared: bool) -> pl.BlockSpec:
        """Channels by one block of keys: of the query's frame, or of the only one."""
        place = 4 if self.keys_inside else 3
        return pl.BlockSpec(
            (None, None, None, self.depth, self.key_block),
            lambda *i: (i[0], 0 if shared else i[1], i[2], 0, i[place]),
        )

    def inputs(self) -> list[pl.BlockSpec]:
        """Of query, key and value."""
        return [self.queries(self.depth), self.keys(self.shared), self.keys(self.shared)]

    def call(self, kernel: Callable[..., None], interpret: bool, **specs) -> Callable[..., Any]:
        """The kernel over this grid: all axes but the innermost in any order."""
        semantics = (pltpu.PARALLEL,) * 4 + (pltpu.ARBITRARY,)
        return pl.pallas_call(
            kernel,
            grid=self.grid,
            compiler_params=pltpu.CompilerParams(dimension_semantics=semantics),
            interpret=interpret,
            name=getattr(kernel, "func", kernel).__name__.strip("_"),
            **specs,
        )


def _scratch(*shape: int) -> Any:
    return pltpu.VMEM(shape, jnp.float32)


def _forward(
    num_keys: int, interpret: bool, query: Queries, key: Keys, value: Keys
) -> tuple[Queries, Statistics]:
    """Both results of `flash_attention`, tokens padded."""
    grid = _Grid(query, key, keys_inside=True)
    depth, block = grid.depth, grid.query_block
    return grid.call(
        functools.partial(_forward_kernel, num_keys=num_keys),
        interpret,
        in_specs=grid.inputs(),
        out_specs=[grid.queries(depth), grid.queries(1)],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, value.dtype),
            jax.ShapeDtypeStruct((*query.shape[:3], 1, query.shape[4]), jnp.float32),
        ],
        scratch_shapes=[_scratch(1, block), _scratch(1, block), _scratch(depth, block)],
    )(query, key, value)


def _backward(
    num_keys: int,
    interpret: bool,
    query: Queries,
    key: Keys,
    value: Keys,
    cotangent: Queries,
    lse: Statistics,
    delta: Statistics,
) -> tuple[Queries, Queries, Queries]:
    """Gradients by query, key and value, tokens padded; the latter two for every frame, also
    where frames share keys.
    """
    inputs = (query, key, value, cotangent, lse, delta)
    grid = _Grid(query, key, keys_inside=True)
    per_query = [grid.queries(grid.depth), grid.queries(1), grid.queries(1)]
    dq = grid.call(
        functools.partial(_query_gradient_kernel, num_keys=num_keys),
        interpret,
        in_specs=grid.inputs() + per_query,
        out_specs=grid.queries(grid.depth),
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        scratch_shapes=[_scratch(grid.depth, grid.query_block)],
    )(*inputs)
    grid = _Grid(query, key, keys_inside=False)
    per_query = [grid.queries(grid.depth), grid.queries(1), grid.queries(1)]
    shape = (*query.shape[:4], key.shape[4])
    dk, dv = grid.call(
        functools.partial(_key_gradient_kernel, num_keys=num_keys),
        interpret,
        in_specs=grid.inputs() + per_query,
        out_specs=[grid.keys(False), grid.keys(False)],
        out_shape=[jax.ShapeDtypeStruct(shape, x.dtype) for x in (key, value)],
        scratch_shapes=[_scratch(grid.depth, grid.key_block)] * 2,
    )(*inputs)
    return dq, dk, dv


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def flash_attention(
    query: Queries, key: Keys, value: Keys, interpret: bool = False
) -> tuple[Queries, Statistics]:
    """Attention of every frame's queries over its own frame's keys, or over one set for all.

    Args:
      query: (b, f, h, d, n), already divided by √d.
      key: (b, f, h, d, m), or (b, 1, h, d, m): one set that all frames share, never repeated.
      value: as ``key``.
      interpret: run the kernels step by step on any platform, for tests.

    Returns:
      ``(out, logsumexp)``: (b, f, h, d, n) in the values' dtype, and the log of the summed
      exponentials of scores, (b, f, h, 1, n), float32, with which parts can be merged.
      Differentiable in both.
    """
    return _flash_forward(query, key, value, interpret)[0]


def _flash_forward(query: Queries, key: Keys, value: Keys, interpret: bool):
    length = query.shape[-1]
    out, lse = _forward(key.shape[-1], interpret, _pad(query), _pad(key), _pad(value))
    out, lse = out[..., :length], lse[..., :length]
    return (out, lse), (query, key, value, out, lse)


def _flash_backward(interpret: bool, residuals, cotangents):
    query, key, value, out, lse = residuals
    cotangent, lse_cotangent = cotangents
    # d lse / d scores are the weights themselves: its cotangent joins Δ = Σ dO ∘ O.
    delta = jnp.sum(cotangent.astype(jnp.float32) * out.astype(jnp.float32), axis=3, keepdims=True)
    arrays = (query, key, value, cotangent, lse, delta - lse_cotangent)
    dq, dk, dv = _backward(key.shape[-1], interpret, *map(_pad, arrays))
    dk, dv = (x[..., : key.shape[-1]] for x in (dk, dv))
    if key.shape[1] != query.shape[1]:
        dk, dv = (x.sum(1, keepdims=True, dtype=jnp.float32).astype(x.dtype) for x in (dk, dv))
    return dq[..., : query.shape[-1]], dk, dv


flash_attention.defvjp(_flash_forward, _flash_backward)


def flash_attention_over_parts(
    query: Heads, parts: Sequence[tuple[Heads, Heads]], interpret: bool = False
) -> Heads:
    """One softmax over several sets of keys: each set alone, then merged by its logsumexp.

    Arguments as an implementation in `attention_ops`: (b, f, n, h, d), keys and values with f or 1
    frames.
    """

    def turn(x: Heads) -> Queries:
        return jnp.transpose(x, (0, 1, 3, 4, 2))

    scaled = turn(query)
    outs, sums = zip(
        *(flash_attention(scaled, turn(k), turn(v), interpret) for k, v in parts), strict=True
    )
    shares = jax.nn.softmax(jnp.stack(sums), axis=0)
    out = sum(share * out.astype(share.dtype) for share, out in zip(shares, outs, strict=True))
    return jnp.transpose(out, (0, 1, 4, 2, 3)).astype(query.dtype)

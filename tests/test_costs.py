"""Counts against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from videobooth_jax.costs import Costs, count_costs
from videobooth_jax.models.attention_ops import attention
from videobooth_jax.models.pallas_attention import flash_attention
from videobooth_jax.sharding import MeshSizes, make_mesh


def spec(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, w, strides=(1, 1), padding="SAME", **options):
    return jax.lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def test_matmul_counts_two_per_multiply_add():
    costs = count_costs(lambda a, b: a @ b, spec(3, 5), spec(5, 7))
    assert costs == Costs(matmul_flops=2 * 3 * 5 * 7, bytes=4 * (15 + 35 + 21))


def test_batched_attention_product():
    costs = count_costs(
        lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), spec(2, 11, 4, 8), spec(2, 13, 4, 8)
    )
    assert costs.matmul_flops == 2 * 2 * 4 * 11 * 13 * 8


@pytest.mark.parametrize(
    ("strides", "groups", "expected"),
    [
        ((1, 1), 1, 2 * (2 * 8 * 6 * 16) * (3 * 3 * 4)),
        ((2, 2), 1, 2 * (2 * 4 * 3 * 16) * (3 * 3 * 4)),
        ((1, 1), 4, 2 * (2 * 8 * 6 * 16) * (3 * 3 * 1)),
    ],
)
def test_convolution(strides, groups, expected):
    costs = count_costs(
        lambda x, w: conv(x, w, strides, feature_group_count=groups),
        spec(2, 8, 6, 4),
        spec(3, 3, 4 // groups, 16),
    )
    assert (costs.convolution_flops, costs.matmul_flops) == (expected, 0)


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_of_a_strided_convolution_costs_as_much_as_the_convolution(which):
    x, w = spec(2, 8, 8, 4), spec(2, 2, 4, 16)

    def loss(x, w):
        return conv(x, w, (2, 2), "VALID").sum()

    forward = count_costs(loss, x, w).flops
    assert count_costs(jax.grad(loss, argnums=which), x, w).flops == forward


def test_loops_multiply_by_their_trip_counts():
    def nested(x, w):
        def inner(c, _):
            return c @ w, None

        def outer(c, _):
            return jax.lax.scan(inner, c, None, length=3)[0], None

        return jax.lax.scan(outer, x, None, length=5)[0]

    assert count_costs(nested, spec(2, 4), spec(4, 4)).flops == 15 * 2 * 2 * 4 * 4


def test_fori_loop_with_constant_bounds_counts_and_a_true_while_is_refused():
    def steps(x, w):
        return jax.lax.fori_loop(0, 7, lambda i, c: c @ w, x)

    assert count_costs(steps, spec(2, 4), spec(4, 4)).flops == 7 * 2 * 2 * 4 * 4

    def until(x, w):
        return jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ w, x)

    with pytest.raises(ValueError, match="trip count is not known"):
        count_costs(until, spec(2, 4), spec(4, 4))


def test_conditionals_count_the_dearest_branch():
    def either(p, x, w):
        return jax.lax.cond(p, lambda: x @ w, lambda: (x @ w) @ w)

    assert (
        count_costs(either, spec(dtype="bool"), spec(2, 4), spec(4, 4)).flops == 2 * 2 * 2 * 4 * 4
    )


def test_work_nobody_needs_is_not_counted():
    def wasteful(x, w):
        unused = x @ w @ w
        return jax.jit(lambda a: (a @ w, unused @ w))(x)[0]

    assert count_costs(wasteful, spec(2, 4), spec(4, 4)).flops == 2 * 2 * 4 * 4


def test_calls_are_entered():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))

    def wrapped(x, w):
        return jax.checkpoint(jax.jit(product))(x, w)

    x, w = spec(2, 4), spec(4, 4)
    one = 2 * 2 * 4 * 4
    assert count_costs(wrapped, x, w).flops == one
    # backward: two products, and the forward one dropped as its result is not asked for
    assert count_costs(jax.grad(lambda x, w: product(x, w).sum(), (0, 1)), x, w).flops == 2 * one


def test_half_precision_and_keys_have_their_own_sizes():
    costs = count_costs(lambda x: -x, spec(8, dtype="bfloat16"))
    assert costs == Costs(bytes=2 * 2 * 8)
    assert count_costs(lambda seed: jax.random.normal(jax.random.key(seed), (4,)), 0).flops == 0


def test_of_ways_of_platforms_the_general_one_counts():
    def product(x, w):
        return jax.lax.platform_dependent(
            x, w, cpu=lambda x, w: x @ w @ w, default=lambda x, w: x @ w
        )

    assert count_costs(product, spec(2, 4), spec(4, 4)).flops == 2 * 2 * 4 * 4


def test_a_kernel_counts_at_every_place_of_its_grid_and_reads_no_scores():
    def attend(query, key, value):
        return flash_attention(query, key, value)[0]

    heads = spec(1, 2, 3, 40, 1024), spec(1, 2, 3, 40, 2048), spec(1, 2, 3, 40, 2048)
    costs = count_costs(attend, *heads)
    assert costs.matmul_flops == 2 * 2 * (2 * 3 * 1024 * 2048 * 40)
    assert costs.bytes < 4 * (2 * 3 * 1024 * 2048) / 2


def test_long_sequences_count_as_the_formula_does_whatever_computes_them():
    def gradient(implementation):
        def loss(*qkv):
            return jnp.sum(attention(*qkv, num_heads=2, implementation=implementation))

        return jax.grad(loss, (0, 1, 2))

    tokens = (spec(1, 4096, 16),) * 3
    assert (
        count_costs(gradient("auto"), *tokens).flops == count_costs(gradient("xla"), *tokens).flops
    )


def test_what_every_device_does_counts_on_all():
    mesh = make_mesh(MeshSizes(data=4))
    rows = jax.P("data")
    split = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows)
    assert count_costs(split, spec(8, 4), spec(4, 4)).flops == 2 * 8 * 4 * 4

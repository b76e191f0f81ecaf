"""FLOPs and memory traffic against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from programs import ATTENTION, CHAIN, ON_CHIP, SLICES

from videobooth_jax.aot import hlo, loops
from videobooth_jax.aot.work import work


def counted(text):
    module = hlo.parse(text)
    return work(module, loops.schedule(module))


def compiled(function, *shapes):
    specs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return counted(jax.jit(function).lower(*specs).compile().as_text())


def test_a_batched_matmul_written_as_a_dilated_convolution():
    assert counted(ATTENTION).flops == 2 * (2 * 8) * 16 * 24 * 40


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_leave_padding_out(stride):
    def conv(x, w):
        form = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=form
        )

    pairs = {1: 3 * 8 - 2, 2: 3 * 4 - 1}[stride]
    assert compiled(conv, (2, 8, 8, 4), (3, 3, 4, 16)).flops == 2 * 2 * pairs**2 * 4 * 16


def test_matmuls_in_a_loop():
    def loop(x, w):
        return jax.lax.scan(lambda c, _: (jnp.sin(c @ w), None), x, None, length=7)[0]

    assert compiled(loop, (4, 8), (8, 8)).flops == 7 * 2 * 4 * 8 * 8


def test_of_a_slice_only_its_part_moves():
    """In: a row and the index; out: the row. In: the row and the index; out: the row."""
    assert counted(SLICES).hbm_bytes == (32 + 4 + 32) + (32 + 4 + 32)


def test_what_stays_on_the_chip_does_not_move():
    assert counted(ON_CHIP).hbm_bytes == 400 + 400


def test_a_gather_beside_a_fusion_moves_once():
    """Gather (in 2 KiB, out 8), tanh (1 and 1), permutation (in 8), sum (out 2)."""
    assert counted(CHAIN).hbm_bytes == 1024 * (2 + 8 + 1 + 1 + 8 + 2)


def test_elementwise_work_reads_and_writes_once():
    counts = compiled(lambda x, y: jnp.tanh(x) * y + 1, (32, 32), (32, 32))
    assert (counts.flops, counts.hbm_bytes, counts.kernels) == (0, 3 * 4096, 0)


def test_hand_written_kernels_are_counted_as_such():
    text = ON_CHIP.replace("tanh(%d)", 'custom-call(%d), custom_call_target="tpu_custom_call"')
    assert counted(text).kernels == 1

"""HLO text becomes computations of instructions, and shapes become bytes."""

import pytest
from programs import CHAIN, loop

from videobooth_jax.aot import hlo


def test_computations_instructions_and_roots():
    module = hlo.parse(CHAIN)
    assert module.entry.name == "main"
    assert set(module.computations) == {
        "start",
        "async_collective_fusion",
        "done",
        "all-reduce-scatter",
        "main",
    }
    fusion = module.entry.instructions["f.2"]
    assert (fusion.opcode, fusion.operands) == ("fusion", ("g.1", "g.2", "x"))
    assert fusion.called("calls") == "async_collective_fusion"
    assert module.entry.root == "f.4"
    assert [user.name for user in module.entry.users["g.1"]] == ["f.2", "f.3"]


def test_comments_between_operands_are_no_operands():
    entry = hlo.parse(loop()).entry
    assert entry.instructions["tuple.2"].operands == ("copy.2", "x.2", "end")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[]", [4]),
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", [2048]),
        ("pred[3]", [3]),
        ("s4[3]", [2]),
        ("f8e4m3fn[5]", [5]),
        ("c64[2,2]", [32]),
        ("(u32[]{:S(2)}, /*index=1*/f32[<=4,2])", [4, 32]),
        ("token[]", [0]),
    ],
)
def test_bytes_of_a_shape(shape, expected):
    assert [array.bytes for array in hlo.arrays(shape)] == expected


def test_arrays_on_the_chip_are_not_in_main_memory():
    on_chip, main = hlo.arrays("(bf16[8]{0:T(128)(2,1)S(1)}, bf16[8]{0:T(128)(2,1)})")
    assert (on_chip.hbm, main.hbm) == (False, True)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("module @jit_f { }")

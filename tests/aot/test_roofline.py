"""Chips, bounds and reports: the arithmetic."""

import dataclasses
import json

import pytest
from tiny_run import run_config

from videobooth_jax.aot.advice import advice
from videobooth_jax.aot.chips import CHIPS, GIB, chip_of
from videobooth_jax.aot.collectives import Collective
from videobooth_jax.aot.report import Costs, Memory, Report
from videobooth_jax.aot.roofline import roofline
from videobooth_jax.aot.work import Work

CHIP = dataclasses.replace(
    CHIPS["v5e"], peak_flops=100.0, hbm_bytes=8 * GIB, hbm_bandwidth=10.0, ici_bandwidth=2.0
)


def report(**changes) -> Report:
    memory = Memory(arguments=GIB, temporaries=3 * GIB, outputs=GIB // 2, code=GIB // 2)
    bound = roofline(CHIP, model_flops=150, flops=200, hbm_bytes=10, sent_bytes=1)
    sent = (Collective("all-reduce", 4, 7, 10**9, 3 * 10**9 // 2),)
    values = {
        "name": "tiny",
        "what": "train",
        "topology": "v5e:2x4",
        "mesh": {"data": 2, "fsdp": 2, "frames": 2, "tensor": 1},
        "batch_size": 16,
        "num_frames": 16,
        "overrides": (),
        "versions": {"jax": "1", "libtpu": "2"},
        "compile_seconds": 12.0,
        "hbm_bytes": CHIP.hbm_bytes,
        "model_flops": 150.0,
        "costs": Costs(memory, Work(200, 10, 0), sent, bound, ()),
        "refusal": "",
    }
    return Report(**(values | changes))


def with_temporaries(size: int) -> Report:
    given = report()
    memory = dataclasses.replace(given.costs.memory, temporaries=size)
    return dataclasses.replace(given, costs=dataclasses.replace(given.costs, memory=memory))


@pytest.mark.parametrize(
    ("hbm_bytes", "sent_bytes", "seconds", "binds"),
    [(10, 1, 2.0, "compute"), (40, 1, 4.0, "HBM"), (40, 10, 5.0, "ICI")],
)
def test_the_largest_of_three_times_binds(hbm_bytes, sent_bytes, seconds, binds):
    bound = roofline(CHIP, 150, 200, hbm_bytes, sent_bytes)
    assert (bound.seconds, bound.binds) == (seconds, binds)
    assert bound.mfu == pytest.approx(150 / 100 / seconds)


def test_model_flops_bound_where_padding_was_left_out():
    assert roofline(CHIP, 150, 100, 0, 0).mfu == 1


def test_a_device_of_two_on_a_chip_has_half_of_it():
    chip, half = CHIPS["tpu7x"], CHIPS["tpu7x"].per_device()
    assert (half.peak_flops, half.hbm_bytes) == (chip.peak_flops / 2, chip.hbm_bytes / 2)
    assert half.per_device() == half
    assert CHIPS["v5p"].per_device() == CHIPS["v5p"]


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:", "v5e:big", ""])
def test_unknown_topologies_list_the_known_ones(name):
    with pytest.raises(ValueError, match="known are") as told:
        chip_of(name)
    assert all(generation in str(told.value) for generation in CHIPS)


def test_every_example_of_every_generation_is_read():
    for generation, chip in CHIPS.items():
        for shape in chip.examples:
            assert chip_of(f"{generation}:{shape}") == chip


def test_the_text_says_what_was_counted():
    text = str(report())
    for part in ("8 devices (data 2 x fsdp 2 x frames 2 x tensor 1)", "5.00", "8.00", "all-reduce"):
        assert part in text
    assert "compute binds; MFU at most 75.0 %" in text
    assert "note" not in text
    noted = dataclasses.replace(report().costs, unknown_loops=("a", "b"))
    assert "2 loops of unknown length" in str(report(costs=noted))


def test_json_carries_what_follows():
    values = json.loads(report().to_json())
    assert values["fits"] is True
    assert values["costs"]["memory"]["total"] == 5 * GIB
    assert values["costs"]["roofline"]["seconds"] == 2.0
    assert values["costs"]["roofline"]["binds"] == "compute"
    assert values["costs"]["collectives"][0]["count"] == 7
    assert json.loads(report(costs=None, refusal="no").to_json())["fits"] is False


def test_what_is_larger_than_the_memory_does_not_fit():
    assert with_temporaries(6 * GIB).fits
    assert not with_temporaries(6 * GIB + 1).fits


@pytest.mark.parametrize(
    ("what", "size", "said", "unsaid"),
    [
        ("train", 16, ("data.batch_size=8: 2 rows", "fsdp=4", "frames=4"), ()),
        ("train", 4, ("fsdp=4",), ("batch_size", "accumulate_steps")),
        ("sample", 16, ("data.batch_size=8", "fsdp=4"), ("remat", "accumulate_steps")),
    ],
)
def test_advice_names_what_helps_and_nothing_else(what, size, said, unsaid):
    overrides = {"data.batch_size": size, "data.num_frames": 16}
    text = advice(run_config("start", **overrides), report(what=what, batch_size=size))
    assert all(part in text for part in said)
    assert not any(part in text for part in unsaid)
    assert text.endswith("a topology of more, or larger, chips")

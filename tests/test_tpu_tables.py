"""The tables of TPU programs: what is compiled, what is skipped, and what they say."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from videobooth_jax.aot.chips import chip_of

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tpu_tables.py"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tpu_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tpu_tables"] = module
    spec.loader.exec_module(module)
    return module


def result(**changes):
    costs = {
        "memory": {"total": 4 * 2**30},
        "work": {"flops": 3e12, "hbm_bytes": 5e9},
        "collectives": [
            {
                "kind": "all-reduce",
                "group_size": 8,
                "count": 2,
                "result_bytes": 4e9,
                "sent_bytes": 7e9,
            }
        ],
        "roofline": {"seconds": 0.05, "binds": "HBM", "mfu": 0.4},
    }
    given = {
        "topology": "v5e:2x4",
        "mesh": {"data": 8, "fsdp": 1},
        "batch_size": 8,
        "hbm_bytes": 15.75 * 2**30,
        "model_flops": 2e12,
        "fits": True,
        "costs": costs,
    }
    return given | changes


def test_only_what_has_no_result_is_compiled(tables, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Stub:
        name: str
        code: int

        def command(self, out):
            write = f"import pathlib, sys; pathlib.Path({str(out)!r}).write_text({self.name!r})"
            return [sys.executable, "-c", f"{write}; sys.exit({self.code})"]

    cases = [Stub("old", 0), Stub("new", 0), Stub("large", 1), Stub("wrong", 2)]
    (tmp_path / "old.json").write_text("kept")
    assert tables.compile_missing(cases, tmp_path) == ["wrong"]
    written = {file.stem: file.read_text() for file in tmp_path.iterdir()}
    assert written == {"old": "kept", "new": "new", "large": "large", "wrong": "wrong"}


def test_the_tables_have_a_row_for_every_result(tables, tmp_path):
    cases = [tables.Case(name, "v5e:2x4", 8) for name in ("a", "b", "c")]
    (tmp_path / "c-v5e-2x4.json").write_text(json.dumps(result(costs=None, fits=False)))
    (tmp_path / "a-v5e-2x4.json").write_text(json.dumps(result()))
    reports = tables.read(cases, tmp_path)
    *_, first, second = tables.programs_table(reports).splitlines()
    assert first == (
        "| a-v5e-2x4 | v5e:2x4, data 8 | 8 | 4.00 of 15.75 | 2.00, 3.00 | 5.0 | 7.000 | 50.0 |"
        " HBM | 40 % |"
    )
    assert second == "| c-v5e-2x4 | v5e:2x4, data 8 | 8 | does not fit 15.75 | | | | | | |"
    assert first.count("|") == second.count("|")
    assert tables.collectives_table(reports).splitlines()[2:] == [
        "| a-v5e-2x4 | all-reduce | 8 | 2 | 4.0000 | 7.0000 |"
    ]


def test_scaling_compares_a_device_with_one_of_the_smallest(tables, tmp_path):
    cases = [
        tables.Case("fine", f"v5e:{shape}", chips) for shape, chips in (("2x4", 8), ("8x8", 64))
    ]
    larger = result(batch_size=64, mesh={"data": 64})
    larger["costs"] = larger["costs"] | {"work": {"flops": 6e12, "hbm_bytes": 5e9}}
    for case, report in zip(cases, (result(), larger), strict=True):
        (tmp_path / f"{case.name}.json").write_text(json.dumps(report))
    rows = tables.scaling_table(cases, tables.read(cases, tmp_path)).splitlines()[2:]
    assert rows == [
        "| fine | 8 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |",
        "| fine | 64 | 1.000 | 2.000 | 1.000 | 1.000 | 1.000 |",
    ]


def test_cases_are_commands_that_the_command_line_takes(tables):
    assert tables.Case("fine", "v5e:2x4", 8, "tensor", 2, videos=3).rows == 12
    names = [case.name for case in tables.CASES]
    assert len(set(names)) == len(names)
    for case in tables.CASES:
        words = case.command(Path("out.json"))
        assert words[3] == "compile"
        config = words[4].removeprefix("--config=")
        assert (SCRIPT.parents[1] / config).is_file()
        assert chip_of(case.topology)

"""Files of records: exact, whole, and cut back where a run begins again."""

import json
import math

from videobooth_jax.paths import resolve
from videobooth_jax.training.records import Records


def test_floats_come_back_bit_for_bit_and_what_is_not_finite_is_null(tmp_path):
    path = resolve(tmp_path / "r.jsonl")
    Records(path).append({"step": 1, "a": 1 / 3, "b": math.nan, "c": math.inf})
    assert Records(path).rows == [{"step": 1, "a": 1 / 3, "b": None, "c": None}]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    path = resolve(tmp_path / "r.jsonl")
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    found = Records(path)
    found.append({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_records_after_a_step_are_dropped_and_nothing_else_is_left(tmp_path):
    path = resolve(tmp_path / "r.jsonl")
    written = Records(path)
    for step in (2, 4, 6):
        written.append({"step": step})
    written.keep_until(4)
    written.append({"step": 5})
    assert [row["step"] for row in Records(path).rows] == [2, 4, 5]
    assert list(tmp_path.iterdir()) == [tmp_path / "r.jsonl"]


def test_a_process_that_only_follows_writes_nothing(tmp_path):
    path = resolve(tmp_path / "r.jsonl")
    following = Records(path, writes=False)
    following.append({"step": 1})
    following.keep_until(0)
    assert not path.exists()

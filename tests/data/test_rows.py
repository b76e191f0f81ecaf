"""Processes together supply every row of every batch once."""

import pytest

from videobooth_jax.data.rows import Padded, Picked, ProcessRows


@pytest.mark.parametrize("total", [12, 13, 15, 17])
def test_parts_make_up_the_whole(total: int) -> None:
    parts = [ProcessRows(range(total), 6, rows) for rows in (range(2), range(2, 5), range(5, 6))]
    assert sum(len(part) for part in parts) == total
    seen = [part[i] for part in parts for i in range(len(part))]
    assert sorted(seen) == list(range(total))


def test_a_part_holds_its_rows_of_every_batch() -> None:
    part = ProcessRows(range(12), 4, range(1, 3))
    assert [part[i] for i in range(len(part))] == [1, 2, 5, 6, 9, 10]


def test_rows_outside_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="rows 2 to 5 do not lie in 0 to 4"):
        ProcessRows(range(12), 4, range(2, 5))


def test_padding_repeats_the_last_example_and_says_so() -> None:
    padded = Padded([{"n": n} for n in range(5)], 4)
    rows = [padded[i] for i in range(len(padded))]
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4, 4, 4, 4]
    assert [bool(row["valid"]) for row in rows] == [True] * 5 + [False] * 3
    assert len(Padded([{}] * 8, 4)) == 8


def test_picked_examples() -> None:
    picked = Picked(range(10, 20), [3, 1, 3])
    assert [picked[i] for i in range(len(picked))] == [13, 11, 13]

"""Means and counts over steps, and what a checkpoint keeps of them."""

import json
import math

import jax.numpy as jnp
import pytest
import stand_in
from stand_in import Numbers, config, go

from videobooth_jax.checkpointing import TrainCheckpoints
from videobooth_jax.training.progress import (
    NonFiniteError,
    Pending,
    Progress,
    check_finite,
    summarize,
)


def rows(*skipped):
    return tuple({"loss": math.nan if s else 1.5, "nonfinite": float(s)} for s in skipped)


def test_skipped_steps_are_counted_and_left_out_of_means():
    assert summarize(rows(0, 1, 0)) == {"loss": 1.5, "nonfinite_steps": 1.0}
    assert math.isnan(summarize(rows(1))["loss"])


def test_only_steps_on_end_add_up_and_across_reports():
    assert check_finite(rows(1, 1, 0, 1, 1), 0, 3, 5) == 2
    assert check_finite(rows(0, 0), 2, 3, 7) == 0
    with pytest.raises(NonFiniteError, match="3 steps on end, up to step 6"):
        check_finite(rows(1, 0), 2, 3, 7)


def test_progress_survives_json():
    progress = Progress("here", ({"loss": 0.1, "nonfinite": 0.0},), 2, 1 / 3)
    assert Progress.from_saved(json.loads(json.dumps(progress.to_dict()))) == progress


def test_a_checkpoint_of_another_version_is_refused():
    with pytest.raises(ValueError, match="another version"):
        Progress.from_saved("position alone")


def test_pending_keeps_rows_that_were_saved_and_reads_the_others_exactly():
    pending = Pending([{"loss": 0.1}])
    pending.add({"loss": jnp.float32(0.1)})
    pending.settle()
    assert pending.rows() == ({"loss": 0.1}, {"loss": 0.10000000149011612})
    pending.clear()
    assert pending.idle()


def test_bad_batches_are_skipped_counted_and_the_run_goes_on(tmp_path):
    state = go(tmp_path, config(max_nonfinite_steps=3), data=Numbers(bad=(4, 5, 8)))
    assert int(state.step) == stand_in.STEPS
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"]: row["nonfinite_steps"] for row in lines if row["nonfinite_steps"]} == {
        6: 2.0,
        10: 1.0,
    }
    assert [row["step"] for row in lines if row["loss"] is None] == [6]


def test_too_many_on_end_stop_the_run_and_leave_its_checkpoints(tmp_path):
    bad = (7, 8, 9, 10)
    with pytest.raises(NonFiniteError, match="4 steps on end, up to step 11"):
        go(tmp_path, config(max_nonfinite_steps=4), data=Numbers(bad=bad))
    with TrainCheckpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 9
    with pytest.raises(NonFiniteError, match="4 steps on end"):  # the count is saved, too
        go(tmp_path, config(max_nonfinite_steps=4), data=Numbers(bad=bad))

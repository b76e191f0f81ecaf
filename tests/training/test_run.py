"""What a run writes: reports, speeds, the best checkpoint, a profile; here, and in a bucket."""

import json

import pytest
from bucket import stand_in_for_buckets
from stand_in import config, go, outcome

from videobooth_jax.checkpointing import TrainCheckpoints


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_reports_say_what_was_computed_and_what_time_it_took(tmp_path):
    go(tmp_path, config())
    metrics, speed = (lines(tmp_path / f"{name}.jsonl") for name in ("metrics", "speed"))
    assert [row["step"] for row in metrics] == list(range(2, 21, 2))
    assert set(metrics[0]) == {"step", "loss", "error", "grad_norm", "nonfinite_steps"}
    assert speed[0]["event"] == "start"
    assert set(speed[1]) == {
        "step",
        "unix_time",
        "step_seconds",
        "samples_per_second",
        "samples_per_second_per_device",
        "tflops_per_second_per_device",
        "data_wait_share",
        "goodput",
    }
    assert all(0 < row["goodput"] < 1 for row in speed[1:])
    assert any((tmp_path / "tensorboard").iterdir())


def test_the_best_checkpoint_by_the_reports_since_the_one_before(tmp_path):
    go(tmp_path, config(checkpoint_every=4, steps=20))
    means = {}
    for row in lines(tmp_path / "metrics.jsonl"):
        means.setdefault(-(-row["step"] // 4) * 4, []).append(row["loss"])
    best = min(means, key=lambda step: sum(means[step]) / 2)
    with TrainCheckpoints(tmp_path / "checkpoints", keep_best=1) as checkpoints:
        assert checkpoints.best_step() == best
        assert checkpoints.steps() == tuple(sorted({best, 16, 20}))


def test_a_best_metric_that_is_not_there_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="best_metric is 'quality'; this run has error, grad_norm"):
        go(tmp_path, config(best_metric="quality"))


def test_a_window_of_steps_is_profiled(tmp_path):
    go(tmp_path, config(steps=6, profile_start=2, profile_steps=2))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_in_a_bucket_is_the_run_in_a_folder(tmp_path, monkeypatch):
    stand_in_for_buckets(monkeypatch, tmp_path / "buckets")
    go("gs://bucket/run", config(steps=8))
    go("gs://bucket/run", config())
    go(tmp_path / "here", config())
    there = tmp_path / "buckets" / "bucket" / "run"
    assert outcome(there)[:2] == outcome(tmp_path / "here")[:2]
    assert any((there / "tensorboard").iterdir())
    with TrainCheckpoints("gs://bucket/run/checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 20

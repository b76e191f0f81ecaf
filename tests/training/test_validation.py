"""The loss on held-out examples: of what, of which weights, when, and what it decides."""

import json

import jax
import numpy as np
import pytest
from stand_in import LOSS, Numbers, config, evaluate, fresh_state, go
from tiny_clips import record, told_by, write_dataset
from tiny_run import run_config, write_start

from videobooth_jax.checkpointing import TrainCheckpoints
from videobooth_jax.training.config import ValidationConfig
from videobooth_jax.training.data import open_training_data, open_validation_data
from videobooth_jax.training.train_step import HELD_OUT, make_validation_step

EVERY_FOUR = ValidationConfig(every=4, batches=3)


class Others(Numbers):
    """Other batches than those trained on; counts how often they were started over."""

    def __init__(self):
        super().__init__()
        self._position, self.starts = 100, 0

    def set_position(self, position):
        super().set_position(position)
        self.starts += 1


def rows(workdir):
    return [json.loads(line) for line in (workdir / "validation.jsonl").read_text().splitlines()]


def test_it_is_of_the_averaged_weights_on_the_same_examples_and_draws_each_time(tmp_path):
    held_out = Others()
    state = go(tmp_path, config(validation=EVERY_FOUR), held_out=held_out)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [4, 8, 12, 16, 20]
    assert held_out.starts == 5
    losses = []
    others = Others()
    for number in range(3):
        batch = next(others)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), HELD_OUT), number)
        draws = 0.1 * jax.random.normal(key, batch["x"].shape)
        losses.append(evaluate(state.ema | state.frozen, batch, draws)[0])
    np.testing.assert_allclose(found[-1]["validation_loss"], np.mean(losses), rtol=1e-6)
    assert found[-1].keys() == {"step", "validation_error", "validation_loss"}


def test_in_parts_as_training_goes():
    state, batch = fresh_state(), next(Numbers())
    whole, parts = (make_validation_step(LOSS, n)(state, batch, np.int32(1)) for n in (1, 2))
    np.testing.assert_allclose(whole["loss"], parts["loss"], rtol=1e-6)
    assert whole.keys() == parts.keys()


def test_training_is_the_same_with_and_without(tmp_path):
    for name, asked in (("with", EVERY_FOUR), ("without", ValidationConfig())):
        go(tmp_path / name, config(validation=asked), held_out=Others() if asked.every else None)
    one, two = (tmp_path / name / "metrics.jsonl" for name in ("with", "without"))
    assert one.read_bytes() == two.read_bytes()
    assert not (tmp_path / "without" / "validation.jsonl").exists()


def test_the_best_checkpoint_by_it(tmp_path):
    fields = {"checkpoint_every": 4, "best_metric": "validation_loss"}
    go(tmp_path, config(validation=EVERY_FOUR, **fields), held_out=Others())
    losses = {row["step"]: row["validation_loss"] for row in rows(tmp_path)}
    with TrainCheckpoints(tmp_path / "checkpoints", keep_best=1) as checkpoints:
        assert checkpoints.best_step() == min(losses, key=losses.get)
    with pytest.raises(ValueError, match="best_metric is 'validation_loss'; this run has error"):
        go(tmp_path / "none", config(best_metric="validation_loss"))


def test_a_broken_off_run_has_the_figures_and_the_best_checkpoint_of_an_unbroken_one(tmp_path):
    """Also where the signal comes in the middle of a look."""
    fields = {"checkpoint_every": 4, "best_metric": "validation_loss", "validation": EVERY_FOUR}

    def after(count):
        held_out, heard = Others(), []

        def stopped():
            heard.append(None)
            return len(heard) > count or json.loads(held_out.position()) > 100

        return {"held_out": held_out, "stopped": stopped}

    for count in (2, 4, 9):
        go(tmp_path / "broken", config(**fields), **after(count))
    for name in ("broken", "unbroken"):
        go(tmp_path / name, config(**fields), held_out=Others())
    assert rows(tmp_path / "broken") == rows(tmp_path / "unbroken")
    best = []
    for name in ("broken", "unbroken"):
        with TrainCheckpoints(tmp_path / name / "checkpoints", keep_best=1) as checkpoints:
            best.append((checkpoints.best_step(), checkpoints.latest_step()))
    assert best[0] == best[1]


def test_a_metric_of_training_alone_is_no_best_metric_of_held_out_examples(tmp_path):
    asked = config(validation=EVERY_FOUR, best_metric="validation_grad_norm")
    with pytest.raises(ValueError, match="best_metric is 'validation_grad_norm'; this run has"):
        go(tmp_path, asked, held_out=Others())


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        ValidationConfig(batches=0)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


def test_held_out_sprites_are_of_other_nouns(start):
    settings = {"validation.every": 1, "data.batch_size": 16, "data.num_frames": 1}
    asked = run_config(start, **settings)
    held_out = next(open_validation_data(asked))
    trained = next(open_training_data(asked.data, asked.model))
    nouns = [{row.tobytes() for row in batch["vae_image"]} for batch in (held_out, trained)]
    assert nouns[0].isdisjoint(nouns[1])
    assert open_validation_data(run_config(start)) is None


def test_a_split_of_the_same_dataset_or_one_of_another(start, tmp_path):
    mine, other = (
        str(write_dataset(tmp_path / name, [record(i) for i in range(first, first + 2)]))
        for name, first in (("mine", 0), ("other", 5))
    )

    def shown(**settings):
        asked = {"data.source": "clips", "data.path": mine, "validation.every": 1}
        data = open_validation_data(run_config(start, **asked | settings))
        return {told_by(one)[0] for one in next(data)["video"][:, :, 8, 8].astype(float)}

    assert shown(**{"validation.split": "train[:1]"}) == {0}
    assert shown(**{"validation.split": "train", "validation.path": other}) == {5, 6}
    with pytest.raises(ValueError, match="validation"):
        shown()
    with pytest.raises(ValueError, match="stored latents have no splits"):
        shown(**{"data.source": "latents"})

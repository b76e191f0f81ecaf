"""What a data config opens: one folder or a mixture, in words when they do not fit."""

import dataclasses

import numpy as np
import pytest
from tiny_clips import record, told_by, write_dataset
from tiny_run import run_config, run_model, write_start

from videobooth_jax.training.config import DataConfig
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.loop import train


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Datasets of three clips, 0 to 2, and of one, 5."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        str(write_dataset(folder / str(first), [record(i) for i in range(first, stop)]))
        for first, stop in ((0, 3), (5, 6))
    ]


def opened(start, rows=None, **values):
    config = run_config(start, **{f"data.{n}": v for n, v in {"source": "clips", **values}.items()})
    return open_training_data(config.data, config.model, rows, config.init_from)


def clips_of(batch):
    return [told_by(one)[0] for one in batch["video"][:, :, 8, 8].astype(float)]


def test_clips_are_read_for_the_model(start, folders):
    data = opened(start, path=folders[0], window=20)
    batch = next(data)
    model = run_model()
    assert batch["video"].shape == (2, 2, model.height, model.width, 3)
    assert batch["vae_image"].shape == (2, model.height, model.width, 3)
    assert batch["null_ids"].shape == (1, 32)
    frames = told_by(batch["video"][0, :, 8, 8].astype(float))[1]
    assert frames[1] - frames[0] == 19
    assert data.tokenizer_file.name == "tokenizer.json"


def test_a_mixture_by_size_or_by_weights(start, folders):
    data = opened(start, paths=tuple(folders), batch_size=4)
    by_size = [clips_of(next(data)) for _ in range(3)]
    assert [sorted(clips) for clips in by_size] == [[0, 1, 2, 5]] * 3
    data = opened(start, paths=tuple(folders), weights=(1.0, 3.0), batch_size=4)
    assert [clips_of(next(data)).count(5) for _ in range(2)] == [3, 3]


def test_a_saved_position_goes_on(start, folders):
    data = opened(start, path=folders[0], augment="fine")
    next(data)
    position, expected = data.position(), next(data)
    data = opened(start, path=folders[0], augment="fine")
    data.set_position(position)
    again = next(data)
    assert all(np.array_equal(again[name], expected[name]) for name in expected)


def test_rows_of_a_process(start, folders):
    whole, part = (next(opened(start, rows, path=folders[0])) for rows in (None, range(1, 2)))
    assert np.array_equal(part["video"], whole["video"][1:])


@pytest.mark.slow
def test_a_run_on_clips_goes_on_exactly_with_other_workers(start, folders, tmp_path):
    """Stopped in the middle of an epoch of three clips, and gone on with one worker more."""

    def run(workdir, steps, workers):
        values = {"source": "clips", "paths": tuple(folders), "augment": "fine"}
        values = {f"data.{n}": v for n, v in (values | {"worker_count": workers}).items()}
        train(run_config(start, **values, steps=steps), tmp_path / workdir)
        return (tmp_path / workdir / "metrics.jsonl").read_bytes()

    unbroken = run("unbroken", 4, 0)
    first = run("broken", 2, 1)
    assert unbroken.startswith(first)
    assert run("broken", 4, 2) == unbroken


@pytest.mark.parametrize("values", [{}, {"path": "a", "paths": ("b", "c")}])
def test_one_folder_or_several(values):
    with pytest.raises(ValueError, match=r"one folder, data\.path, or a mixture"):
        _ = dataclasses.replace(DataConfig(source="clips"), **values).folders


def test_clips_need_a_model_to_start_from(folders):
    config = run_config("", **{"data.source": "clips", "data.path": folders[0]})
    with pytest.raises(ValueError, match="set init_from"):
        open_training_data(config.data, config.model)

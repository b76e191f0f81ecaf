"""Streams: the same batches whoever prepares them, from any position on; mixtures; full batches."""

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest
from tiny_clips import damage, record, write_dataset
from tiny_model import TOKENIZER_FILE

from videobooth_jax.data.batches import BatchConfig, collate
from videobooth_jax.data.clip_examples import ClipExamples, ClipView
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.stream import BatchStream, StreamConfig, batched, in_order, mixed
from videobooth_jax.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven clips, one of them damaged."""
    made = tmp_path_factory.mktemp("clips") / "made"
    write_dataset(made, [record(i) for i in range(7)])
    damage(made, 1, 400)
    return made


def clip_stream(folder, rows=None, workers=0) -> BatchStream:
    shape = BatchConfig(4, rows=rows, worker_count=workers, seed=5, clip_size=16, vae_size=8)
    tokenizer = Tokenizer.from_file(TOKENIZER_FILE)
    source = ClipsSource(folder)
    view = ClipView(num_frames=2, height=8, width=8, span=10, augment=AUGMENTS["fine"])
    draw = ClipExamples(source, view, tokenizer, shape.subject_length)
    examples = in_order(range(len(source)), shape, draw)
    return batched(examples, shape, partial(collate, tokenizer=tokenizer, config=shape))


def taken(stream: BatchStream, count: int) -> list[dict[str, np.ndarray]]:
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            assert np.array_equal(batch[name], other[name]), name


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_rows_of_several_processes_make_up_the_batches_of_one(folder):
    parts = [taken(clip_stream(folder, rows), 5) for rows in (range(1), range(1, 4))]
    assert_equal(map(joined, zip(*parts, strict=True)), taken(clip_stream(folder), 5))


def test_it_goes_on_in_the_middle_of_an_epoch(folder):
    whole = taken(clip_stream(folder), 6)
    stream = clip_stream(folder)
    next(stream)
    next(stream)
    again = clip_stream(folder)
    again.set_state(stream.get_state())
    stream.close()
    assert_equal(taken(again, 4), whole[2:])


@pytest.mark.slow
def test_worker_processes_change_nothing(folder):
    whole = taken(clip_stream(folder), 6)
    for workers in (1, 2):
        assert_equal(taken(clip_stream(folder, workers=workers), 6), whole)
    some = [taken(clip_stream(folder, rows, workers=1), 2) for rows in (range(2), range(2, 4))]
    assert_equal(map(joined, zip(*some, strict=True)), whole[:2])


@pytest.mark.slow
def test_a_position_means_the_same_to_any_number_of_workers(folder):
    whole = taken(clip_stream(folder), 6)
    for before, after in ((2, 1), (1, 0), (0, 2)):
        stream = clip_stream(folder, workers=before)
        for batch in whole[:3]:
            assert_equal([next(stream)], [batch])
        state = stream.get_state()
        stream.close()
        assert state == {"next_index": 3}
        stream = clip_stream(folder, workers=after)
        stream.set_state(state)
        assert_equal(taken(stream, 3), whole[3:])


def numbers(rows) -> dict[str, np.ndarray]:
    """Batches of the examples {"n": ...} that `numbered` makes."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def numbered(n: int, rng: np.random.Generator) -> dict[str, np.int64]:
    return {"n": np.int64(n)}


def test_a_mixture_keeps_to_its_weights_and_sees_all():
    config = StreamConfig(10, seed=1)
    parts = [in_order(range(a, b), config, numbered) for a, b in ((0, 30), (100, 200))]
    stream = batched(mixed(parts, [3.0, 1.0]), config, numbers)
    seen = np.concatenate([next(stream)["n"] for _ in range(40)])
    assert Counter(seen[seen < 100].tolist()) == dict.fromkeys(range(30), 10)  # ten epochs
    assert sorted(seen[seen >= 100]) == list(range(100, 200))
    for part in np.split(seen, 10):
        assert abs(np.sum(part < 100) - 30) <= 1


def test_a_finite_mixture_by_size_is_every_example_once():
    config = StreamConfig(4, epochs=1, pad_last=True)
    parts = [in_order(range(a, b), config, numbered) for a, b in ((0, 3), (10, 19))]
    seen = np.concatenate(
        [batch["n"][batch["valid"]] for batch in batched(mixed(parts, [3, 9]), config, numbers)]
    )
    assert sorted(seen) == [0, 1, 2, *range(10, 19)]


@pytest.mark.parametrize(
    "weights",
    [
        [1.0],
        [1.0, 0.0],
        [2.0, -1.0],
        [1.0, 1.0, 1.0],
        [1.0, float("nan")],
        [float("inf"), 1.0],
        ["3", 1.0],
    ],
)
def test_weights_that_do_not_fit_are_refused(weights):
    config = StreamConfig(2)
    with pytest.raises(ValueError, match="give one for each, above 0"):
        mixed([in_order(range(3), config), in_order(range(3), config)], weights)


def test_the_last_batch_is_filled_up_for_every_process():
    def run(rows):
        config = StreamConfig(4, shuffle=False, epochs=1, rows=rows, pad_last=True)
        return list(batched(in_order(range(9), config, numbered), config, numbers))

    assert [batch["n"].tolist() for batch in run(None)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8] * 4]
    assert [batch["valid"].tolist() for batch in run(None)][2] == [True, False, False, False]
    late = run(range(2, 4))
    assert [batch["n"].tolist() for batch in late] == [[2, 3], [6, 7], [8, 8]]
    assert not late[2]["valid"].any()


def test_a_finite_stream_drops_what_is_over_and_ends():
    config = StreamConfig(4, shuffle=False, epochs=2)
    stream = batched(in_order(range(5), config, numbered), config, numbers)
    assert [batch["n"].tolist() for batch in stream] == [[0, 1, 2, 3], [4, 0, 1, 2]]
    assert stream.get_state() == {"next_index": 2}
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("state", [{}, {"next_index": -1}, {"next_index": "3"}])
def test_positions_of_something_else_are_refused(state):
    config = StreamConfig(4)
    stream = batched(in_order(range(5), config, numbered), config, numbers)
    with pytest.raises(ValueError, match="no position"):
        stream.set_state(state)

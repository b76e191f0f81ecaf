"""Prepared datasets open by name, give back what was stored, and say plainly what is wrong."""

import json
import pickle

import numpy as np
import pytest
from tiny_clips import damage, record, write_dataset

from videobooth_jax.data.clip_records import DATASET, VERSION
from videobooth_jax.data.clips import ClipsSource

NOISE = np.random.default_rng(0)
RECORDS = [record(0, id=str(i), video=NOISE.bytes(900)) for i in range(10)]


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "made", RECORDS)


def ids(source):
    return [int(source[i].id) for i in range(len(source))]


@pytest.mark.parametrize("inside", ["", DATASET, f"{DATASET}/{VERSION}"])
def test_clips_come_back_in_order(folder, inside):
    source = ClipsSource(folder / inside)
    assert [source[i] for i in range(len(source))] == RECORDS


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:70%]", list(range(7))),
        ("train[7:]", [7, 8, 9]),
        ("train[3:5]", [3, 4]),
        ("train[:1]+train[9:]", [0, 9]),
    ],
)
def test_parts_of_a_split(folder, split, expected):
    assert ids(ClipsSource(folder, split)) == expected


def test_it_can_be_sent_to_another_process(folder):
    source = ClipsSource(folder)
    assert source[4].id == "4"
    assert ids(pickle.loads(pickle.dumps(source))) == list(range(10))


def test_where_a_clip_lies(folder):
    assert ClipsSource(folder).where(5).endswith("record-00001-of-00003, record 1")
    assert ClipsSource(folder, "train[2:]").where(0).endswith("record-00000-of-00003, record 2")


def test_a_damaged_clip_is_named_and_the_others_are_read(folder):
    damage(folder, 1, 500)
    source = ClipsSource(folder)
    with pytest.raises(ValueError, match=r"00001-of-00003, record 0 cannot be read: Corrupted"):
        source[4]
    assert [source[i].id for i in (3, 5, 6)] == ["3", "5", "6"]


def test_indices_outside_are_refused(folder):
    with pytest.raises(IndexError, match="clip 10 of 10"):
        ClipsSource(folder)[10]


def test_folders_without_a_dataset_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder that videobooth prepare wrote"):
        ClipsSource(tmp_path)


@pytest.mark.parametrize("split", ["validation", "train[", "all[:3]"])
def test_unknown_splits_are_refused(folder, split):
    with pytest.raises(ValueError, match=r"no split .*: it has train"):
        ClipsSource(folder, split)


def test_an_empty_part_is_refused(folder):
    with pytest.raises(ValueError, match="has no clips"):
        ClipsSource(folder, "train[9:9]")


def test_missing_shards_are_counted(folder):
    next((folder / DATASET / VERSION).glob("*00001-of*")).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 shards are missing"):
        ClipsSource(folder)


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "{}",
        json.dumps({"splits": [{"name": "../../x", "shardLengths": ["1"]}]}),
        '{"splits": [{"name": "train", "shardLengths": [1e999]}]}',
    ],
)
def test_damaged_or_sly_descriptions_are_refused(folder, told):
    (folder / DATASET / VERSION / "dataset_info.json").write_text(told)
    with pytest.raises(ValueError, match="cannot be read"):
        ClipsSource(folder)

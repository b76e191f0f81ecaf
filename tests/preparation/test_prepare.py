"""Inputs to a dataset: whole, readable, resumable, and the same whatever the workers."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_videos import write_folder

from videobooth_jax.data.clip_records import decode_record
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.prepare import dataset_folder, prepare, split_of
from videobooth_jax.preparation.reading import read_inputs
from videobooth_jax.preparation.work_folder import claimed, write_whole
from videobooth_jax.preparation.workers import Failed

CONFIG = PrepareConfig(clips_per_shard=2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def inputs(videos: Path) -> list[ClipInput]:
    return read_inputs(videos)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_dataset_is_what_tfds_reads(in_process, inputs, tmp_path: Path):
    made = prepare(inputs, tmp_path, CONFIG)
    assert made.counts.summary() == "4 clips, 1 set aside (too_short: 1)"
    assert made.folder == dataset_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["videobooth_clips"]
    code = """if True:
        import sys
        import tensorflow_datasets as tfds
        import videobooth_jax.data.tfds_builder
        one = tfds.builder_from_directory(sys.argv[2]).as_data_source(split="train")
        two = tfds.builder("videobooth_clips", data_dir=sys.argv[1]).as_data_source(split="train")
        three = tfds.builder_cls("videobooth_clips")(data_dir=sys.argv[1]).as_data_source()
        for source in (one, two, three["train"]):
            print([source[i]["id"].decode() for i in range(len(source))])
        assert "tensorflow" not in sys.modules"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(made.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split("\n")[:3] == ["['clip0', 'clip2', 'clip3', 'clip4']"] * 3


def test_every_input_has_a_line_and_every_file_a_checksum(in_process, inputs, tmp_path: Path):
    folder = prepare(inputs, tmp_path, CONFIG).folder
    lines = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert [line["input"] for line in lines] == [f"clip{n}.mp4" for n in range(5)]
    assert [line["accepted"] for line in lines] == [True, False, True, True, True]
    assert lines[1]["reason"] == "too_short"
    assert lines[0]["facts"]["licence"] == "CC0"
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    summed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert summed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    card = (folder / "README.md").read_text()
    assert "4 clips, 1 set aside (too_short: 1), of 5 inputs" in card
    assert "| CC0 | 4 |" in card
    assert "| square | 4 |" in card


def test_shards_hold_the_records_in_order(in_process, inputs, tmp_path: Path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    folder = prepare(inputs, tmp_path, dataclasses.replace(CONFIG, clips_per_shard=3)).folder
    shards = sorted(folder.glob("*.array_record-*"))
    assert [shard.name[-14:] for shard in shards] == ["00000-of-00002", "00001-of-00002"]
    sources = [ArrayRecordDataSource(str(shard)) for shard in shards]
    assert [len(source) for source in sources] == [3, 1]
    records = [decode_record(source[i]) for source in sources for i in range(len(source))]
    assert [record.num_frames for record in records] == [20, 22, 23, 24]


def test_a_second_run_changes_nothing(in_process, inputs, tmp_path: Path):
    folder = prepare(inputs, tmp_path, CONFIG).folder
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    worked = len(in_process)
    again = prepare(inputs, tmp_path, CONFIG)
    assert again.already
    assert again.counts.summary() == "4 clips, 1 set aside (too_short: 1)"
    assert len(in_process) == worked
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()
    } == before


def test_another_run_says_what_differs(in_process, inputs, tmp_path: Path):
    folder = prepare(inputs, tmp_path, CONFIG).folder
    before = contents(folder)
    with pytest.raises(ValueError, match=r"crf was 18 and is now 20.*choose another --out"):
        prepare(inputs, tmp_path, dataclasses.replace(CONFIG, crf=20))
    with pytest.raises(ValueError, match=r"inputs gone: 1 \(clip4.mp4\)"):
        prepare(inputs[:-1], tmp_path, CONFIG)
    changed = [dataclasses.replace(inputs[0], caption="a square"), *inputs[1:]]
    with pytest.raises(ValueError, match=r"inputs changed: 1 \(clip0.mp4\)"):
        prepare(changed, tmp_path, CONFIG)
    with pytest.raises(ValueError, match="another order"):
        prepare(inputs[::-1], tmp_path, CONFIG)
    assert contents(folder) == before


def test_a_stopped_run_goes_on_where_it_was(in_process, inputs, tmp_path: Path, monkeypatch):
    from videobooth_jax.preparation import prepare as module

    whole = prepare(inputs, tmp_path / "whole", CONFIG).folder
    in_process.clear()
    complete = module.run_pool

    def stopped(*args):
        for done, result in enumerate(complete(*args)):
            if done == 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_pool", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(inputs, tmp_path / "cut", CONFIG)
    with pytest.raises(ValueError, match=r"unfinished run of something else: crf was 18"):
        prepare(inputs, tmp_path / "cut", dataclasses.replace(CONFIG, crf=20))
    done = len(in_process)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_metadata", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(inputs, tmp_path / "cut", CONFIG)
    assert sorted(in_process[done:]) == sorted(set(range(5)) - {0, 1, 2})
    again = prepare(inputs, tmp_path / "cut", CONFIG)
    assert sorted(in_process) == list(range(5))
    assert contents(again.folder) == contents(whole)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["videobooth_clips"]


def stop(*args):
    raise KeyboardInterrupt


def test_a_clip_that_kills_its_worker_is_set_aside(inputs, tmp_path: Path, monkeypatch):
    from videobooth_jax.preparation import prepare as module

    def dying(make_work, tasks, workers, timeout):
        assert timeout == CONFIG.timeout
        work = make_work()
        for number, task in tasks:
            yield number, Failed("crashed", "killed") if number == 2 else work(task)

    monkeypatch.setattr(module, "run_pool", dying)
    made = prepare(inputs, tmp_path, CONFIG)
    assert made.counts.summary() == "3 clips, 2 set aside (crashed: 1, too_short: 1)"


def test_nothing_usable_is_an_error_with_a_report(in_process, inputs, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no input can be used: 0 clips, 1 set aside") as error:
        prepare(inputs[1:2], tmp_path, CONFIG)
    report = Path(str(error.value).rpartition("see ")[2])
    assert json.loads(report.read_text())["reason"] == "too_short"
    assert not dataset_folder(tmp_path).exists()


def test_a_video_is_in_one_split_with_all_its_subjects(in_process, inputs, tmp_path: Path):
    names = [split_of(f"video {n}", 0.25) for n in range(2000)]
    assert names.count("validation") == pytest.approx(500, abs=80)
    assert {split_of(f"video {n}", 0.0) for n in range(100)} == {"train"}
    grown = [split_of(f"video {n}", 0.5) for n in range(2000)]
    assert all(new == "validation" for old, new in zip(names, grown, strict=True) if old != "train")
    chosen = [dataclasses.replace(given, group="one") for given in inputs]
    folder = prepare(chosen, tmp_path, dataclasses.replace(CONFIG, validation=1.0)).folder
    info = json.loads((folder / "dataset_info.json").read_text())
    assert [(split["name"], split["shardLengths"]) for split in info["splits"]] == [
        ("validation", ["2", "2"])
    ]


def test_missing_tools_are_missed_before_any_work(in_process, inputs, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    nameless = [*inputs, dataclasses.replace(inputs[0], place="x", id="x", subjects=())]
    with pytest.raises(ImportError, match=r"videobooth_jax\[nouns\]"):
        prepare(nameless, tmp_path, CONFIG)
    boxed = [*inputs, dataclasses.replace(inputs[0], place="x", id="x", mask="", box=(1, 2, 3, 4))]
    with pytest.raises(ImportError, match=r"videobooth_jax\[photo\]"):
        prepare(boxed, tmp_path, CONFIG)
    assert not in_process


@pytest.mark.slow
def test_one_and_three_workers_make_the_same_bytes(in_process, videos, tmp_path: Path):
    here = prepare(read_inputs(videos), tmp_path / "0", CONFIG).folder
    for workers in ("1", "3"):
        command(videos, tmp_path / workers, "--workers", workers)
        assert contents(dataset_folder(tmp_path / workers)) == contents(here)


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(in_process, tmp_path: Path):
    videos = write_folder(tmp_path / "videos", 12)
    whole = prepare(read_inputs(videos), tmp_path / "whole", CONFIG).folder
    out = tmp_path / "out"
    clips, kills = out / ".preparing" / "clips", 0
    while not dataset_folder(out).exists():
        wanted = len(list(clips.rglob("[0-9]*"))) + 3
        run = subprocess.Popen(arguments(videos, out, "--workers", "2"), stderr=subprocess.DEVNULL)
        while run.poll() is None and len(list(clips.rglob("[0-9]*"))) < wanted:
            time.sleep(0.01)
        if run.poll() is None and kills < 3:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.wait()
    assert kills >= 2
    command(videos, out)
    assert contents(dataset_folder(out)) == contents(whole)


def arguments(videos: Path, out: Path, *options: str) -> list[str]:
    prepare_it = [sys.executable, "-m", "videobooth_jax.cli", "prepare", "--clips-per-shard", "2"]
    return [*prepare_it, "--videos", str(videos), "--out", str(out), *options]


def command(videos: Path, out: Path, *options: str) -> str:
    run = subprocess.run(
        arguments(videos, out, *options),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    return run.stdout


def test_two_runs_do_not_share_a_folder(in_process, inputs, tmp_path: Path):
    with claimed(tmp_path), pytest.raises(ValueError, match="another run is at work"):
        prepare(inputs, tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []
    made = prepare(inputs, tmp_path, CONFIG)
    assert not made.already
    assert prepare(inputs, tmp_path, CONFIG).already


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch):
    def full(descriptor: int):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "clip", b"bytes")
    assert list(tmp_path.iterdir()) == []

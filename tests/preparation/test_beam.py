"""Beam makes the same dataset. Needs the extra `beam`; CI installs it late."""

import filecmp
import sys
from pathlib import Path

import pytest
from made_videos import write_folder

from videobooth_jax.preparation.beam import prepare_with_beam
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.prepare import dataset_folder, make_clips, prepare
from videobooth_jax.preparation.reading import read_inputs
from videobooth_jax.preparation.work_folder import Plan, WorkFolder

CONFIG = PrepareConfig(clips_per_shard=2)


def test_the_direct_runner_makes_the_same_bytes(in_process, tmp_path: Path):
    pytest.importorskip("apache_beam")
    inputs = read_inputs(write_folder(tmp_path / "videos"))
    here = prepare(inputs, tmp_path / "here", CONFIG).folder
    started = WorkFolder(tmp_path / "beam" / ".preparing")  # left by an earlier job: clip 1
    started.begin(Plan.of(inputs, CONFIG))
    assert list(make_clips([(1, inputs[1])], started.path, CONFIG, 1)) == [False]
    in_process.clear()
    flags = ["--runner=FnApiRunner"]  # in this process, as the pool of these tests
    folder = prepare_with_beam(inputs, tmp_path / "beam", CONFIG, flags).folder
    assert sorted(in_process) == [0, 2, 3, 4]
    files = sorted(path.name for path in here.iterdir())
    assert filecmp.cmpfiles(folder, here, files, shallow=False) == (files, [], [])
    assert prepare_with_beam(inputs, tmp_path / "beam", CONFIG, flags).already


def test_without_beam_it_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"videobooth_jax\[beam\]"):
        prepare_with_beam([], tmp_path, CONFIG, [])
    assert not dataset_folder(tmp_path).exists()

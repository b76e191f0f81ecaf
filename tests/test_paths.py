"""Paths a user gives: those of this machine, URLs, and slips that look like either."""

import errno
import importlib.util
import os
from pathlib import Path

import pytest
from bucket import stand_in_for_buckets
from checkpoint_checks import assert_same
from tiny_model import TOKENIZER_FILE, random_params, tiny_config

from videobooth_jax.checkpointing import (
    ModelDirectoryError,
    TrainCheckpoints,
    load_model,
    save_model,
)
from videobooth_jax.paths import is_remote, make_writable, put_text, resolve


def test_paths_of_this_machine_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("run")) == str(tmp_path / "run")
    assert str(resolve("a/b:c/d")) == str(tmp_path / "a/b:c/d")
    assert str(resolve("./host:/run")) == str(tmp_path / "host:/run")
    assert str(resolve("~/run")) == str(Path.home() / "run")


def test_urls_stay_as_they_are():
    assert str(resolve("gs://bucket/run") / "model") == "gs://bucket/run/model"
    assert is_remote(resolve("gs://bucket/run"))


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("s3:/typo", "write s3://"),
        ("gs:/bucket/run", "write gs://"),
        ("host:/run", "another machine"),
        ("me@host:run", "another machine"),
        ("ftp://host/run", "known are gs://"),
    ],
)
def test_slips_are_told_and_make_no_folder(tmp_path, monkeypatch, path, advice):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=advice):
        TrainCheckpoints(path)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"a run cannot be written to .*file/x"):
        make_writable(resolve(tmp_path / "file" / "x"), "a run")


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path, monkeypatch):
    file = resolve(tmp_path / "file")
    put_text(file, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put_text(file, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_url_whose_file_system_is_not_installed_says_what_to_install():
    with pytest.raises(ImportError, match="pip install gcsfs"):
        TrainCheckpoints("gs://bucket/run")


def test_a_model_directory_in_a_bucket(tmp_path, monkeypatch):
    stand_in_for_buckets(monkeypatch, tmp_path)
    config = tiny_config()
    params = random_params(config)
    save_model("gs://bucket/model", config, params, tokenizer_file=TOKENIZER_FILE)
    assert (tmp_path / "bucket" / "model" / "tokenizer.json").is_file()
    found, loaded = load_model("gs://bucket/model")
    assert found == config
    assert_same(loaded, params)
    (tmp_path / "bucket" / "model" / "tokenizer.json").write_text("")
    with pytest.raises(ModelDirectoryError, match="tokenizer"):
        load_model("gs://bucket/model")

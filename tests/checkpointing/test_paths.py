"""Paths a user gives: those of this machine, URLs, and slips that look like either."""

import importlib.util
from pathlib import Path

import pytest

from videobooth_jax.checkpointing import TrainCheckpoints
from videobooth_jax.checkpointing.paths import is_remote, make_writable, resolve


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


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_url_whose_file_system_is_not_installed_says_what_to_install():
    with pytest.raises(ImportError, match="pip install gcsfs"):
        TrainCheckpoints("gs://bucket/run")

"""Programs are kept where they should be, found again by another process, or not kept at all."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from bucket import stand_in_for_buckets
from jax.experimental.compilation_cache import compilation_cache as compiler_cache

from videobooth_jax import compilation_cache
from videobooth_jax.compilation_cache import (
    cache_folder,
    enable_compilation_cache,
    traced_programs_folder,
)


@pytest.fixture(autouse=True)
def restore():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_where(monkeypatch, tmp_path):
    monkeypatch.delenv("VIDEOBOOTH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "videobooth_jax" / "programs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert cache_folder() == tmp_path / "me" / ".cache" / "videobooth_jax" / "programs"
    monkeypatch.setenv("VIDEOBOOTH_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "off")
    assert cache_folder() is None
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert traced_programs_folder() is None


def test_a_bucket_holds_what_is_compiled_and_what_is_traced(monkeypatch, tmp_path):
    stand_in_for_buckets(monkeypatch, tmp_path)
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "gs://bucket/run/programs")
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    compiler_cache.reset_cache()
    try:
        assert str(enable_compilation_cache()) == "gs://bucket/run/programs"
        jax.jit(lambda x: x * 3 + 1)(jnp.arange(7.0)).block_until_ready()
        assert list((tmp_path / "bucket" / "run" / "programs").glob("*-cache"))
        assert str(traced_programs_folder()) == "gs://bucket/run/programs/traced"
    finally:
        compiler_cache.reset_cache()
        jax.config.update("jax_enable_compilation_cache", before)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_bucket_whose_file_system_is_not_installed_is_a_warning(monkeypatch):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "gs://bucket/run/programs")
    with pytest.warns(UserWarning, match=r"gcsfs.*every run compiles anew"):
        assert enable_compilation_cache() is None


def test_a_url_that_cannot_be_read_is_a_warning(monkeypatch):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "hdfs://somewhere/programs")
    with pytest.warns(UserWarning, match=r"hdfs:// is not known.*every run compiles anew"):
        assert enable_compilation_cache() is None


@pytest.mark.parametrize("setting", ["jax_disable_jit", "jax_debug_nans"])
def test_nothing_traced_is_kept_where_jax_is_to_debug(tmp_path, setting):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert traced_programs_folder() == tmp_path / "traced"
    jax.config.update(setting, True)
    try:
        assert traced_programs_folder() is None
    finally:
        jax.config.update(setting, False)


def test_jax_may_be_told_to_keep_nothing(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert traced_programs_folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_on_and_private(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", str(tmp_path / "a" / "b"))
    assert enable_compilation_cache() == tmp_path / "a" / "b"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    assert traced_programs_folder() == tmp_path / "a" / "b" / "traced"


def test_a_folder_chosen_through_jax_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", str(tmp_path / "mine"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    assert enable_compilation_cache() == tmp_path / "theirs"
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_cannot_be_made_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VIDEOBOOTH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="every run compiles anew"):
        assert enable_compilation_cache() is None


PROGRAM = """
import jax, jax.numpy as jnp
from videobooth_jax.compilation_cache import enable_compilation_cache
enable_compilation_cache()
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
x = jnp.full((1, 8, 8, 4), 0.5)
w = jnp.full((3, 3, 4, 4), 0.1)
def f(x, w):
    def body(c, _):
        return jax.lax.conv_general_dilated(
            c, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")), None
    return jax.lax.scan(body, x, None, length=3)[0].sum()
print(float(jax.jit(f)(x, w)), hits.count("/jax/compilation_cache/cache_hits"))
"""


def test_another_process_finds_the_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", str(tmp_path))

    def run():
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "machine" not in done.stderr.lower()  # no complaints about other processors
        value, hits = done.stdout.split()
        return value, int(hits)

    first, second = run(), run()
    assert first[1] == 0
    assert second[1] >= 1
    assert first[0] == second[0]
    assert compilation_cache.cache_folder() == tmp_path

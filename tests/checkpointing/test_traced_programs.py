"""Traced programs on disk: found by what they were made of, never trusted when damaged."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bucket import stand_in_for_buckets
from etils import epath

from videobooth_jax.checkpointing import traced_programs
from videobooth_jax.checkpointing.traced_programs import (
    NotKeptError,
    TracedProgram,
    export_program,
    kept_program,
)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "traced")


class Tracer:
    """``x -> {"y": factor * x}``, and how often it was traced."""

    def __init__(self, factor=2.0):
        self.factor, self.count = factor, 0

    def __call__(self):
        self.count += 1
        given = [jax.ShapeDtypeStruct((3,), jnp.float32)]
        exported = export_program(lambda x: {"y": self.factor * x}, given, "cpu")
        return TracedProgram(exported, {"flops": 3})


def result(kept):
    return np.asarray(kept.exported.call(jnp.arange(3.0))["y"])


def test_a_program_is_traced_once_and_then_read(folder):
    trace = Tracer()
    for _ in range(2):
        kept = kept_program(folder, "double", ["a"], trace)
        np.testing.assert_array_equal(result(kept), [0.0, 2.0, 4.0])
        assert kept.notes == {"flops": 3}
    assert trace.count == 1
    assert [p.suffix for p in folder.iterdir()] == [".program"]
    assert folder.stat().mode & 0o77 == 0


def test_what_was_made_of_something_else_is_another_program(folder, monkeypatch):
    kept_program(folder, "double", ["a", "b"], Tracer())
    for made_of in (["a"], ["ab"], ["b", "a"], ["a", "b", ""]):
        kept_program(folder, "double", made_of, trace := Tracer())
        assert trace.count == 1
    monkeypatch.setattr("optax.__version__", "of another day")
    kept_program(folder, "double", ["a", "b"], trace := Tracer())
    assert trace.count == 1


def test_a_setting_that_changes_numbers_makes_another_program(folder):
    kept_program(folder, "double", [], Tracer())
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        kept_program(folder, "double", [], trace := Tracer())
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert trace.count == 1


def test_changed_sources_make_another_program(folder, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.py").write_text("one = 1\n")
    monkeypatch.setattr(traced_programs, "_PACKAGE", package)
    kept_program(folder, "double", [], Tracer())
    (package / "model.py").write_text("one = 2\n")
    kept_program(folder, "double", [], trace := Tracer())
    assert trace.count == 1


@pytest.mark.parametrize(
    "damage", ["flipped", "other notes", "foreign", "cut", "empty", "of another kind"]
)
def test_a_damaged_file_is_named_and_made_anew(folder, damage):
    kept_program(folder, "double", [], Tracer())
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(
        {
            "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
            "other notes": content.replace(b"flops", b"flaps"),
            "foreign": traced_programs._digest(b"{}\nnothing").encode() + b"\n{}\nnothing",
            "cut": content[: len(content) // 2],
            "empty": b"",
            "of another kind": json.dumps([1]).encode() + b"\n",
        }[damage]
    )
    with pytest.warns(UserWarning, match=rf"{file}: .*traced anew"):
        kept = kept_program(folder, "double", [], trace := Tracer())
    np.testing.assert_array_equal(result(kept), [0.0, 2.0, 4.0])
    kept_program(folder, "double", [], trace)
    assert trace.count == 1


def test_a_folder_that_cannot_be_written_costs_a_warning_alone(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        kept = kept_program(epath.Path(tmp_path / "file" / "traced"), "double", [], Tracer())
    np.testing.assert_array_equal(result(kept), [0.0, 2.0, 4.0])


def test_a_file_system_with_errors_of_its_own_costs_a_warning_alone(folder, monkeypatch):
    class TooManyRequestsError(Exception):
        pass

    def refuse(*_):
        raise TooManyRequestsError("slow down")

    monkeypatch.setattr(traced_programs, "put_shared", refuse)
    with pytest.warns(UserWarning, match="cannot be kept in .*: slow down"):
        kept_program(folder, "double", [], Tracer())


def test_a_name_never_leaves_the_folder(folder):
    for name in ("../../out", "a/b", "x" * 300, "\0"):
        kept_program(folder, name, [], Tracer())
        kept_program(folder, name, [], trace := Tracer())
        assert trace.count == 0
    assert len(list(folder.iterdir())) == 4
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_without_sources_nothing_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(traced_programs, "_PACKAGE", tmp_path)
    with pytest.raises(NotKeptError, match="without its sources"):
        kept_program(folder, "double", [], Tracer())


def test_what_cannot_be_exported_is_told_from_what_is_wrong():
    def told(x):
        return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((), jnp.float32), x)

    one = [jax.ShapeDtypeStruct((), jnp.float32)]
    with pytest.raises(NotKeptError):
        export_program(told, one, "cpu")

    def wrong(x):
        raise ValueError("a mistake of mine")

    with pytest.raises(ValueError, match="a mistake of mine"):
        export_program(wrong, one, "cpu")


def test_an_export_traces_once():
    calls = []
    export_program(lambda x: calls.append(x) or x, [jax.ShapeDtypeStruct((), jnp.float32)], "cpu")
    assert len(calls) == 1


def test_in_a_bucket(monkeypatch, tmp_path):
    stand_in_for_buckets(monkeypatch, tmp_path)
    trace = Tracer()
    for _ in range(2):
        kept = kept_program(epath.Path("gs://bucket/run/traced"), "double", [], trace)
        np.testing.assert_array_equal(result(kept), [0.0, 2.0, 4.0])
    assert trace.count == 1
    assert list((tmp_path / "bucket" / "run" / "traced").iterdir())


PROCESS = """
import sys
import jax
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
from etils import epath
from videobooth_jax.checkpointing.traced_programs import kept_program
def trace():
    raise AssertionError("it is there")
kept = kept_program(epath.Path(sys.argv[1]), "double", [], trace)
print(kept.notes, kept.exported.call(jax.numpy.arange(3.0))["y"])
"""


def test_another_process_finds_it(folder):
    kept_program(folder, "double", [], Tracer())
    told = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder)], capture_output=True, text=True, check=True
    )
    assert told.stdout == "{'flops': 3} [0. 2. 4.]\n"

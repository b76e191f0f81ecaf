"""Files of weights: understood in every dtype and wrapper, damaged and hostile ones refused."""

import argparse
import os
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from videobooth_jax.conversion.reading import UnreadableError, open_weights

WEIGHTS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "b.bias": (np.arange(4) / 3).astype(np.float16),
    "c.weight": (np.arange(8).reshape(2, 2, 2) / 3).astype(ml_dtypes.bfloat16),
    "scale": np.array(2.5, np.float32),
    "ids": np.arange(3),
}


def assert_holds(files, weights):
    with open_weights(files) as tensors:
        assert tensors.keys() == weights.keys()
        for name, array in weights.items():
            assert tensors[name].shape == array.shape
            np.testing.assert_array_equal(np.asarray(tensors[name]), array, strict=True)


class TestSafetensors:
    def test_every_dtype(self, tmp_path):
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        assert_holds([tmp_path / "w.safetensors"], WEIGHTS)

    def test_shards(self, tmp_path):
        names = sorted(WEIGHTS)
        for i, part in enumerate((names[:2], names[2:])):
            save_file({n: WEIGHTS[n] for n in part}, tmp_path / f"{i}.safetensors")
        assert_holds([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], WEIGHTS)

    def test_shards_that_repeat_a_name(self, tmp_path):
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        with (
            pytest.raises(UnreadableError, match=r"repeats names of other shards: a\.weight"),
            open_weights([tmp_path / "w.safetensors"] * 2),
        ):
            pass

    def test_needs_no_torch(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        assert_holds([tmp_path / "w.safetensors"], WEIGHTS)

    @pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"\xff" * 100, lambda b: b""])
    def test_damaged(self, tmp_path, damage):
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        whole = (tmp_path / "w.safetensors").read_bytes()
        (tmp_path / "w.safetensors").write_bytes(damage(whole))
        with (
            pytest.raises(UnreadableError, match=r"w\.safetensors is not a whole safetensors file"),
            open_weights([tmp_path / "w.safetensors"]),
        ):
            pass


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pt").write_bytes(b"")
    with (
        pytest.raises(ImportError, match=r"pip install 'videobooth_jax\[torch\]'"),
        open_weights([tmp_path / "w.pt"]),
    ):
        pass


class Evil:
    """Unpickling this touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class TestPickles:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def tensors(self, torch):
        def convert(x):
            if x.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(x)

        return {name: convert(x) for name, x in WEIGHTS.items()}

    @pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth", ".ckpt"])
    def test_plain(self, torch, tensors, tmp_path, suffix):
        torch.save(tensors, tmp_path / f"w{suffix}")
        assert_holds([tmp_path / f"w{suffix}"], WEIGHTS)

    def test_old_format(self, torch, tensors, tmp_path):
        torch.save(tensors, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
        assert_holds([tmp_path / "w.bin"], WEIGHTS)

    @pytest.mark.parametrize("key", ["ema", "ema_unet", "state_dict", "model"])
    def test_wrappers(self, torch, tensors, tmp_path, key):
        beside = {"opt": {"lr": 1e-4}, "args": argparse.Namespace(steps=3), "epoch": 2}
        torch.save({key: tensors, **beside}, tmp_path / "w.pt")
        assert_holds([tmp_path / "w.pt"], WEIGHTS)

    def test_averaged_weights_come_first(self, torch, tensors, tmp_path):
        other = {"model": {"x": torch.zeros(1)}, "ema": tensors}
        torch.save(other, tmp_path / "w.pt")
        assert_holds([tmp_path / "w.pt"], WEIGHTS)

    def test_nested_wrappers_and_parameters(self, torch, tensors, tmp_path):
        floats = {n: torch.nn.Parameter(x) for n, x in tensors.items() if x.is_floating_point()}
        torch.save({"model": {"state_dict": floats}}, tmp_path / "w.pt")
        assert_holds([tmp_path / "w.pt"], {n: x for n, x in WEIGHTS.items() if n != "ids"})

    def test_numbers_outlive_the_file(self, torch, tensors, tmp_path):
        torch.save(tensors, tmp_path / "w.pt")
        with open_weights([tmp_path / "w.pt"]) as found:
            kept = np.asarray(found["a.weight"])
        (tmp_path / "w.pt").write_bytes(b"")
        np.testing.assert_array_equal(kept, WEIGHTS["a.weight"])

    @pytest.mark.parametrize("protocol", [None, 2, 4])
    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_code_is_refused_and_not_run(self, torch, tmp_path, protocol):
        content = {"ema": {"w": Evil(tmp_path / "ran")}}
        if protocol is None:
            torch.save(content, tmp_path / "w.pt")
        else:
            (tmp_path / "w.pt").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(UnreadableError) as error, open_weights([tmp_path / "w.pt"]):
            pass
        assert not (tmp_path / "ran").exists()
        message = str(error.value)
        assert "w.pt was refused: it" in message
        assert ".system" in message or "try to run code" in message
        assert len(message) < 400

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ({"opt": {"lr": 1}}, "holds no weights: it has opt"),
            ([1, 2], "holds a list"),
            ({}, "holds no weights: it has nothing"),
        ],
    )
    def test_no_weights(self, torch, tmp_path, content, words):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UnreadableError, match=words), open_weights([tmp_path / "w.pt"]):
            pass

    def test_mixed_content(self, torch, tensors, tmp_path):
        torch.save({**tensors, "epoch": 3}, tmp_path / "w.pt")
        with (
            pytest.raises(UnreadableError, match="mixes tensors with other things: epoch"),
            open_weights([tmp_path / "w.pt"]),
        ):
            pass

    @pytest.mark.parametrize(
        "damage", [lambda b: b[: len(b) // 2], lambda b: b"junk", lambda b: b""]
    )
    def test_damaged(self, torch, tensors, tmp_path, damage):
        torch.save(tensors, tmp_path / "w.pt")
        whole = (tmp_path / "w.pt").read_bytes()
        (tmp_path / "w.pt").write_bytes(damage(whole))
        with (
            pytest.raises(UnreadableError, match=r"w\.pt .*damaged"),
            open_weights([tmp_path / "w.pt"]),
        ):
            pass

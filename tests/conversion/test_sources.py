"""Where weights are looked for, and what an index file may not do."""

import json
import sys

import pytest

from videobooth_jax.conversion.sources import NAMES, SourceError, locate, locate_tokenizer


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def index(folder, name, *shards):
    weight_map = {f"w{i}": shard for i, shard in enumerate(shards)}
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


class TestFolders:
    def test_a_file_is_itself(self, tmp_path):
        make(tmp_path, "mapper.pt")
        assert locate(tmp_path / "mapper.pt") == [tmp_path / "mapper.pt"]

    def test_full_precision_and_safetensors_come_first(self, tmp_path):
        make(tmp_path, "model.fp16.safetensors", "pytorch_model.bin", "model.safetensors")
        assert locate(tmp_path) == [tmp_path / "model.safetensors"]
        (tmp_path / "model.safetensors").unlink()
        assert locate(tmp_path) == [tmp_path / "pytorch_model.bin"]
        (tmp_path / "pytorch_model.bin").unlink()
        assert locate(tmp_path) == [tmp_path / "model.fp16.safetensors"]

    def test_every_usual_name_is_found(self, tmp_path):
        for i, name in enumerate(name for name in NAMES if not name.endswith(".json")):
            make(tmp_path / str(i), name)
            assert locate(tmp_path / str(i)) == [tmp_path / str(i) / name]

    def test_sub_folders_of_a_pipeline(self, tmp_path):
        make(tmp_path, "vae/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.bin")
        found = locate(tmp_path, ["unet"])
        assert found == [tmp_path / "unet/diffusion_pytorch_model.bin"]
        make(tmp_path, "diffusion_pytorch_model.safetensors")
        assert locate(tmp_path, ["unet"]) == [tmp_path / "diffusion_pytorch_model.safetensors"]

    def test_other_names_are_suggested(self, tmp_path):
        make(tmp_path, "mapper.pt", "notes.txt")
        with pytest.raises(
            SourceError, match=r"holds no file called like .*; name one of mapper\.pt"
        ):
            locate(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(SourceError, match="no file or folder"):
            locate(tmp_path / "none")
        with pytest.raises(SourceError, match="holds no file called like"):
            locate(tmp_path)


class TestShards:
    NAME = "model.safetensors.index.json"

    @pytest.mark.parametrize("by_file", [False, True])
    def test_all_of_them(self, tmp_path, by_file):
        make(tmp_path, "model-1.safetensors", "model-2.safetensors")
        index(
            tmp_path, self.NAME, "model-2.safetensors", "model-1.safetensors", "model-1.safetensors"
        )
        found = locate(tmp_path / self.NAME if by_file else tmp_path)
        assert [f.name for f in found] == ["model-1.safetensors", "model-2.safetensors"]

    @pytest.mark.parametrize(
        "shard",
        [
            "../secret.safetensors",
            "/etc/passwd",
            "..",
            "a/b.safetensors",
            "a\\b.bin",
            ".hidden",
            "",
        ],
    )
    def test_paths_never_leave_the_folder(self, tmp_path, shard):
        make(tmp_path, "secret.safetensors", "inside/model-1.safetensors")
        index(tmp_path / "inside", self.NAME, "model-1.safetensors", shard)
        with pytest.raises(SourceError, match="which is no name of a file beside it"):
            locate(tmp_path / "inside")

    def test_lost_shard(self, tmp_path):
        index(tmp_path, self.NAME, "model-1.safetensors")
        with pytest.raises(SourceError, match=r"shards that are not there: model-1\.safetensors"):
            locate(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
    def test_damaged_index(self, tmp_path, text):
        (tmp_path / self.NAME).write_text(text)
        with pytest.raises(SourceError, match="is not an index of shards"):
            locate(tmp_path)


class TestTokenizers:
    def test_in_beside_and_in_two_files(self, tmp_path):
        make(tmp_path / "a", "tokenizer.json", "model.safetensors")
        make(tmp_path / "b", "tokenizer/vocab.json", "tokenizer/merges.txt")
        one = (tmp_path / "a/tokenizer.json",)
        assert locate_tokenizer(tmp_path / "a") == one
        assert locate_tokenizer(tmp_path / "a/tokenizer.json") == one
        assert locate_tokenizer(tmp_path / "a/model.safetensors") == one
        two = (tmp_path / "b/tokenizer/vocab.json", tmp_path / "b/tokenizer/merges.txt")
        assert locate_tokenizer(tmp_path / "b") == two

    def test_none(self, tmp_path):
        with pytest.raises(SourceError, match="there is no tokenizer in"):
            locate_tokenizer(tmp_path)


class TestHub:
    FILES = ("README.md", "unet/diffusion_pytorch_model.bin", "vae/model.safetensors", "mapper.pt")

    @pytest.fixture
    def fetched(self, tmp_path, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")
        names = []

        def download(repository, name):
            names.append(f"{repository}:{name}")
            return str(make(tmp_path, name) / name)

        monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *_: list(self.FILES))
        monkeypatch.setattr(hub, "hf_hub_download", download)
        return names

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("owner/name", "unet/diffusion_pytorch_model.bin"),
            ("owner/name/unet", "unet/diffusion_pytorch_model.bin"),
            ("owner/name/vae", "vae/model.safetensors"),
            ("owner/name/vae/model.safetensors", "vae/model.safetensors"),
            ("owner/name/mapper.pt", "mapper.pt"),
        ],
    )
    def test_only_what_is_needed_is_fetched(self, fetched, source, expected):
        (file,) = locate(source, ["unet"])
        assert file.name == expected.rpartition("/")[2]
        assert fetched == [f"owner/name:{expected}"]

    def test_unreachable(self, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")

        def unreachable(self, repository):
            raise OSError("no network")

        monkeypatch.setattr(hub.HfApi, "list_repo_files", unreachable)
        with pytest.raises(SourceError, match=r"no file or folder owner/name here, .* no network"):
            locate("owner/name")

    def test_without_the_client_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ImportError, match=r"pip install 'videobooth_jax\[hub\]'"):
            locate("owner/name")

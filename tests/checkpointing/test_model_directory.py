"""Model directories: bit-exact, all or nothing, and plain about what is wrong."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from checkpoint_checks import assert_same, flip_a_bit, largest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videobooth_jax.checkpointing import (
    ModelDirectoryError,
    load_config,
    load_model,
    save_model,
)
from videobooth_jax.checkpointing import model_directory as model_directory_module
from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import VideoBoothConfig, with_dtypes

CONFIG = SIZES["sprites"]
WIDTH = CONFIG.unet.block_out_channels[0]


def small_tree(config: VideoBoothConfig):
    """A stand-in for `abstract_params`: a few parameters whose shapes depend on the config.

    Tracing a real model takes seconds, and what is tested here does not depend on it. Conversion's
    tests write and read real ones.
    """
    width, channels = config.unet.block_out_channels[0], 4
    shapes = {
        "unet": {
            "conv_in": {"kernel": (3, 3, channels, width), "bias": (width,)},
            "conv_out": {"kernel": (3, 3, width, channels), "bias": (channels,)},
        },
        "contrastive_head": {"logit_scale": ()},
    }
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def random_like(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), tree)


@pytest.fixture(autouse=True, scope="module")
def _small_models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_directory_module, "abstract_params", small_tree)
        yield


@pytest.fixture(scope="module")
def params():
    return random_like(small_tree(CONFIG))


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = folder / "words.json"
    tokenizer.write_text('{"a": 1}')
    save_model(folder / "model", CONFIG, params, tokenizer_file=tokenizer, card="# A model\n")
    return folder / "model"


@pytest.fixture
def model(saved, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


class TestModelDirectory:
    def test_round_trip_is_bit_exact(self, saved, params):
        config, loaded = load_model(saved)
        assert config == CONFIG == load_config(saved)
        assert_same(loaded, jax.tree.map(jnp.asarray, params))
        assert isinstance(jax.tree.leaves(loaded)[0], jax.Array)
        assert (saved / "tokenizer.json").read_text() == '{"a": 1}'
        assert (saved / "README.md").read_text() == "# A model\n"
        assert not [p for p in saved.parent.iterdir() if p.name.startswith(".")]

    @pytest.mark.parametrize("stored", [ml_dtypes.bfloat16, np.float16])
    def test_half_precision_storage(self, params, tmp_path, stored):
        save_model(tmp_path / "m", CONFIG, params, dtype=np.dtype(stored).name)
        rounded = jax.tree.map(lambda x: jnp.asarray(x.astype(stored)), params)
        widened = jax.tree.map(lambda x: x.astype(jnp.float32), rounded)
        assert_same(load_model(tmp_path / "m")[1], widened)
        assert_same(load_model(tmp_path / "m", dtype=np.dtype(stored).name)[1], rounded)
        assert_same(load_model(tmp_path / "m", dtype="stored")[1], rounded)

    def test_the_config_says_which_dtype(self, params, tmp_path):
        save_model(tmp_path / "m", with_dtypes(CONFIG, param_dtype="bfloat16"), params)
        loaded = load_model(tmp_path / "m")[1]
        assert {x.dtype.name for x in jax.tree.leaves(loaded)} == {"bfloat16"}
        loaded = load_model(tmp_path / "m", dtype="stored")[1]
        assert_same(loaded, jax.tree.map(jnp.asarray, params))

    def test_compressed_storage_is_smaller_than_the_numbers(self, params, tmp_path):
        big = jax.tree.map(np.zeros_like, params)
        save_model(tmp_path / "m", CONFIG, big)
        size = sum(f.stat().st_size for f in (tmp_path / "m").rglob("*") if f.is_file())
        assert size < sum(x.nbytes for x in jax.tree.leaves(big))

    def test_views_of_mapped_files_are_saved(self, params, tmp_path):
        flat, tree = jax.tree.flatten(params)
        views = []
        for i, x in enumerate(flat):
            np.save(tmp_path / f"{i}.npy", x.T)
            views.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r").T)
        save_model(tmp_path / "m", CONFIG, jax.tree.unflatten(tree, views))
        assert_same(load_model(tmp_path / "m")[1], jax.tree.map(jnp.asarray, params))

    def test_one_sharding_for_all(self, saved, params):
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        loaded = load_model(saved, shardings=everywhere)[1]
        assert all(x.sharding == everywhere for x in jax.tree.leaves(loaded))
        assert_same(loaded, jax.tree.map(jnp.asarray, params))

    def test_a_sharding_by_path_and_shape(self, saved, params):
        mesh = Mesh(np.asarray(jax.devices()), ("data",))

        def place(path, shape):
            split = path.startswith("unet/") and shape and shape[0] % 8 == 0
            return NamedSharding(mesh, PartitionSpec("data") if split else PartitionSpec())

        loaded = load_model(saved, shardings=place)[1]
        for path, x in flatten_dict(loaded, sep="/").items():
            assert x.sharding == place(path, x.shape), path
        assert_same(loaded, jax.tree.map(jnp.asarray, params))

    def test_existing_directory_is_kept(self, saved, params):
        with pytest.raises(FileExistsError, match="exists already"):
            save_model(saved, CONFIG, params)

    def test_overwrite(self, model, params):
        other = jax.tree.map(lambda x: x + np.float32(1), params)
        save_model(model, CONFIG, other, overwrite=True)
        assert_same(load_model(model)[1], jax.tree.map(jnp.asarray, other))
        assert not (model / "tokenizer.json").exists()
        assert [p.name for p in model.parent.iterdir()] == ["model"]

    def test_overwrite_spares_other_folders(self, tmp_path, params):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(FileExistsError, match="not a model directory"):
            save_model(tmp_path, CONFIG, params, overwrite=True)
        assert (tmp_path / "thesis.tex").exists()

    def test_failure_leaves_what_was_there(self, model, params, monkeypatch):
        def no_space(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(model_directory_module.manifest, "seal", no_space)
        with pytest.raises(OSError, match="No space"):
            save_model(model, CONFIG, jax.tree.map(np.zeros_like, params), overwrite=True)
        with pytest.raises(OSError, match="No space"):
            save_model(model.parent / "new", CONFIG, params)
        assert [p.name for p in model.parent.iterdir()] == ["model"]
        assert_same(load_model(model)[1], jax.tree.map(jnp.asarray, params))

    def test_unwritable_place(self, tmp_path, params):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            save_model(tmp_path / "file" / "model", CONFIG, params)

    def test_parameters_of_another_model_are_not_saved(self, params, tmp_path):
        unet = {k: v for k, v in params["unet"].items() if k != "conv_in"}
        unet["conv_out"] = {**unet["conv_out"], "bias": np.zeros(5, np.float32)}
        wrong = {**params, "unet": unet, "extra": {"kernel": np.zeros((2, 3), np.float32)}}
        with pytest.raises(ModelDirectoryError) as error:
            save_model(tmp_path / "m", CONFIG, wrong)
        message = str(error.value)
        for part in (
            "2 missing, 1 unexpected, 1 of another shape",
            f"unet/conv_in/kernel (3, 3, 4, {WIDTH})",
            f"unet/conv_in/bias ({WIDTH},)",
            "extra/kernel (2, 3)",
            "unet/conv_out/bias is (5,), expected (4,)",
        ):
            assert part in message
        assert not list(tmp_path.iterdir())


class TestBadModelDirectories:
    def refused(self, path, *words):
        with pytest.raises(ModelDirectoryError) as error:
            load_model(path)
        for word in words:
            assert word in str(error.value)

    def test_not_there(self, tmp_path):
        self.refused(tmp_path / "none", "none", "no such folder")

    def test_another_folder(self, tmp_path):
        self.refused(tmp_path, "not a model directory", "no config.json")

    @pytest.mark.parametrize("piece", ["weights", "manifest.json", "tokenizer.json"])
    def test_missing_piece(self, model, piece):
        path = model / piece
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.refused(model, piece, "missing")

    def test_truncated_weights(self, model):
        file = largest(model / "weights")
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.truncate(size // 2)
        self.refused(model, "damaged", file.name, f"has {size // 2} bytes, but {size} were written")

    def test_lost_weights_file(self, model):
        file = largest(model / "weights")
        file.unlink()
        self.refused(model, "damaged", f"{file.name} is missing")

    def test_flipped_bit(self, model):
        file = largest(model / "weights")
        flip_a_bit(file)
        self.refused(model, "damaged", file.name, "changed")

    def edit(self, model, change):
        content = json.loads((model / "config.json").read_text())
        change(content)
        (model / "config.json").write_text(json.dumps(content))

    def test_unknown_and_missing_keys(self, model):
        def change(content):
            content["model"]["unet"]["num_haeds"] = content["model"]["unet"].pop("num_heads")

        self.edit(model, change)
        self.refused(model, "config.json", "num_haeds", "num_heads")

    def test_newer_format(self, model):
        self.edit(model, lambda content: content.update(format_version=99))
        self.refused(model, "format version 99", "reads 1")

    @pytest.mark.parametrize("text", ["{", "[]", "{}"])
    def test_unreadable_config(self, model, text):
        (model / "config.json").write_text(text)
        self.refused(model, "config.json", "not readable")

    def test_another_size(self, model):
        def widen(content):
            content["model"]["unet"]["block_out_channels"][0] *= 2

        self.edit(model, widen)
        self.refused(
            model,
            "not those of its model 'sprites': 3 of another shape",
            f"unet/conv_in/bias is ({WIDTH},), expected ({2 * WIDTH},)",
        )

    def test_harmless_edits_are_welcome(self, model, params):
        self.edit(model, lambda content: content["model"]["diffusion"].update(guidance_scale=2.0))
        config, loaded = load_model(model)
        assert config.diffusion.guidance_scale == 2.0
        assert_same(loaded, jax.tree.map(jnp.asarray, params))

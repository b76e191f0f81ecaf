"""Published files in, model directory out, and back: bit for bit, strict, and frugal."""

import re

import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from published import (
    _trace_once,  # noqa: F401
    clip_file,
    image_unet,
    is_temporal,
    new_spelling,
    random_weights,
    respell,
    small_config,
    write_all,
    write_tokenizer,
)
from safetensors.numpy import load_file, save_file

from videobooth_jax.checkpointing import load_config, load_model
from videobooth_jax.conversion.convert import WeightsMismatchError
from videobooth_jax.conversion.convert_model import convert_checkpoints
from videobooth_jax.conversion.export_model import export_checkpoints

CONFIG = small_config()
HEADED = small_config(contrastive_dim=6)


@pytest.fixture(scope="module")
def weights():
    return random_weights(CONFIG)


@pytest.fixture
def options(tmp_path, weights):
    (tmp_path / "given").mkdir()
    return write_all(tmp_path / "given", weights, CONFIG)


def assert_same_files(folder, weights):
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{n}.safetensors" for n in weights)
    for name, expected in weights.items():
        found = load_file(folder / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array, strict=True)


def flat_params(path, **options):
    return flatten_dict(load_model(path, **options)[1], sep="/")


class TestThereAndBack:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
    def test_every_bit_returns(self, tmp_path, dtype):
        weights = random_weights(CONFIG, dtype)
        (tmp_path / "given").mkdir()
        options = write_all(tmp_path / "given", weights, CONFIG)
        report = convert_checkpoints(
            tmp_path / "model", size=CONFIG, dtype=np.dtype(dtype).name, **options
        )
        assert report.notes == ()
        assert report.config == CONFIG == load_config(tmp_path / "model")
        assert report.parameters == sum(x.size for part in weights.values() for x in part.values())
        export_checkpoints(tmp_path / "model", tmp_path / "back")
        assert_same_files(tmp_path / "back", weights)

    def test_half_precision_files_survive_float32(self, tmp_path):
        weights = random_weights(CONFIG, np.float16)
        (tmp_path / "given").mkdir()
        options = write_all(tmp_path / "given", weights, CONFIG)
        convert_checkpoints(tmp_path / "model", size=CONFIG, **options)
        export_checkpoints(tmp_path / "model", tmp_path / "back", dtype="float16")
        assert_same_files(tmp_path / "back", weights)

    def test_contrastive_head_travels_with_the_text_tower(self, tmp_path):
        weights = random_weights(HEADED)
        assert weights["text_encoder"]["logit_scale"].shape == ()
        (tmp_path / "given").mkdir()
        options = write_all(tmp_path / "given", weights, HEADED)
        convert_checkpoints(tmp_path / "model", size=HEADED, **options)
        export_checkpoints(tmp_path / "model", tmp_path / "back")
        assert_same_files(tmp_path / "back", weights)


class TestSpellings:
    def converted(self, tmp_path, options, **changes):
        convert_checkpoints(tmp_path / "model", size=CONFIG, **{**options, **changes})
        export_checkpoints(tmp_path / "model", tmp_path / "back")
        return tmp_path / "back"

    def test_new_autoencoder(self, tmp_path, options, weights):
        renamed = respell(weights["vae"], new_spelling)
        assert renamed.keys() != weights["vae"].keys()
        save_file(renamed, tmp_path / "vae.safetensors")
        back = self.converted(tmp_path, options, vae=tmp_path / "vae.safetensors")
        assert_same_files(back, weights)

    def test_both_towers_in_one_file(self, tmp_path, options, weights):
        folder = tmp_path / "clip"
        folder.mkdir()
        save_file(clip_file(weights), folder / "model.safetensors")
        options.pop("tokenizer")
        write_tokenizer(folder, CONFIG)
        back = self.converted(tmp_path, options, text_encoder=folder, vision_encoder=folder)
        assert_same_files(back, weights)

    def test_towers_without_prefix(self, tmp_path, options, weights):
        for name in ("text_encoder", "vision_encoder"):
            short = respell(weights[name], lambda n: n.split(".", 1)[1])
            save_file(short, tmp_path / f"{name}.safetensors")
            options[name] = tmp_path / f"{name}.safetensors"
        assert_same_files(self.converted(tmp_path, options), weights)

    def test_published_pickles(self, tmp_path, options, weights):
        torch = pytest.importorskip("torch")

        def wrap(name, key, file):
            tensors = {n: torch.from_numpy(x) for n, x in weights[name].items()}
            torch.save({key: tensors, "opt": {"state": {}}}, tmp_path / file)
            return tmp_path / file

        options["watermark"] = wrap("unet", "ema_unet", "watermark_remove_module.pt")
        options["mapper"] = wrap("mapper", "ema", "mapper.pt")
        options["vae"] = wrap("vae", "state_dict", "diffusion_pytorch_model.bin")
        del options["unet"]
        assert_same_files(self.converted(tmp_path, options), weights)

    def test_pipeline_folder_with_shards_and_half_precision(self, tmp_path, options, weights):
        root = tmp_path / "pipeline"
        for part in ("unet", "vae"):
            (root / part).mkdir(parents=True)
        half = {n: x.astype(np.float16) for n, x in weights["vae"].items()}
        save_file(half, root / "vae/diffusion_pytorch_model.fp16.safetensors")
        names = sorted(weights["unet"])
        index = {}
        for i, part in enumerate((names[::2], names[1::2])):
            shard = f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors"
            save_file({n: weights["unet"][n] for n in part}, root / "unet" / shard)
            index |= dict.fromkeys(part, shard)
        (root / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            repr({"metadata": {}, "weight_map": index}).replace("'", '"')
        )
        back = self.converted(tmp_path, options, unet=root, vae=root)
        rounded = {n: x.astype(np.float32) for n, x in half.items()}
        assert_same_files(back, {**weights, "vae": rounded})


class TestWhatIsNotGiven:
    def test_image_unet(self, tmp_path, options, weights):
        save_file(image_unet(weights["unet"]), tmp_path / "sd.safetensors")
        report = convert_checkpoints(
            tmp_path / "model", size=CONFIG, **{**options, "unet": tmp_path / "sd.safetensors"}
        )
        assert report.config.unet.watermark_channels is None
        assert load_config(tmp_path / "model") == report.config
        assert ["watermark" in n or "temporal attention" in n for n in report.notes] == [True, True]
        card = (tmp_path / "model" / "README.md").read_text()
        assert all(note in card for note in report.notes)
        params = flat_params(tmp_path / "model")
        np.testing.assert_array_equal(
            params["unet/conv_in/kernel"], weights["unet"]["conv_in.weight"].transpose(2, 3, 1, 0)
        )
        np.testing.assert_array_equal(
            params["projector/mapping_1/0/kernel"], weights["mapper"]["mapping_1.0.weight"].T
        )
        block = "unet/down_blocks_0/attentions_0/transformer_blocks_0"
        for leaf in ("kernel", "bias"):
            assert not params[f"{block}/attn_temp/to_out_0/{leaf}"].any()
        assert (params[f"{block}/norm_temp/scale"] == 1).all()
        assert not params[f"{block}/norm_temp/bias"].any()
        for word in "qkv":
            np.testing.assert_array_equal(
                params[f"{block}/attn_temp/to_{word}/kernel"],
                params[f"{block}/attn1/to_{word}/kernel"],
            )

    def test_no_mapper(self, tmp_path, options):
        del options["mapper"]
        report = convert_checkpoints(tmp_path / "model", size=CONFIG, **options)
        assert len(report.notes) == 3
        params = flat_params(tmp_path / "model")
        block = "unet/mid_block/attentions_0/transformer_blocks_0"
        for stand_in, origin in {
            "attn2/to_k_global": "attn2/to_k",
            "attn2/to_v_global": "attn2/to_v",
            "attn1/to_k_new": "attn1/to_k",
            "attn1/to_v_exemplar": "attn1/to_v",
        }.items():
            np.testing.assert_array_equal(
                params[f"{block}/{stand_in}/kernel"], params[f"{block}/{origin}/kernel"]
            )
        assert params["projector/mapping_0/0/kernel"].std() > 0
        assert (params["projector/mapping_0/1/scale"] == 1).all()

    def test_coarse_mapper(self, tmp_path, options, weights):
        coarse = {n: x for n, x in weights["mapper"].items() if "_attn1_" not in n}
        save_file(coarse, tmp_path / "coarse.safetensors")
        options["mapper"] = tmp_path / "coarse.safetensors"
        report = convert_checkpoints(tmp_path / "model", size=CONFIG, **options)
        assert len(report.notes) == 1
        export_checkpoints(tmp_path / "model", tmp_path / "back")
        back = load_file(tmp_path / "back/mapper.safetensors")
        for name, array in coarse.items():
            np.testing.assert_array_equal(back[name], array)

    def test_half_a_group_is_an_error(self, tmp_path, options, weights):
        some = next(n for n in weights["unet"] if is_temporal(n))
        partly = {n: x for n, x in weights["unet"].items() if n != some}
        save_file(partly, tmp_path / "partly.safetensors")
        options["unet"] = tmp_path / "partly.safetensors"
        with pytest.raises(WeightsMismatchError, match=re.escape(f"unet: torch {some} ")):
            convert_checkpoints(tmp_path / "model", size=CONFIG, **options)


class TestRefusals:
    def test_everything_that_does_not_fit_is_reported_together(self, tmp_path, options, weights):
        unet, vae, text = (dict(weights[n]) for n in ("unet", "vae", "text_encoder"))
        del unet["conv_out.bias"]
        vae["decoder.extra.weight"] = np.zeros((3, 2), np.float32)
        text["text_model.final_layer_norm.weight"] = np.zeros(9, np.float32)
        for name, state_dict in {"unet": unet, "vae": vae, "text_encoder": text}.items():
            save_file(state_dict, options[name])
        with pytest.raises(WeightsMismatchError) as error:
            convert_checkpoints(tmp_path / "model", size=CONFIG, **options)
        message = str(error.value)
        for part in (
            "1 missing, 1 unused, 1 misshapen",
            "unet: torch conv_out.bias (4,) -> flax unet/conv_out/bias (4,)",
            "vae: torch decoder.extra.weight (3, 2): no such parameter",
            "text_encoder: torch text_model.final_layer_norm.weight (8,) -> "
            "flax text_encoder/final_layer_norm/scale (8,): given (9,)",
        ):
            assert part in message
        assert not (tmp_path / "model").exists()

    def test_another_size(self, tmp_path, options):
        with pytest.raises(ValueError, match=r"the tokenizer .* has 520 words and 12 positions"):
            convert_checkpoints(tmp_path / "model", size="sd14", **options)

    def test_missing_options_are_named_together(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"unet .*vae .*text_encoder .*vision_encoder"
        ) as error:
            convert_checkpoints(tmp_path / "model", size=CONFIG)
        assert "mapper" not in str(error.value)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"size": "sd15"}, "no size 'sd15'; choose one of sd14"),
            ({"dtype": "int8"}, "'int8'; choose one of float32"),
            ({"watermark": "w.pt"}, "unet and watermark both"),
            ({"vae": "missing.safetensors"}, "no file or folder missing.safetensors"),
        ],
    )
    def test_bad_options(self, tmp_path, options, changes, words):
        with pytest.raises(ValueError, match=words):
            convert_checkpoints(tmp_path / "model", **{"size": CONFIG, **options, **changes})

    def test_existing_output_is_kept(self, tmp_path, options):
        (tmp_path / "model").mkdir()
        with pytest.raises(FileExistsError):
            convert_checkpoints(tmp_path / "model", size=CONFIG, **options)
        (tmp_path / "vae.safetensors").write_text("mine")
        convert_checkpoints(tmp_path / "other", size=CONFIG, **options)
        with pytest.raises(FileExistsError, match=r"vae\.safetensors exist already"):
            export_checkpoints(tmp_path / "other", tmp_path)
        assert (tmp_path / "vae.safetensors").read_text() == "mine"
        export_checkpoints(tmp_path / "other", tmp_path, overwrite=True)
        assert load_file(tmp_path / "vae.safetensors")

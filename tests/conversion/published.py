"""Small stand-ins for the published files: their names and layouts, random numbers."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from videobooth_jax.checkpointing import model_directory
from videobooth_jax.conversion import convert_model
from videobooth_jax.conversion.convert import torch_name, torch_shapes
from videobooth_jax.conversion.name_map_files import FILES, table_of
from videobooth_jax.data.tokenizer import train_tokenizer
from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import VideoBoothConfig, abstract_params

traced = functools.cache(abstract_params)
"""Tracing takes seconds; the tests need a few models many times."""


def small_config(**changes) -> VideoBoothConfig:
    base = SIZES["sd14"]
    clip = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    return dataclasses.replace(
        base,
        name="small",
        unet=dataclasses.replace(
            base.unet,
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_levels=(True, False),
            injection_levels=(True, True),
            num_heads=2,
            cross_attention_dim=8,
            norm_num_groups=4,
            watermark_channels=(8, 8),
        ),
        vae=dataclasses.replace(
            base.vae, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
        ),
        text_encoder=dataclasses.replace(
            base.text_encoder,
            vocab_size=520,
            max_position_embeddings=12,
            num_hidden_layers=1,
            **clip,
        ),
        vision_encoder=dataclasses.replace(
            base.vision_encoder, num_hidden_layers=1, image_size=8, patch_size=4, **clip
        ),
        projector=dataclasses.replace(
            base.projector, input_dim=8, hidden_dim=8, output_dim=8, num_words=2
        ),
        vision_layers=(-1, 1),
        **changes,
    )


def shapes_of(config: VideoBoothConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """File -> PyTorch name -> shape, in the canonical spelling."""
    flat = flatten_dict(traced(config), sep="/")
    found = {}
    for name, file in FILES.items():
        table = table_of(file, config.contrastive_dim is not None)
        part = {path: leaf for path, leaf in flat.items() if torch_name(path, table.rules)}
        found[name] = torch_shapes(unflatten_dict(part, sep="/"), table)
    return found


def random_weights(config: VideoBoothConfig, dtype=np.float32) -> dict[str, dict[str, np.ndarray]]:
    """File -> state dict."""
    rng = np.random.default_rng(0)
    return {
        file: {n: np.array(rng.standard_normal(s)).astype(dtype) for n, s in shapes.items()}
        for file, shapes in shapes_of(config).items()
    }


NEW_WORDS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def new_spelling(name: str) -> str:
    """A name of the autoencoder as diffusers has written it since 0.18."""
    words = name.split(".")
    return ".".join(NEW_WORDS.get(w, w) if "attentions" in words else w for w in words)


def respell(state_dict, spell):
    return {spell(name): x for name, x in state_dict.items()}


def is_temporal(name: str) -> bool:
    return ".attn_temp." in name or ".norm_temp." in name


def image_unet(state_dict):
    """What Stable Diffusion has of a video UNet."""
    return {
        n: x for n, x in state_dict.items() if not is_temporal(n) and not n.startswith("watermark_")
    }


def clip_file(weights, width=8, joint=6):
    """Both towers in one file as OpenAI's checkpoint has them, with its buffers and head."""
    return {
        **weights["text_encoder"],
        **weights["vision_encoder"],
        "text_model.embeddings.position_ids": np.arange(12)[None],
        "vision_model.embeddings.position_ids": np.arange(5)[None],
        "text_projection.weight": np.ones((joint, width), np.float32),
        "visual_projection.weight": np.ones((joint, width), np.float32),
        "logit_scale": np.array(4.6, np.float32),
    }


def write_tokenizer(folder: Path, config: VideoBoothConfig) -> Path:
    text = config.text_encoder
    words = "a panda moving left over a meadow and a tiger moving right by the sea"
    train_tokenizer([words], text.vocab_size, text.max_position_embeddings).save(
        folder / "tokenizer.json"
    )
    return folder / "tokenizer.json"


def write_all(folder: Path, weights, config: VideoBoothConfig) -> dict[str, Path]:
    """One safetensors file per part and the tokenizer; returns the options of a conversion."""
    for name, state_dict in weights.items():
        save_file(state_dict, folder / f"{name}.safetensors")
    options = {name: folder / f"{name}.safetensors" for name in weights}
    return {**options, "tokenizer": write_tokenizer(folder, config)}


@pytest.fixture(autouse=True, scope="session")
def _trace_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_model, "abstract_params", traced)
        patch.setattr(model_directory, "abstract_params", traced)
        yield


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True)

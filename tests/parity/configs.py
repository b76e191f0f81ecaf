"""Sizes in the published code's words to this package's configurations; what neither side knows is
refused.
"""

from collections.abc import Mapping
from typing import Any

from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.clip import CLIPTextConfig, CLIPVisionConfig
from videobooth_jax.models.image_projector import ImageProjectorConfig
from videobooth_jax.models.unet_3d import UNet3DConfig

NO_MEANING = {"projection_dim", "sample_size"}
"""Keys that size something outside the network."""


def pick(
    config: Mapping[str, Any], taken: set[str], published: Mapping[str, Any]
) -> dict[str, Any]:
    """The `taken` keys of a configuration, lists as tuples.

    Raises ValueError for a key that is neither taken nor without meaning nor has its one
    `published` value.
    """
    for key, value in config.items():
        if key not in taken | NO_MEANING and published.get(key, ...) != value:
            raise ValueError(f"{key}={value!r} is not a size this implementation can be given")
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key in taken
    }


def unet_config(config: Mapping[str, Any], dtype: str) -> UNet3DConfig:
    levels = len(config["block_out_channels"])
    cross = (True,) * (levels - 1) + (False,)
    sizes = pick(
        config,
        {
            "in_channels",
            "out_channels",
            "block_out_channels",
            "layers_per_block",
            "cross_attention_dim",
            "norm_num_groups",
            "attention_head_dim",
            "watermark_channels",
        },
        {
            "norm_eps": 1e-5,
            "act_fn": "silu",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "down_block_types": ["CrossAttnDownBlock3D"] * (levels - 1) + ["DownBlock3D"],
            "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * (levels - 1),
        },
    )
    return UNet3DConfig(
        num_heads=sizes.pop("attention_head_dim", 8),
        watermark_channels=sizes.pop("watermark_channels", None) or None,
        cross_attention_levels=cross,
        injection_levels=(True,) * levels,
        dtype=dtype,
        param_dtype=dtype,
        **sizes,
    )


CLIP_SIZES = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
CLIP_PUBLISHED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def vision_config(config: Mapping[str, Any], dtype: str) -> CLIPVisionConfig:
    sizes = pick(config, CLIP_SIZES | {"image_size", "patch_size"}, CLIP_PUBLISHED)
    return CLIPVisionConfig(dtype=dtype, param_dtype=dtype, **sizes)


def text_config(config: Mapping[str, Any], dtype: str) -> CLIPTextConfig:
    sizes = pick(config, CLIP_SIZES | {"vocab_size", "max_position_embeddings"}, CLIP_PUBLISHED)
    return CLIPTextConfig(dtype=dtype, param_dtype=dtype, **sizes)


def projector_config(config: Mapping[str, Any], num_words: int, dtype: str) -> ImageProjectorConfig:
    sizes = pick(config, {"input_dim", "output_dim"}, {"hidden_dim": 1024})
    return ImageProjectorConfig(num_words=num_words, dtype=dtype, param_dtype=dtype, **sizes)


def vae_config(config: Mapping[str, Any], scaling_factor: float, dtype: str) -> AutoencoderKLConfig:
    levels = len(config["block_out_channels"])
    sizes = pick(
        config,
        {
            "in_channels",
            "out_channels",
            "latent_channels",
            "block_out_channels",
            "layers_per_block",
            "norm_num_groups",
        },
        {
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        },
    )
    return AutoencoderKLConfig(
        scaling_factor=scaling_factor, dtype=dtype, param_dtype=dtype, **sizes
    )

"""A model of the sprites kind, as small as its parts allow, with random weights everywhere."""

import zlib
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import videobooth_jax
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.clip import CLIPTextConfig, CLIPVisionConfig
from videobooth_jax.models.image_projector import ImageProjectorConfig
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.models.videobooth import DiffusionSettings, VideoBoothConfig, abstract_params
from videobooth_jax.pipeline import VideoBoothPipeline

TOKENIZER_FILE = Path(videobooth_jax.__file__).parent / "assets" / "sprites_tokenizer.json"


def tiny_config(**settings) -> VideoBoothConfig:
    """16 x 16 pixels, three frames, latents of 8 x 8 x 4; three steps unless told otherwise."""
    return VideoBoothConfig(
        name="tiny",
        unet=UNet3DConfig(
            block_out_channels=(8,),
            layers_per_block=1,
            cross_attention_levels=(True,),
            num_heads=2,
            cross_attention_dim=8,
            norm_num_groups=4,
            injection_levels=(True,),
            watermark_channels=None,
        ),
        vae=AutoencoderKLConfig(
            block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=2, scaling_factor=1.0
        ),
        text_encoder=CLIPTextConfig(
            vocab_size=1024,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        ),
        vision_encoder=CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        projector=ImageProjectorConfig(input_dim=8, hidden_dim=8, output_dim=8, num_words=2),
        diffusion=DiffusionSettings(
            **({"sampler": "ddim", "num_inference_steps": 3, "guidance_scale": 2.0} | settings)
        ),
        vision_layers=(-1, 0),
        num_frames=3,
        height=16,
        width=16,
    )


def random_params(config: VideoBoothConfig):
    """Every weight of a model random, also those that start at zero, so that every path shows."""
    return random_like(abstract_params(config))


def random_like(shapes, seed: int = 0):
    """A parameter tree of these shapes: kernels of fan-in scale, norm scales near one."""
    flat = {}
    for path, leaf in flatten_dict(shapes, sep="/").items():
        rng = np.random.default_rng(zlib.crc32(path.encode()) + seed)
        scale = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1]))) if len(leaf.shape) > 1 else 0.1
        offset = 1.0 if path.endswith("scale") else 0.0
        values = offset + scale * rng.standard_normal(leaf.shape)
        flat[path] = jax.numpy.asarray(values, leaf.dtype)
    return unflatten_dict(flat, sep="/")


def tiny_pipeline(**settings) -> VideoBoothPipeline:
    config = tiny_config(**settings)
    return VideoBoothPipeline(config, random_params(config), Tokenizer.from_file(TOKENIZER_FILE))


def picture(red: int = 200, size: int = 24) -> np.ndarray:
    """A striped block on white."""
    image = np.full((size, size, 3), 255, np.uint8)
    image[4:20, 6:18] = (red, 60, 40)
    image[4:20:3, 6:18] = (30, 90, red)
    return image

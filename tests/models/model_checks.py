"""Random parameters without compiling initialisers, and a whole model small enough to run."""

import jax
import jax.numpy as jnp
import numpy as np

from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.clip import CLIPTextConfig, CLIPVisionConfig
from videobooth_jax.models.image_projector import ImageProjectorConfig
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.models.videobooth_config import DiffusionSettings, VideoBoothConfig

TINY = VideoBoothConfig(
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
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.25
    ),
    text_encoder=CLIPTextConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
    ),
    vision_encoder=CLIPVisionConfig(
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    ),
    projector=ImageProjectorConfig(input_dim=12, hidden_dim=16, output_dim=8, num_words=3),
    diffusion=DiffusionSettings(),
    vision_layers=(-1, 0, 2),
    contrastive_dim=6,
    num_frames=2,
    height=8,
    width=8,
)


def random_array(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_params(module, *inputs, seed: int = 0, **options):
    """Parameters of the right shapes: matrices of fan-in scale, norm scales near one."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))["params"]
    return random_like(shapes, seed)


def random_like(shapes, seed: int = 0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.standard_normal(leaf.shape)
        if leaf.ndim >= 2:
            x /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif getattr(path[-1], "key", "") == "scale":
            x = 1 + 0.1 * x
        return jnp.asarray(x, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)

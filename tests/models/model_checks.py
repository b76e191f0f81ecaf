"""Random parameters of single modules, without compiling initialisers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from tiny_model import random_like, tiny_config

BASE = tiny_config()
TINY = dataclasses.replace(
    BASE,
    vae=dataclasses.replace(BASE.vae, scaling_factor=0.25),
    text_encoder=dataclasses.replace(
        BASE.text_encoder, vocab_size=32, num_hidden_layers=2, max_position_embeddings=12
    ),
    vision_encoder=dataclasses.replace(
        BASE.vision_encoder, hidden_size=12, num_hidden_layers=3, image_size=8, patch_size=4
    ),
    projector=dataclasses.replace(BASE.projector, input_dim=12, num_words=3),
    vision_layers=(-1, 0, 2),
    contrastive_dim=6,
    num_frames=2,
    height=8,
    width=8,
)
"""The tiny model with a contrastive head, more layers and fewer words to know."""


def random_array(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_params(module, *inputs, seed: int = 0, **options):
    """Parameters of the right shapes for a call of ``module``."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))["params"]
    return random_like(shapes, seed)

"""VideoBooth as one module: picture and words in, video out (arXiv 2312.00777, figure 2).

`VideoBooth` only composes; each network is in its own file. All parameters live in one tree with
the subtrees ``unet vae text_encoder vision_encoder projector`` and, where configured,
``contrastive_head``. Methods are called through Flax::

    model = VideoBooth(config)
    words = model.apply({"params": params}, pixel_values, method=model.image_words)
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.models.autoencoder_kl import AutoencoderKL
from videobooth_jax.models.clip import CLIPTextModel, CLIPVisionModel
from videobooth_jax.models.contrastive_head import ContrastiveHead, end_positions
from videobooth_jax.models.image_projector import ImageProjector
from videobooth_jax.models.unet_3d import UNet3D
from videobooth_jax.models.videobooth_config import (
    DiffusionSettings,
    VideoBoothConfig,
    config_from_dict,
    config_to_dict,
    with_dtypes,
)
from videobooth_jax.typing import (
    Array,
    ExemplarKV,
    Ids,
    Images,
    Latents,
    Params,
    TextStates,
    Timesteps,
    Videos,
    Words,
)

__all__ = [
    "DiffusionSettings",
    "VideoBooth",
    "VideoBoothConfig",
    "abstract_params",
    "config_from_dict",
    "config_to_dict",
    "init_params",
    "with_dtypes",
]


def _per_picture(function: Callable[[Array], Any], x: Array) -> Any:
    """Apply a function of (n h w c) to (... h w c); results keep the leading axes."""
    lead = x.shape[:-3]
    result = function(x.reshape(-1, *x.shape[-3:]))
    return jax.tree.map(lambda y: y.reshape(*lead, *y.shape[1:]), result)


class VideoBooth(nn.Module):
    """The five networks, and the optional head that trains a small CLIP pair."""

    config: VideoBoothConfig

    def setup(self):
        """Create the networks under their names in the parameter tree."""
        config = self.config
        self.unet = UNet3D(config.unet)
        self.vae = AutoencoderKL(config.vae)
        self.text_encoder = CLIPTextModel(config.text_encoder)
        self.vision_encoder = CLIPVisionModel(config.vision_encoder)
        self.projector = ImageProjector(config.projector)
        if config.contrastive_dim is not None:
            text = config.text_encoder
            self.contrastive_head = ContrastiveHead(
                config.contrastive_dim, text.dtype, text.param_dtype
            )

    def encode(self, images: Images | Videos) -> tuple[Array, Array]:
        """Posterior of the *scaled* latents of pictures or videos.

        Args:
            images: (b h w c) or (b f h w c) in [-1, 1], height and width multiples of the
                autoencoder's factor.

        Returns:
            ``(mean, logvar)`` of the latents the UNet works on, with the same leading axes. Draw
            from it with ``mean + exp(logvar / 2) * noise``.
        """
        mean, logvar = _per_picture(self.vae.encode, images)
        scale = self.config.vae.scaling_factor
        return mean * scale, logvar + 2 * math.log(scale)

    def decode(self, latents: Images | Latents) -> Array:
        """Pictures (b h w c) or videos (b f h w c), about [-1, 1], unclipped, of scaled latents."""
        return _per_picture(self.vae.decode, latents / self.config.vae.scaling_factor)

    def image_words(self, pixel_values: Images) -> Words:
        """Word embeddings (b num_words d) of CLIP-normalised pictures (b H W 3)."""
        return self.feature_words(self.vision_features(pixel_values))

    def vision_features(self, pixel_values: Images) -> Array:
        """What the projector takes of pictures (b H W 3): hidden states (b num_words tokens d)."""
        states = self.vision_encoder(pixel_values).hidden_states
        return jnp.stack([states[layer] for layer in self.config.vision_layers], axis=1)

    def feature_words(self, features: Array) -> Words:
        """Word embeddings (b num_words d) of `vision_features`, also of stored ones."""
        return self.projector(tuple(features.swapaxes(0, 1)))

    def text_states(
        self, ids: Ids, source: Ids | None = None, words: Words | None = None
    ) -> TextStates:
        """States (b n d) of prompts, image words gathered in by ``source``; see `CLIPTextModel`."""
        return self.text_encoder(ids, source, words)

    def denoise(
        self, latents: Latents, timesteps: Timesteps, text_states: TextStates, **options: Any
    ) -> Latents:
        """The UNet's prediction; see `UNet3D.__call__` for the options."""
        return self.unet(latents, timesteps, text_states, **options)

    def exemplar_keys_values(
        self, latents: Latents, timesteps: Timesteps, text_states: TextStates
    ) -> ExemplarKV:
        """Keys and values of exemplars (b copies h w c); see `UNet3D.exemplar_keys_values`."""
        return self.unet.exemplar_keys_values(latents, timesteps, text_states)

    def contrastive(self, ids: Ids, pixel_values: Images) -> tuple[Array, Array, Array]:
        """CLIP's joint features of prompts (b n) and pictures (b image_size image_size 3).

        Returns:
            ``(text (b d), image (b d), scale ())``: unit vectors, and the factor of their cosines.

        Raises:
            ValueError: if the model has no contrastive head.
        """
        if self.config.contrastive_dim is None:
            raise ValueError(
                f"model {self.config.name!r} has no contrastive head; set contrastive_dim"
            )
        pooled = self.vision_encoder(pixel_values).pooler_output
        return self.contrastive_head(self.text_encoder(ids), end_positions(ids), pooled)

    def __call__(self, images: Images, pixel_values: Images, ids: Ids) -> Latents:
        """Touch every parameter once, for `init_params`: encode, decode, write words, denoise."""
        mean, _ = self.encode(images)
        self.decode(mean)
        self.image_words(pixel_values)
        if self.config.contrastive_dim is not None:
            self.contrastive(ids, pixel_values)
        timesteps = jnp.zeros(images.shape[:1], jnp.int32)
        return self.denoise(mean[:, None], timesteps, self.text_states(ids))


def _init(config: VideoBoothConfig, rng: Array) -> Params:
    factor = config.vae.downsampling
    side = factor * 2 ** (len(config.unet.block_out_channels) - 1)
    size = config.vision_encoder.image_size
    return VideoBooth(config).init(
        rng,
        jnp.zeros((1, side, side, config.vae.in_channels), config.vae.dtype),
        jnp.zeros((1, size, size, 3), config.vision_encoder.dtype),
        jnp.zeros((1, 2), jnp.int32),
    )["params"]


def init_params(config: VideoBoothConfig, rng: Array) -> Params:
    """Fresh parameters of every network, drawn from a typed PRNG key."""
    return jax.jit(lambda key: _init(config, key))(rng)


def abstract_params(config: VideoBoothConfig) -> Params:
    """The parameter tree as ``jax.ShapeDtypeStruct``s; costs no memory at any size."""
    return jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))

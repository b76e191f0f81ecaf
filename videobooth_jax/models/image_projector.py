"""Image features to words: the coarse stage (VideoBooth, section 3.2; ELITE, arXiv 2302.13848)."""

import dataclasses
import functools

import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.models.normalization import LayerNorm
from videobooth_jax.typing import Tokens, Words

NORM_EPSILON = 1e-5
LEAKY_SLOPE = 0.01


@dataclasses.dataclass(frozen=True)
class ImageProjectorConfig:
    """Sizes of the projector; the defaults are the released model's.

    ``input_dim`` is the image tower's width, ``output_dim`` the text tower's, ``num_words`` the
    number of image layers read, which is the number of words made.
    """

    input_dim: int = 1024
    hidden_dim: int = 1024
    output_dim: int = 768
    num_words: int = 5
    dtype: str = "float32"
    param_dtype: str = "float32"


class Mapping(nn.Module):
    """Linear, norm, leaky ReLU, twice, then linear: ``(b n input_dim) -> (b n output_dim)``.

    Layers are named by number, as the checkpoint counts them; 2 and 5 are the activations.
    """

    config: ImageProjectorConfig

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the mapped tokens."""
        config = self.config
        dtype, param_dtype = config.dtype, config.param_dtype
        dense = functools.partial(nn.Dense, dtype=dtype, param_dtype=param_dtype)
        for linear, norm in (("0", "1"), ("3", "4")):
            x = dense(config.hidden_dim, name=linear)(x)
            x = LayerNorm(NORM_EPSILON, dtype, param_dtype, name=norm)(x)
            x = nn.leaky_relu(x, LEAKY_SLOPE)
        return dense(config.output_dim, name="6")(x)


class ImageProjector(nn.Module):
    """One word per image layer, from its class token and, averaged, from its patches."""

    config: ImageProjectorConfig

    @nn.compact
    def __call__(self, features: tuple[Tokens, ...]) -> Words:
        """Make the words.

        Args:
            features: ``num_words`` arrays (b tokens input_dim), the class token first.

        Returns:
            Words (b num_words output_dim), word i from features i.

        Raises:
            ValueError: if the number of feature arrays is not ``num_words``.
        """
        if len(features) != self.config.num_words:
            raise ValueError(
                f"the projector makes {self.config.num_words} words from as many image layers, "
                f"but got {len(features)}"
            )
        words = []
        for i, tokens in enumerate(features):
            of_class = Mapping(self.config, name=f"mapping_{i}")(tokens[:, :1])
            of_patches = Mapping(self.config, name=f"mapping_patch_{i}")(tokens[:, 1:])
            words.append(of_class + of_patches.mean(axis=1, keepdims=True))
        return jnp.concatenate(words, axis=1)

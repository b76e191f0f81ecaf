"""The joint space of CLIP (Radford et al. 2021, arXiv 2103.00020), to train a small pair."""

import math

import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.models.layers import Dense
from videobooth_jax.models.normalization import statistics_dtype
from videobooth_jax.typing import Array, Ids, TextStates

MAX_SCALE = 100.0


def end_positions(ids: Ids) -> Array:
    """Position (b,) of the first end token: the highest id of the vocabulary, as in CLIP's."""
    return jnp.argmax(ids, axis=1)


class ContrastiveHead(nn.Module):
    """Projections of both towers into one space (CLIP, figure 3); features are float32 at least."""

    projection_dim: int
    dtype: str = "float32"
    param_dtype: str = "float32"

    def setup(self):
        """Create two projections without bias and the temperature, starting at 1 / 0.07."""

        def dense():
            return Dense(
                self.projection_dim,
                use_bias=False,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )

        self.text_projection = dense()
        self.visual_projection = dense()
        init = nn.initializers.constant(math.log(1 / 0.07))
        self.logit_scale = self.param("logit_scale", init, (), self.param_dtype)

    def text(self, states: TextStates, ends: Array) -> Array:
        """Unit vectors (b projection_dim) of text states (b n d) read at ``ends`` (b,)."""
        pooled = jnp.take_along_axis(states, ends[:, None, None], axis=1)[:, 0]
        return self._unit(self.text_projection(pooled))

    def image(self, pooled: Array) -> Array:
        """Unit vectors (b projection_dim) of the image tower's ``pooler_output`` (b d)."""
        return self._unit(self.visual_projection(pooled))

    def __call__(
        self, states: TextStates, ends: Array, pooled: Array
    ) -> tuple[Array, Array, Array]:
        """``(text, image, scale)``: both features, and the factor of their cosine, at most 100."""
        scale = jnp.exp(self.logit_scale.astype(statistics_dtype(self.dtype)))
        return self.text(states, ends), self.image(pooled), jnp.minimum(scale, MAX_SCALE)

    def _unit(self, x: Array) -> Array:
        x = x.astype(statistics_dtype(self.dtype))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

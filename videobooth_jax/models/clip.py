"""The two CLIP towers (Radford et al. 2021, arXiv 2103.00020), open to words made from a picture.

Both towers are pre-norm transformers with quick-GELU MLPs. The text tower is causal and takes,
instead of the embedding of the subject's word, embeddings made from a picture (VideoBooth, section
3.2): `word_sources` says for every position where its embedding comes from, and the tower gathers
accordingly. Parameter names are those of the published checkpoints.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from videobooth_jax.models.layers import Conv, Dense, normal
from videobooth_jax.models.normalization import LayerNorm, statistics_dtype
from videobooth_jax.typing import Array, Ids, Images, TextStates, Tokens, Words

NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig:
    """Sizes of the text tower; the defaults are those of CLIP ViT-L/14.

    Raises:
        ValueError: if ``hidden_size`` cannot be split into ``num_attention_heads`` heads.
    """

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        _check_heads(self)


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig:
    """Sizes of the image tower; the defaults are those of CLIP ViT-L/14.

    Raises:
        ValueError: if ``hidden_size`` cannot be split into ``num_attention_heads`` heads, or
            ``image_size`` into patches.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        _check_heads(self)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"CLIP image_size={self.image_size} must be a multiple of "
                f"patch_size={self.patch_size}"
            )

    @property
    def num_tokens(self) -> int:
        """The class token and one token per patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


CLIPConfig = CLIPTextConfig | CLIPVisionConfig


def _check_heads(config: CLIPConfig) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"CLIP hidden_size={config.hidden_size} must be a multiple of "
            f"num_attention_heads={config.num_attention_heads}"
        )


def _dense(config: CLIPConfig, features: int, name: str) -> nn.Dense:
    return Dense(features, name=name, dtype=config.dtype, param_dtype=config.param_dtype)


def _norm(config: CLIPConfig, name: str | None = None) -> LayerNorm:
    return LayerNorm(NORM_EPSILON, config.dtype, config.param_dtype, name=name)


def _embedding(config: CLIPConfig, rows: int, name: str) -> nn.Embed:
    return nn.Embed(
        rows,
        config.hidden_size,
        name=name,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        embedding_init=normal(0.02),
    )


class Attention(nn.Module):
    """Multi-head self-attention, optionally causal: ``(b n d) -> (b n d)``."""

    config: CLIPConfig
    causal: bool

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the output projection of the attended values."""
        batch, length, width = x.shape
        heads = self.config.num_attention_heads

        def split(name):
            return _dense(self.config, width, name)(x).reshape(batch, length, heads, -1)

        query, key, value = split("q_proj"), split("k_proj"), split("v_proj")
        scores = jnp.einsum("bqhd,bkhd->bhqk", query * (width // heads) ** -0.5, key)
        scores = scores.astype(statistics_dtype(self.config.dtype))
        if self.causal:
            visible = jnp.tril(jnp.ones((1, 1, length, length), bool))
            scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return _dense(self.config, width, "out_proj")(attended)


class MLP(nn.Module):
    """Two linear layers around quick-GELU, ``x * sigmoid(1.702 x)``: ``(b n d) -> (b n d)``."""

    config: CLIPConfig

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the transformed tokens."""
        h = _dense(self.config, self.config.intermediate_size, "fc1")(x)
        return _dense(self.config, x.shape[-1], "fc2")(h * nn.sigmoid(1.702 * h))


class EncoderLayer(nn.Module):
    """Pre-norm attention and MLP, each with a skip connection: ``(b n d) -> (b n d)``."""

    config: CLIPConfig
    causal: bool

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the tokens after this layer."""
        attention = Attention(self.config, self.causal, name="self_attn")
        x = x + attention(_norm(self.config, "layer_norm1")(x))
        return x + MLP(self.config, name="mlp")(_norm(self.config, "layer_norm2")(x))


class Encoder(nn.Module):
    """The stack of layers."""

    config: CLIPConfig
    causal: bool

    @nn.compact
    def __call__(self, x: Tokens) -> tuple[Tokens, ...]:
        """Return the input, and the tokens after every layer, each (b n d)."""
        states = [x]
        for i in range(self.config.num_hidden_layers):
            states.append(EncoderLayer(self.config, self.causal, name=f"layers_{i}")(states[-1]))
        return tuple(states)


def word_sources(ids: Ids, placeholder: Ids, num_words: int) -> Ids:
    """Say where every input embedding comes from once image words replace the subject's word.

    With L placeholder tokens and w image words, a match at position s puts the words at s .. s+w-1;
    a later position p takes the prompt's embedding at p + L - w, or at p where that runs past the
    end. What is cut off at the end is lost. These are the published rules, and they are odd in
    three places: only the *first* placeholder token is compared; every match works in the prompt's
    own coordinates, a later one overwriting an earlier one; and a match whose placeholder is longer
    than the words and runs past the end leaves the positions after the words alone.

    Args:
        ids: prompt tokens (b n).
        placeholder: tokens of the subject's word (b m), padded at the end with -1. A row of -1
            matches nothing.
        num_words: image words per prompt, a Python integer.

    Returns:
        source (b n) int32: p >= 0 is row p of the prompt's own embeddings, -(k+1) is image word k.
    """
    length = ids.shape[1]
    count = (placeholder >= 0).sum(axis=1).astype(jnp.int32)[:, None, None]
    starts = jnp.arange(length, dtype=jnp.int32)[None, :, None]
    positions = jnp.arange(length, dtype=jnp.int32)[None, None, :]
    matches = (ids == placeholder[:, :1])[:, :, None]
    offsets = positions - starts
    moves_tail = (count <= num_words) | (starts + count <= length)
    touched = matches & (offsets >= 0) & ((offsets < num_words) | moves_tail)
    last = jnp.where(touched, starts, -1).max(axis=1)

    position = positions[:, 0]
    offset = position - last
    shifted = position + count[:, 0] - num_words
    tail = jnp.where(shifted < length, shifted, position)
    replaced = jnp.where(offset < num_words, -(offset + 1), tail)
    return jnp.where(last >= 0, replaced, position)


class TextEmbeddings(nn.Module):
    """Token and position embeddings, with image words gathered in."""

    config: CLIPTextConfig

    @nn.compact
    def __call__(self, ids: Ids, source: Ids | None, words: Words | None) -> Tokens:
        """Return input embeddings (b n d); see `CLIPTextModel`."""
        config = self.config
        x = _embedding(config, config.vocab_size, "token_embedding")(ids)
        if source is not None and words is not None:
            index = source[:, :, None]
            from_prompt = jnp.take_along_axis(x, jnp.maximum(index, 0), axis=1)
            from_words = jnp.take_along_axis(
                words.astype(x.dtype), jnp.maximum(-index - 1, 0), axis=1
            )
            x = jnp.where(index >= 0, from_prompt, from_words)
        positions = jnp.arange(ids.shape[1])[None]
        table = _embedding(config, config.max_position_embeddings, "position_embedding")
        return x + table(positions)


class CLIPTextModel(nn.Module):
    """The text tower."""

    config: CLIPTextConfig

    @nn.compact
    def __call__(
        self, ids: Ids, source: Ids | None = None, words: Words | None = None
    ) -> TextStates:
        """States of every position.

        Args:
            ids: tokens (b n) int32, n at most ``max_position_embeddings``.
            source: from `word_sources`, or None to use the prompt as it is.
            words: image words (b w d); row b goes to prompt b. Given together with ``source``.

        Returns:
            States (b n d) after the final layer norm.

        Raises:
            ValueError: if the prompt is too long, or only one of ``source`` and ``words`` is given,
                or their rows differ.
        """
        limit = self.config.max_position_embeddings
        if ids.shape[1] > limit:
            raise ValueError(
                f"the text tower has {limit} positions but was given {ids.shape[1]} tokens; "
                "truncate the prompts"
            )
        if (source is None) != (words is None):
            raise ValueError("image words need both `source` (from word_sources) and `words`")
        if words is not None and words.shape[0] != ids.shape[0]:
            raise ValueError(
                f"{words.shape[0]} rows of image words for {ids.shape[0]} prompts; "
                "give one row per prompt"
            )
        x = TextEmbeddings(self.config, name="embeddings")(ids, source, words)
        x = Encoder(self.config, causal=True, name="encoder")(x)[-1]
        return _norm(self.config, "final_layer_norm")(x)


class VisionEmbeddings(nn.Module):
    """Class token, linear patches and position embeddings: ``(b H W 3) -> (b n d)``."""

    config: CLIPVisionConfig

    @nn.compact
    def __call__(self, pixel_values: Images) -> Tokens:
        """Return the input tokens, the class token first, patches row by row."""
        config = self.config
        patch = (config.patch_size, config.patch_size)
        width = config.hidden_size
        patches = Conv(
            width,
            patch,
            strides=patch,
            padding="VALID",
            use_bias=False,
            name="patch_embedding",
            dtype=config.dtype,
            param_dtype=config.param_dtype,
        )(pixel_values)
        batch = pixel_values.shape[0]
        init = normal(width**-0.5)
        first = self.param("class_embedding", init, (width,), config.param_dtype)
        first = jnp.broadcast_to(first.astype(patches.dtype)[None, None], (batch, 1, width))
        x = jnp.concatenate([first, patches.reshape(batch, -1, width)], axis=1)
        table = _embedding(config, config.num_tokens, "position_embedding")
        return x + table(jnp.arange(config.num_tokens)[None])


class VisionOutput(NamedTuple):
    """What the image tower returns.

    ``hidden_states[0]`` is after the first layer norm, ``hidden_states[i]`` after i layers, each (b
    n d). ``last_hidden_state`` is the last of them, *before* the closing norm. ``pooler_output`` (b
    d) is its class token after it.
    """

    hidden_states: tuple[Tokens, ...]
    last_hidden_state: Tokens
    pooler_output: Array


class CLIPVisionModel(nn.Module):
    """The image tower."""

    config: CLIPVisionConfig

    @nn.compact
    def __call__(self, pixel_values: Images) -> VisionOutput:
        """Hidden states of CLIP-normalised pictures (b image_size image_size 3).

        Raises:
            ValueError: if the pictures have another size.
        """
        size = self.config.image_size
        if pixel_values.shape[1:] != (size, size, 3):
            raise ValueError(
                f"the image tower takes pictures of {size} x {size} x 3, "
                f"not {pixel_values.shape[1:]}; resize them first"
            )
        x = VisionEmbeddings(self.config, name="embeddings")(pixel_values)
        states = Encoder(self.config, causal=False, name="encoder")(
            _norm(self.config, "pre_layrnorm")(x)
        )
        pooled = _norm(self.config, "post_layernorm")(states[-1][:, 0])
        return VisionOutput(states, states[-1], pooled)

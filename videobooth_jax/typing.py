"""Axis-named array aliases: the shapes the whole package speaks of.

Axes are named, not numbered: ``batch frames height width channels`` for video-like tensors
(channels last), ``batch tokens channels`` for sequences. The names are documentation for readers
and type checkers; nothing is verified at run time.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Key, UInt8

Array = jax.Array

Images = Float[Array, "batch height width channels"]
"""Pictures, [-1, 1] for the autoencoder, CLIP-normalised for the image tower."""
Videos = Float[Array, "batch frames height width channels"]
"""Clips in [-1, 1]."""
Latents = Float[Array, "batch frames height width channels"]
"""Scaled autoencoder latents of a clip, clean or noised."""
Tokens = Float[Array, "batch tokens channels"]
"""A sequence of feature vectors."""
TextStates = Float[Array, "batch positions channels"]
"""Last hidden states of the text tower."""
Words = Float[Array, "batch words channels"]
"""Image-derived word embeddings that replace the subject's word."""
Ids = Int[Array, "batch positions"]
"""Token ids."""
Timesteps = Int[Array, "batch"]
"""Original timesteps, 0 .. num_train_timesteps - 1."""
Rows = Bool[Array, "batch"]
"""A yes or no per sample."""
Keys = Key[Array, "batch"]
"""One typed PRNG key per sample."""
Frames = UInt8[np.ndarray, "batch frames height width 3"]
"""Finished videos, 0..255."""

ExemplarKV = tuple[tuple[Tokens, Tokens], ...]
"""(key, value) of the exemplar at every injected attn1, in traversal order (down, mid, up)."""

Params = dict[str, Any]
"""A nested dict of parameter arrays."""

"""Weights that are a function of their PyTorch name and shape alone, brought in through the
conversion tables.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from videobooth_jax.conversion.convert import to_flax, torch_shapes
from videobooth_jax.conversion.name_map import Table
from videobooth_jax.typing import Params

EMBEDDINGS = ("token_embedding.weight", "position_embedding.weight", "class_embedding")


@lru_cache(maxsize=8192)
def recipe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 weight called `name`; every scalar is float32, else the last bit would change."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.standard_normal(shape).astype(np.float32)
    if name.endswith(EMBEDDINGS):
        return np.float32(0.02) * x
    if len(shape) >= 2:
        return x / np.float32(np.sqrt(np.prod(shape[1:])))
    if name.endswith(".weight"):
        return np.float32(1) + np.float32(0.1) * x
    return np.float32(0.1) * x


def recipe_params(
    abstract_params: Params, table: Table, listed: Mapping[str, list[int]] | None
) -> Params:
    """Recipe weights for a network whose PyTorch names and shapes must be exactly those `listed`
    (None: not stored).
    """
    ours: Mapping[str, Any] = torch_shapes(abstract_params, table)
    if listed is None:
        listed = {name: list(shape) for name, shape in ours.items()}
    state_dict = {name: recipe(name, tuple(shape)) for name, shape in listed.items()}
    return to_flax(state_dict, abstract_params, table)

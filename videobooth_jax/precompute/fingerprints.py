"""Whose weights stored features were made with, as hashes, and whether a run may use them."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.latents import TOKENIZER, LatentsSource
from videobooth_jax.models.videobooth import VideoBoothConfig
from videobooth_jax.paths import resolve
from videobooth_jax.typing import Params

NETWORKS = ("vae", "vision_encoder")
COMPUTING = ("dtype", "param_dtype", "attention_implementation", "remat")
"""Fields of a network's configuration that say how it computes, not what."""


def fingerprint(params: Params, config: Any) -> str:
    """A hash of a network: names, shapes and values of its parameters, and its configuration.

    Values are first rounded to bfloat16, so that weights stored in bfloat16 count as the float32
    ones they were rounded from; a training run keeps frozen weights so.
    """
    told = {n: v for n, v in dataclasses.asdict(config).items() if n not in COMPUTING}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for path, value in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        array = np.ascontiguousarray(np.asarray(value).astype(jnp.bfloat16))
        digest.update(f"{path}{array.shape}".encode())
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def fingerprints(model: str | os.PathLike[str]) -> dict[str, str]:
    """Of the autoencoder, the image tower and the tokenizer of a model directory.

    Raises ValueError when it is none.
    """
    config, params = load_model(model, dtype="stored", networks=NETWORKS)
    return fingerprints_of(config, params, (resolve(model) / TOKENIZER).read_bytes())


def fingerprints_of(config: VideoBoothConfig, params: Params, tokenizer: bytes) -> dict[str, str]:
    """The same of what is in memory, ``tokenizer`` the text of its file."""
    found = {name: fingerprint(params[name], getattr(config, name)) for name in NETWORKS}
    return {**found, "tokenizer": hashlib.sha256(tokenizer).hexdigest()}


def check_weights(sources: Sequence[LatentsSource], start: str) -> None:
    """Refuse latents that training must not mix with one another or with a model.

    Args:
        sources: folders of one run.
        start: the model directory it starts from; "": from nothing, which fits all.

    Raises:
        ValueError: they were made with other weights; says which, and how to mend it.
    """
    expected, of = (fingerprints(start), start) if start else (sources[0].manifest["made_with"], "")
    for source in sources:
        found = source.manifest["made_with"]
        used = [n for n in found if n != "vision_encoder" or source.vision_features]
        if other := [name for name in used if found[name] != expected[name]]:
            raise ValueError(
                f"{source.path} was made with another {' and '.join(other)} than "
                f"{of or sources[0].path}: run precompute again with the model that training "
                "starts from, or give that model as init_from"
            )

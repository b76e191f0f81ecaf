"""Frozen features written once.

Autoencoder latents of clips and image prompts, beside what else a step needs.

The autoencoder does not change while the diffusion model trains, so its work is done once per
example instead of once per step. The result is a folder
:class:`videobooth_jax.data.latents.LatentsSource` reads; it is written under a temporary name and
renamed when complete, and its manifest carries a fingerprint of the weights, so that latents of
another autoencoder are noticed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from tqdm import tqdm

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.batches import BatchConfig, batches
from videobooth_jax.data.latents import ZERO_EXEMPLAR
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.videobooth import VideoBooth, VideoBoothConfig
from videobooth_jax.typing import Params


def fingerprint(params: Params) -> str:
    """A short hash of a parameter tree: names, shapes and values."""
    digest = hashlib.sha256()
    for path, value in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        array = np.asarray(value)
        digest.update(f"{path}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).tobytes())
    return digest.hexdigest()[:16]


def precompute_sprites(
    model: str | Path,
    out: str | Path,
    *,
    split: str = "train",
    num_frames: int = 8,
    count: int = 8192,
    seed: int = 0,
) -> Path:
    """Precompute ``count`` examples of the sprite world with the autoencoder of a model directory.

    Raises:
        ValueError: the split is unknown, or the model is not one of a model directory.
        FileExistsError: ``out`` exists already.
    """
    config, params = load_model(model)
    source = SpritesSource(
        SpritesConfig(split=split, resolution=config.height, num_frames=num_frames)
    )
    shape = BatchConfig(
        batch_size=32,
        clip_size=config.vision_encoder.image_size,
        vae_size=config.height,
        seed=seed,
    )
    tokenizer_file = Path(model) / "tokenizer.json"
    stream = batches(source, Tokenizer.from_file(tokenizer_file), shape)
    return precompute_latents(config, params, stream, count, out, tokenizer_file)


def precompute_latents(
    config: VideoBoothConfig,
    params: Params,
    batches: Iterable[dict[str, np.ndarray]],
    count: int,
    out: str | Path,
    tokenizer_file: Path,
) -> Path:
    """Encode ``count`` examples of ``batches`` (pixel batches, see data/batches.py) and write
    them to folder ``out``.

    Latents are posterior means, scaled, stored as float16, those of a picture of zeros among them;
    ``tokenizer_file``, which made the ids, goes along. Returns ``out``.

    Raises:
        FileExistsError: ``out`` exists already.
        ValueError: ``batches`` ends before ``count`` examples.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists; remove it or choose another folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model = VideoBooth(config)

    @jax.jit
    def encode(images: jax.Array) -> jax.Array:
        return model.apply({"params": params}, images, method="encode")[0].astype(jnp.float16)

    arrays: dict[str, np.ndarray] = {}
    done = 0
    progress = tqdm(total=count, unit="clips", desc="precompute")
    for batch in batches:
        for name, rows in _features(encode, batch).items():
            rows = rows[: count - done]
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    str(partial / f"{name}.npy"), "w+", rows.dtype, (count, *rows.shape[1:])
                )
            arrays[name][done : done + len(rows)] = rows
        step = min(len(batch["ids"]), count - done)
        done += step
        progress.update(step)
        if done == count:
            break
    progress.close()
    if done < count:
        raise ValueError(f"the data ended after {done} of {count} examples")
    zeros = np.zeros((1, *batch["vae_image"].shape[1:]), np.float32)
    np.save(partial / f"{ZERO_EXEMPLAR}.npy", np.asarray(encode(zeros)))
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    manifest = {"count": count, "autoencoder": fingerprint(params["vae"])}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.copy(tokenizer_file, partial / "tokenizer.json")
    partial.replace(out)
    return out


def _features(encode: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    video = batch["video"]
    both = np.concatenate([video, batch["vae_image"][:, None]], axis=1)
    latents = np.asarray(encode(both.reshape(-1, *both.shape[2:])))
    latents = latents.reshape(*both.shape[:2], *latents.shape[1:])
    return {
        "latents": latents[:, :-1],
        "exemplar_latents": latents[:, -1],
        "clip_image": batch["clip_image"].astype(np.float16),
        "ids": batch["ids"],
        "placeholder": batch["placeholder"],
    }

"""Frozen features written once: the autoencoder's latents, and where asked for the image tower's.

Neither network changes while the diffusion model trains, so their work is done once per example
instead of once per step. What results is a folder that :class:`~.data.latents.LatentsSource` reads,
in shards. A shard appears whole or not at all; one that is there is not made again, so a run that
was stopped goes on, and parts of the work can be given to several machines. Example r is clip r mod
count, changed for the (r div count)th time, whoever makes it.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.batches import Batch, BatchConfig, collate, with_changed_prompt
from videobooth_jax.data.clip_examples import ClipExamples, ClipView
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.image_prompt import clip_input, vae_input
from videobooth_jax.data.latents import (
    DEVIATION,
    FEATURES,
    FORMAT_VERSION,
    MANIFEST,
    PLAN,
    TOKENIZER,
    shard_name,
)
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.rows import Picked
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.stream import BatchStream, batched, in_order
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.videobooth import VideoBooth, VideoBoothConfig
from videobooth_jax.outputs import written_whole
from videobooth_jax.paths import resolve
from videobooth_jax.precompute.fingerprints import NETWORKS, fingerprints_of
from videobooth_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
    """What to store.

    ``num_frames``, ``window``, ``augment`` and ``split`` as in a training run's data; each of the
    first ``count`` clips (None: all; of sprites, which are shuffled by ``seed``, 8192) makes
    ``variants`` examples, each with its own draw of window and image prompt. ``vision_features``
    stores what the projector takes, too. ``shard_size`` examples lie in one folder.
    """

    source: Literal["sprites", "clips"] = "sprites"
    path: str = ""
    split: str = "train"
    num_frames: int = 8
    window: int = 64
    augment: str = "none"
    variants: int = 1
    count: int | None = None
    seed: int = 0
    vision_features: bool = False
    shard_size: int = 1024
    batch_size: int = 8
    worker_count: int = 0

    def __post_init__(self):
        """Raise ValueError for what cannot be made."""
        least = {"num_frames": 1, "variants": 1, "batch_size": 1, "shard_size": 1, "count": 1}
        for name, value in (least | {"worker_count": 0}).items():
            if (given := getattr(self, name)) is not None and given < value:
                raise ValueError(f"{name} must be at least {value}, not {given}")
        if self.shard_size % self.batch_size:
            raise ValueError(
                f"shards of {self.shard_size} examples do not hold whole batches of "
                f"{self.batch_size}: make the one a multiple of the other"
            )
        if self.augment not in AUGMENTS:
            raise ValueError(f"augment is {self.augment!r}; choose one of {', '.join(AUGMENTS)}")


def precompute(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: PrecomputeConfig,
    part: tuple[int, int] = (1, 1),
) -> int:
    """Write shards of latents with the networks of a model directory, and at the end the manifest.

    Args:
        model: the model directory.
        out: folder of this machine to write; one that the same call has begun is gone on with.
        config: what to store.
        part: (i, n): only every nth shard, from the ith, counted from 1.

    Returns:
        How many shards are still missing: others' parts. With none the folder is finished.

    Raises:
        FileExistsError: ``out`` holds something else.
        FileNotFoundError, ValueError: there is no such dataset or model, or ``part``.
    """
    if not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {part[0]}/{part[1]}: give i/n with i from 1 to n")
    model_config, params = load_model(model, networks=NETWORKS)
    tokenizer_file, out = resolve(model) / TOKENIZER, Path(out)
    tokenizer = Tokenizer.from_file(tokenizer_file)
    examples, shape = _open(config, model_config, tokenizer)
    plan = {
        **{n: v for n, v in dataclasses.asdict(config).items() if n not in _NOT_KEPT},
        "format_version": FORMAT_VERSION,
        "count": len(examples),
        "shards": -(-len(examples) // config.shard_size),
        "made_with": fingerprints_of(model_config, params, tokenizer_file.read_bytes()),
    }
    _begin(out, plan)
    if not _missing(out, plan):
        return _finish(out, plan)
    encode = _encoder(model_config, params, config.vision_features)
    zeros = encode({"vae_image": np.zeros((1, model_config.height, model_config.width, 3), "f")})
    for name in ("", DEVIATION):
        _put(out / f"zero_exemplar{name}.npy", _npy(zeros[f"exemplar_latents{name}"]))
    _put(out / TOKENIZER, tokenizer_file.read_bytes())
    mine = [k for k in range(plan["shards"]) if k % part[1] == part[0] - 1]
    stack = partial(collate, tokenizer=tokenizer, config=shape)
    _write_shards(
        out,
        plan,
        mine,
        lambda places: batched(_picked(examples, places), shape, stack),
        lambda batch: encode(_as_floats(batch)),
    )
    return _finish(out, plan)


_NOT_KEPT = {"path", "batch_size", "worker_count"}
"""Choices of one machine, which may differ between parts."""


def _open(
    config: PrecomputeConfig, model: VideoBoothConfig, tokenizer: Tokenizer
) -> tuple[grain.MapDataset[Any], BatchConfig]:
    """All examples in the order they are stored in, and how batches are made of them."""
    shape = BatchConfig(
        batch_size=config.batch_size,
        clip_size=model.vision_encoder.image_size,
        vae_size=model.height,
        shuffle=False,
        seed=config.seed,
        epochs=config.variants,
        worker_count=config.worker_count,
        pad_last=True,
    )
    augment = AUGMENTS[config.augment]
    if config.source == "clips":
        clips = ClipsSource(config.path, config.split)
        view = ClipView(config.num_frames, model.height, model.width, config.window, augment)
        change = ClipExamples(clips, view, tokenizer, shape.subject_length)
        return in_order(range(min(config.count or len(clips), len(clips))), shape, change), shape
    world = SpritesConfig(config.split, resolution=model.height, num_frames=config.num_frames)
    sprites = SpritesSource(world)
    order = np.random.default_rng(config.seed).permutation(len(sprites))[: config.count or 8192]
    changed = partial(with_changed_prompt, augment=augment)
    return in_order(Picked(sprites, order), shape, changed), shape


def _picked(examples: grain.MapDataset[Any], places: np.ndarray) -> grain.MapDataset[Any]:
    return grain.MapDataset.source(Picked(examples, places))


def _as_floats(batch: Batch) -> Batch:
    """Pictures as the autoencoder takes them; the image tower's are stored as they are."""
    return batch | {name: vae_input(batch[name]) for name in ("video", "vae_image")}


def _encoder(
    config: VideoBoothConfig, params: Params, vision_features: bool
) -> Callable[[Batch], Batch]:
    """From pixels to what is stored of them, NumPy arrays."""

    def apply(params: Params, images: Array, method: str) -> Any:
        return VideoBooth(config).apply({"params": params}, images, method=method)

    @jax.jit
    def posterior(params: Params, images: Array) -> tuple[Array, Array]:
        mean, logvar = apply(params, images, method="encode")
        return mean.astype(jnp.float16), jnp.exp(0.5 * logvar).astype(jnp.float16)

    @jax.jit
    def features(params: Params, images: Array) -> Array:
        return apply(params, images, method="vision_features").astype(jnp.float16)

    def encode(batch: Batch) -> Batch:
        stored: Batch = {n: x for n, x in batch.items() if n in ("ids", "placeholder")}
        for pixels, name in (("video", "latents"), ("vae_image", "exemplar_latents")):
            if pixels in batch:
                mean, deviation = posterior(params, batch[pixels])
                stored |= {name: np.asarray(mean), name + DEVIATION: np.asarray(deviation)}
        if "clip_image" in batch:
            stored["clip_image"] = batch["clip_image"]
            if vision_features:
                stored[FEATURES] = np.asarray(features(params, clip_input(batch["clip_image"])))
        return stored

    return encode


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Claim a folder for a plan, or find it claimed for the same."""
    if (out / PLAN).is_file():
        begun = json.loads((out / PLAN).read_text(encoding="utf-8"))
        if other := [name for name in plan if begun.get(name) != plan[name]]:
            raise FileExistsError(
                f"{out} was begun with other settings ({', '.join(other)}): choose another folder, "
                "or give the same again to go on"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} holds something else; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _put(out / PLAN, _json(plan))


def _missing(out: Path, plan: dict[str, Any]) -> list[int]:
    return [k for k in range(plan["shards"]) if not (out / shard_name(k, plan["shards"])).is_dir()]


def _finish(out: Path, plan: dict[str, Any]) -> int:
    """Write the manifest if everything is there; returns how many shards are not."""
    missing = _missing(out, plan)
    if not missing:
        _put(out / MANIFEST, _json(plan))
    return len(missing)


def _write_shards(
    out: Path,
    plan: dict[str, Any],
    shards: Sequence[int],
    batches_of: Callable[[np.ndarray], BatchStream],
    encode: Callable[[Batch], Batch],
) -> None:
    """Make those of ``shards`` that are missing, in one go through their examples."""
    size, missing = plan["shard_size"], set(_missing(out, plan))
    places = {k: range(k * size, min((k + 1) * size, plan["count"])) for k in shards}
    todo = {k: rows for k, rows in places.items() if k in missing}
    if not todo:
        return
    stream = batches_of(np.concatenate([*todo.values()]))
    total, left = (sum(map(len, some.values())) for some in (places, todo))
    with (
        contextlib.closing(stream),
        tqdm(total=total, initial=total - left, unit="clips", desc="precompute") as progress,
    ):
        for k, rows in todo.items():
            folder = out / shard_name(k, plan["shards"])
            _write_shard(folder, len(rows), stream, encode, progress)


def _write_shard(
    folder: Path,
    count: int,
    stream: BatchStream,
    encode: Callable[[Batch], Batch],
    progress: tqdm,
) -> None:
    """The next ``count`` examples of a stream as one folder of arrays, whole or not at all.

    A draft that a run has left is removed. If that run is still at work, it ends with an error:
    each has a draft of its own name.

    Raises FileExistsError in that run.
    """
    for left in folder.parent.glob(f".{folder.name}*.partial"):
        gone = left.with_suffix(".gone")
        with contextlib.suppress(OSError):
            left.replace(gone)  # at once, so that nobody moves half of it to its place
        shutil.rmtree(gone, ignore_errors=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    draft.mkdir()
    files: dict[str, BinaryIO] = {}
    done = 0
    with contextlib.ExitStack() as opened:
        while done < count:
            batch = next(stream)
            valid = batch.pop("valid")
            for name, rows in encode(batch).items():
                if name not in files:
                    files[name] = opened.enter_context((draft / f"{name}.npy").open("wb"))
                    _write_header(files[name], rows.dtype, (count, *rows.shape[1:]))
                files[name].write(rows[valid].tobytes())
            done += int(valid.sum())
            progress.update(int(valid.sum()))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    try:
        draft.replace(folder)
    except OSError as error:
        raise FileExistsError(
            f"another run is making {folder}, too: let one of them go on, or give each a --part"
        ) from error


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Begin a ``.npy`` file whose rows follow one after the other."""
    kind = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _put(file: Path, content: bytes) -> None:
    """Write a file whole, also while another machine does the same."""
    with written_whole([file]) as (draft,):
        draft.write_bytes(content)


def _json(plan: dict[str, Any]) -> bytes:
    return (json.dumps(plan, indent=1) + "\n").encode()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()

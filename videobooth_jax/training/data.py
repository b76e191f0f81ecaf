"""From a data config to an endless iterator of batches with a position that can be saved."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from videobooth_jax.data.batches import BatchConfig, batches, collate, with_changed_prompt
from videobooth_jax.data.clip_examples import ClipExamples, ClipView
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.latents import TOKENIZER, LatentsSource, latent_batches
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.stream import BatchStream, StreamConfig, batched, in_order, mixed
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.videobooth import VideoBoothConfig
from videobooth_jax.paths import resolve
from videobooth_jax.precompute.fingerprints import check_weights
from videobooth_jax.training.config import DataConfig, TrainConfig
from videobooth_jax.training.losses import Batch

SPRITES_TOKENIZER = Path(__file__).parents[1] / "assets" / "sprites_tokenizer.json"


class TrainingData:
    """Batches for a task, each with what all rows share.

    ``null_ids`` (1, n), the prompt of dropped rows and of the exemplar branch; of stored latents
    also ``zero_exemplar`` (1 1 h w c), which dropped rows are shown, and its deviation.
    """

    def __init__(
        self,
        stream: BatchStream,
        tokenizer_file: Path,
        null_prompt: str,
        shared: Mapping[str, np.ndarray] | None = None,
    ):
        """Wrap a stream; ``shared`` goes into every batch."""
        self._stream = stream
        self.tokenizer_file = tokenizer_file
        null_ids = Tokenizer.from_file(tokenizer_file).encode([null_prompt])
        self._shared = {"null_ids": null_ids, **(shared or {})}

    def __next__(self) -> Batch:
        """The next batch, NumPy arrays."""
        return dict(next(self._stream)) | self._shared

    def position(self) -> str:
        """Where the stream stands, as JSON."""
        return json.dumps(self._stream.get_state())

    def set_position(self, position: str) -> None:
        """Go on from a position :meth:`position` gave."""
        self._stream.set_state(json.loads(position))

    def close(self) -> None:
        """End the processes that read ahead."""
        self._stream.close()


def open_training_data(
    config: DataConfig, model: VideoBoothConfig, rows: range | None = None, start: str = ""
) -> TrainingData:
    """Open the source ``config`` names.

    Args:
        config: what to read.
        model: for what model.
        rows: of every batch, those of this process; None: all of them.
        start: the model directory training starts from. Its tokenizer reads the sentences of
            clips; latents must have been made with its weights.

    Raises:
        FileNotFoundError: there is no prepared dataset, or no finished folder of latents.
        ValueError: the config or its folders do not fit together, or the model.
    """
    opened = {"sprites": _sprites, "clips": _clips, "latents": _latents}
    return opened[config.source](config, model, rows, start)


def open_validation_data(config: TrainConfig, rows: range | None = None) -> TrainingData | None:
    """The held-out examples of a run; None where it asks for none. Arguments and errors are those
    of `open_training_data`.
    """
    asked, data = config.validation, config.data
    if not asked.every:
        return None
    if data.source == "latents" and not asked.path:
        raise ValueError(
            "stored latents have no splits: set validation.path to a folder of others (precompute "
            "--split=validation), or validation.every to 0"
        )
    data = dataclasses.replace(data, split=asked.split, worker_count=0)
    if asked.path:
        data = dataclasses.replace(data, path=asked.path, paths=(), weights=())
    return open_training_data(data, config.model, rows, config.init_from)


def _pixels(config: DataConfig, model: VideoBoothConfig, rows: range | None) -> BatchConfig:
    return BatchConfig(
        batch_size=config.batch_size,
        clip_size=model.vision_encoder.image_size,
        vae_size=model.height,
        seed=config.shuffle_seed,
        rows=rows,
        worker_count=config.worker_count,
        read_ahead=config.read_ahead,
    )


def _sprites(
    config: DataConfig, model: VideoBoothConfig, rows: range | None, start: str
) -> TrainingData:
    world = SpritesConfig(split=config.split, resolution=model.height, num_frames=config.num_frames)
    change = partial(with_changed_prompt, augment=AUGMENTS[config.augment])
    tokenizer = Tokenizer.from_file(SPRITES_TOKENIZER)
    stream = batches(SpritesSource(world), tokenizer, _pixels(config, model, rows), change)
    return TrainingData(stream, SPRITES_TOKENIZER, model.diffusion.null_prompt)


def _clips(
    config: DataConfig, model: VideoBoothConfig, rows: range | None, start: str
) -> TrainingData:
    if not start:
        raise ValueError(
            "data.source 'clips' reads sentences with the tokenizer of the model that training "
            "starts from: set init_from to a model directory"
        )
    tokenizer_file = resolve(start) / TOKENIZER
    tokenizer, shape = Tokenizer.from_file(tokenizer_file), _pixels(config, model, rows)
    view = ClipView(
        num_frames=config.num_frames,
        height=model.height,
        width=model.width,
        span=config.window,
        augment=AUGMENTS[config.augment],
    )
    sources = [ClipsSource(folder, config.split) for folder in config.folders]
    parts = [
        in_order(range(len(s)), shape, ClipExamples(s, view, tokenizer, shape.subject_length))
        for s in sources
    ]
    examples = mixed(parts, config.weights or [len(s) for s in sources])
    stream = batched(examples, shape, partial(collate, tokenizer=tokenizer, config=shape))
    return TrainingData(stream, tokenizer_file, model.diffusion.null_prompt)


def _latents(
    config: DataConfig, model: VideoBoothConfig, rows: range | None, start: str
) -> TrainingData:
    sources = [
        LatentsSource(folder, config.num_frames, config.vision_features)
        for folder in config.folders
    ]
    if config.augment != "none":
        raise ValueError(
            f"data.augment {config.augment!r} changes pixels, and latents are stored as they are: "
            "give --augment to precompute, and leave this at 'none'"
        )
    check_weights(sources, start)
    shape = StreamConfig(
        batch_size=config.batch_size,
        seed=config.shuffle_seed,
        rows=rows,
        worker_count=config.worker_count,
        read_ahead=config.read_ahead,
    )
    stream = latent_batches(sources, config.weights or [len(s) for s in sources], shape)
    null_prompt = model.diffusion.null_prompt
    return TrainingData(stream, sources[0].path / TOKENIZER, null_prompt, sources[0].zeros())

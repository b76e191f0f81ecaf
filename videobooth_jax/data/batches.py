"""From a random-access source to batches for the model, through Grain: shuffled, sharded, with a
position that can be saved."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from videobooth_jax.data import image_prompt
from videobooth_jax.data.rows import process_stream
from videobooth_jax.data.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]


class Source(Protocol):
    """Examples by index; see `sprites.SpriteExample` for the keys that matter here."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How examples become batches. ``batch_size`` is that of all processes together."""

    batch_size: int
    clip_size: int  # side of the image tower's input, px
    vae_size: int  # side of the autoencoder's picture of the subject, px
    subject_length: int = 12  # tokens of the longest subject: arrays keep one shape
    shuffle: bool = True
    seed: int = 0
    epochs: int | None = None  # None: without end
    rows: range | None = None  # rows of every batch that this process supplies; None: all
    worker_count: int = 0  # processes that prepare examples; 0: this one
    drop_remainder: bool = True


def collate(
    examples: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, config: BatchConfig
) -> Batch:
    """Stack examples into the arrays the model takes.

    Returns ``video`` (b f h w 3) and ``vae_image`` (b h w 3), float32 in [-1, 1]; ``clip_image`` (b
    H W 3), float32, CLIP-normalised; ``ids`` (b n) and ``placeholder`` (b m, padded with -1),
    int32.
    """
    pictures = [example["image_prompt"] for example in examples]
    clip = [image_prompt.resize(picture, config.clip_size) for picture in pictures]
    vae = [image_prompt.resize(picture, config.vae_size) for picture in pictures]
    subjects = [example["subject"] for example in examples]
    return {
        "video": image_prompt.vae_input(np.stack([example["video"] for example in examples])),
        "clip_image": image_prompt.clip_input(np.stack(clip)),
        "vae_image": image_prompt.vae_input(np.stack(vae)),
        "ids": tokenizer.encode([example["prompt"] for example in examples]),
        "placeholder": tokenizer.placeholder(subjects, config.subject_length),
    }


def batches(
    source: Source,
    tokenizer: Tokenizer,
    config: BatchConfig,
    augment: Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]] | None = None,
) -> grain.DatasetIterator[Batch]:
    """An iterator of batches. ``get_state()`` and ``set_state()`` save and restore its position.

    All processes share one shuffled order, which changes with every epoch, and each takes its rows
    of every batch. ``augment(example, rng)`` changes examples, with a generator that depends on
    seed, epoch and position in that order only.
    """
    data = grain.MapDataset.source(source).seed(config.seed)
    if config.shuffle:
        data = data.shuffle()
    data = data.repeat(config.epochs)
    if augment is not None:
        data = data.random_map(augment)
    data = process_stream(data, config.batch_size, config.rows)

    def stack(examples: Sequence[Mapping[str, Any]]) -> Batch:
        return collate(examples, tokenizer, config)

    size = config.batch_size if config.rows is None else len(config.rows)
    data = data.batch(size, drop_remainder=config.drop_remainder, batch_fn=stack)
    stream = data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    if config.worker_count:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(config.worker_count))
    return iter(stream)

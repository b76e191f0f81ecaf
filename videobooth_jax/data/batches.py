"""Examples of pixels and words to the arrays the model takes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from videobooth_jax.data import image_prompt
from videobooth_jax.data.prompt_augment import PromptAugment, augment_prompt
from videobooth_jax.data.rows import Source
from videobooth_jax.data.stream import Batch, BatchStream, StreamConfig, batched, in_order
from videobooth_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class BatchConfig(StreamConfig):
    """A stream of pixels, and the sizes of its pictures."""

    clip_size: int = dataclasses.field(kw_only=True)  # side of the image tower's input, px
    vae_size: int = dataclasses.field(kw_only=True)  # of the autoencoder's picture of the subject
    subject_length: int = 12  # tokens of the longest subject: arrays keep one shape


def collate(
    examples: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, config: BatchConfig
) -> Batch:
    """Stack examples into the arrays the model takes.

    An example has ``video`` uint8 (f h w 3), ``image_prompt`` uint8 (n n 3), ``prompt`` and
    ``subject``; where the autoencoder is to be shown another picture, that is its ``exemplar``.

    Returns ``video`` (b f h w 3), ``vae_image`` (b h w 3) and ``clip_image`` (b H W 3), uint8: a
    quarter of what a device then makes of them (`losses.pixels_as_floats`); ``ids`` (b n) and
    ``placeholder`` (b m, padded with -1), int32; of filled up batches also ``valid`` (b,) bool.
    """
    prompts = [example["image_prompt"] for example in examples]
    shown = [example.get("exemplar", example["image_prompt"]) for example in examples]
    clip = [image_prompt.resize(picture, config.clip_size) for picture in prompts]
    vae = [image_prompt.resize(picture, config.vae_size) for picture in shown]
    subjects = [example["subject"] for example in examples]
    batch = {
        "video": np.stack([example["video"] for example in examples]),
        "clip_image": np.stack(clip),
        "vae_image": np.stack(vae),
        "ids": tokenizer.encode([example["prompt"] for example in examples]),
        "placeholder": tokenizer.placeholder(subjects, config.subject_length),
    }
    if config.pad_last:
        batch["valid"] = np.array([example["valid"] for example in examples])
    return batch


def with_changed_prompt(
    example: Mapping[str, Any], rng: np.random.Generator, augment: PromptAugment
) -> dict[str, Any]:
    """An example with its ``image_prompt`` changed, once for each network that sees it."""
    for_clip, for_vae = augment_prompt(example["image_prompt"], augment, rng)
    return {**example, "image_prompt": for_clip, "exemplar": for_vae}


def batches(
    source: Source[Any],
    tokenizer: Tokenizer,
    config: BatchConfig,
    augment: Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]] | None = None,
) -> BatchStream:
    """Batches of one source of examples; see `stream.in_order` and `stream.batched`."""
    examples = in_order(source, config, augment)
    return batched(examples, config, partial(collate, tokenizer=tokenizer, config=config))

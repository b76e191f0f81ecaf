"""From a prepared clip to a training example, with everything random drawn from one generator.

A clip that cannot be read is reported, once by each process that meets it, and the next one of the
dataset that can be takes its place, so that a long run goes on and every run sees the same.
"""

import dataclasses
import io
import logging
from typing import Any

import numpy as np
from PIL import Image

from videobooth_jax.data.clip_records import ClipRecord
from videobooth_jax.data.clip_window import clip_window
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.prompt_augment import AUGMENTS, PromptAugment, augment_prompt
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.data.videos import Video

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ClipView:
    """What an example shows of a clip: ``num_frames`` frames over ``span`` source frames, scaled
    and cut to ``height`` x ``width`` px, and the subject, changed as ``augment`` says.
    """

    num_frames: int
    height: int
    width: int
    span: int = 64
    augment: PromptAugment = AUGMENTS["none"]

    def __post_init__(self):
        """Raise ValueError for a span of fewer frames than are to be taken from it."""
        if self.span < self.num_frames:
            raise ValueError(
                f"{self.num_frames} frames cannot be spread over a window of {self.span}: make "
                "window as large as the number of frames, or larger"
            )


class ClipExamples:
    """A function from a clip's index and a generator to an example.

    ``video`` uint8 (frame height width 3); ``image_prompt`` for the CLIP tower and ``exemplar`` for
    the autoencoder, uint8 squares on white; ``prompt`` and ``subject``.
    """

    def __init__(
        self, source: ClipsSource, view: ClipView, tokenizer: Tokenizer, subject_length: int
    ):
        """``tokenizer`` tells which subjects have no more than ``subject_length`` tokens."""
        self._source, self._view = source, view
        self._tokenizer, self._subject_length = tokenizer, subject_length
        self._told: set[int] = set()

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """The example of clip ``index``, or where that is bad of the next good one after it.

        What is drawn does not depend on which one it is.

        Raises:
            ValueError: all clips are bad.
        """
        seed = int(rng.integers(2**63))
        count, first = len(self._source), ""
        for place in ((index + further) % count for further in range(count)):
            try:
                record = self._source[place]
                example = self._example(record, np.random.default_rng(seed))
            except (ValueError, OSError, Image.DecompressionBombError) as error:
                first = first or str(error)
                self._tell(place, f"is left out, the next one is shown: {error}")
                continue
            self._check_words(place, record)
            return example
        raise ValueError(f"none of the {count} clips of {self._source} can be used: {first}")

    def _example(self, record: ClipRecord, rng: np.random.Generator) -> dict[str, Any]:
        view = self._view
        self._tokenizer.placeholder([record.subject], self._subject_length)
        picture = Image.open(io.BytesIO(record.picture), formats=("PNG",))
        for_clip, for_vae = augment_prompt(picture, view.augment, rng)
        with Video(record.video) as video:
            window = clip_window(video.info.num_frames, view.num_frames, view.span, rng)
            frames = video.read(window, (view.height, view.width))
        return {
            "video": frames,
            "image_prompt": for_clip,
            "exemplar": for_vae,
            "prompt": record.caption,
            "subject": record.subject,
        }

    def _check_words(self, place: int, record: ClipRecord) -> None:
        """Say where the picture's words find no place in the sentence, as beyond CLIP's 77 tokens.

        Such a row trains on the sentence alone, as in the published trainers.
        """
        try:
            self._tokenizer.subject_span(record.caption, record.subject)
        except ValueError as error:
            self._tell(place, f"is used, but its picture may lend no words: {error}")

    def _tell(self, place: int, what: str) -> None:
        if place not in self._told:
            self._told.add(place)
            LOG.warning("clip %d (%s) %s", place, self._source.where(place), what)

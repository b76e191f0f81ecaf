"""From a data config to an endless iterator of batches with a position that can be saved."""

import json
from pathlib import Path

import grain
import numpy as np

from videobooth_jax.data.batches import BatchConfig, batches
from videobooth_jax.data.latents import LatentsSource, latent_batches
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.videobooth import VideoBoothConfig
from videobooth_jax.training.config import DataConfig
from videobooth_jax.training.losses import Batch

SPRITES_TOKENIZER = Path(__file__).parents[1] / "assets" / "sprites_tokenizer.json"


class TrainingData:
    """Batches for a task, each with what all rows share.

    ``null_ids`` (1, n), the prompt of dropped rows and of the exemplar branch; of latents that were
    stored with it also ``zero_exemplar`` (1 1 h w c), which dropped rows are shown.
    """

    def __init__(
        self,
        stream: grain.DatasetIterator,
        tokenizer_file: Path,
        null_prompt: str,
        zero_exemplar: np.ndarray | None = None,
    ):
        """Wrap a Grain iterator."""
        self._stream = stream
        self.tokenizer_file = tokenizer_file
        self._shared = {"null_ids": Tokenizer.from_file(tokenizer_file).encode([null_prompt])}
        if zero_exemplar is not None:
            self._shared["zero_exemplar"] = zero_exemplar

    def __next__(self) -> Batch:
        """The next batch, NumPy arrays."""
        return dict(next(self._stream)) | self._shared

    def position(self) -> str:
        """Where the stream stands, as JSON."""
        return json.dumps(self._stream.get_state(), default=_plain)

    def set_position(self, position: str) -> None:
        """Go on from a position :meth:`position` gave."""
        self._stream.set_state(json.loads(position))


def _plain(value: object) -> object:
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"cannot save {type(value).__name__} as a data position")


def open_training_data(
    config: DataConfig, model: VideoBoothConfig, rows: range | None = None
) -> TrainingData:
    """Open the source ``config`` names; ``rows`` of every batch, None for all of them.

    Raises:
        FileNotFoundError: "latents" without a finished folder at ``path``.
    """
    null_prompt = model.diffusion.null_prompt
    if config.source == "latents":
        source = LatentsSource(config.path, config.num_frames)
        stream = latent_batches(source, config.batch_size, config.shuffle_seed, rows)
        tokenizer_file = Path(config.path) / "tokenizer.json"
        return TrainingData(stream, tokenizer_file, null_prompt, source.zero_exemplar)
    world = SpritesConfig(split=config.split, resolution=model.height, num_frames=config.num_frames)
    shape = BatchConfig(
        batch_size=config.batch_size,
        clip_size=model.vision_encoder.image_size,
        vae_size=model.height,
        seed=config.shuffle_seed,
        rows=rows,
    )
    tokenizer = Tokenizer.from_file(SPRITES_TOKENIZER)
    stream = batches(SpritesSource(world), tokenizer, shape)
    return TrainingData(stream, SPRITES_TOKENIZER, null_prompt)

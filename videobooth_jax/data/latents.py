"""Random access to latents stored once (written by :mod:`videobooth_jax.precompute`).

A folder of shards, ``latents-00003-of-00010/``, each of plain ``.npy`` arrays with one row an
example, which are memory-mapped:

========================  ========================================================================
``latents``               (n frames height width channels) float16, scaled posterior means
``exemplar_latents``      (n height width channels) float16, of the picture of the subject
``clip_image``            (n H W 3) uint8
``ids``, ``placeholder``  int32
``vision_features``       (n layers tokens d) float16, what the projector takes; where asked for
========================  ========================================================================

Beside both latents lies their posterior's deviation, ``latents_deviation`` and so on, because the
published trainers sample latents (quirk 10). The folder also holds ``zero_exemplar`` and its
deviation (1 height width channels), the latents of a picture of zeros, which dropped rows are
shown; ``tokenizer.json``, which made the ids; ``plan.json``, what was asked for; and last of all
``manifest.json``, which tells a finished folder from one under way and whose weights it is made of.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videobooth_jax.data.stream import Batch, BatchStream, StreamConfig, batched, in_order, mixed

MANIFEST, PLAN, TOKENIZER = "manifest.json", "plan.json", "tokenizer.json"
FORMAT_VERSION = 3
DEVIATION = "_deviation"
SAMPLED = ("latents", "exemplar_latents")
STORED = (*SAMPLED, *(name + DEVIATION for name in SAMPLED), "clip_image", "ids", "placeholder")
ZEROS = ("zero_exemplar", "zero_exemplar" + DEVIATION)
FEATURES = "vision_features"


def shard_name(index: int, count: int) -> str:
    """Folder of a shard."""
    return f"latents-{index:05d}-of-{count:05d}"


class LatentsSource:
    """Examples by index, each a dict of arrays without the batch axis; can be pickled.

    Attributes:
        path: of the folder.
        manifest: of it.
        vision_features: whether examples have them.
    """

    def __init__(self, path: str | Path, num_frames: int, vision_features: bool = False):
        """Open a folder.

        Args:
            path: the folder.
            num_frames: examples are cut to their first ones.
            vision_features: give these instead of ``clip_image``.

        Raises:
            FileNotFoundError: there is no finished folder.
            ValueError: it is of another format, stores fewer frames, or no features.
        """
        self.path, self._num_frames = Path(path), num_frames
        self.vision_features = vision_features
        file = self.path / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no finished dataset (no {MANIFEST}); run precompute first, all "
                "parts of it"
            )
        self.manifest = json.loads(file.read_text(encoding="utf-8"))
        if (version := self.manifest.get("format_version")) != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version} and this videobooth_jax reads "
                f"{FORMAT_VERSION}: run precompute again"
            )
        if num_frames > (stored := self.manifest["num_frames"]):
            raise ValueError(f"{path} stores {stored} frames a clip, {num_frames} were asked")
        if vision_features and not self.manifest[FEATURES]:
            raise ValueError(
                f"{path} stores no vision features: run precompute again with --vision-features, "
                f"or set data.{FEATURES} to False"
            )
        chosen = FEATURES if vision_features else "clip_image"
        self._names = [*(n for n in STORED if n != "clip_image"), chosen]
        self._open: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        """Number of examples."""
        return self.manifest["count"]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example, latents in float32, features and the picture as stored."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        shard, place = divmod(index, self.manifest["shard_size"])
        row = {name: np.array(array[place]) for name, array in self._shard(shard).items()}
        for name, values in row.items():
            if name.startswith("latents"):
                row[name] = values[: self._num_frames].astype(np.float32)
            elif name.startswith("exemplar"):
                row[name] = values[None].astype(np.float32)
        return row

    def zeros(self) -> dict[str, np.ndarray]:
        """`ZEROS`: latents of a picture of zeros and their deviation, (1 1 h w c) float32."""
        return {n: np.load(self.path / f"{n}.npy")[None].astype(np.float32) for n in ZEROS}

    def _shard(self, index: int) -> dict[str, np.ndarray]:
        if index not in self._open:
            folder = self.path / shard_name(index, self.manifest["shards"])
            self._open[index] = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self._names
            }
        return self._open[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a mapped array would be pickled whole

    def __repr__(self) -> str:
        return f"LatentsSource({self.path})"


def latent_batches(
    sources: Sequence[LatentsSource], weights: Sequence[float], config: StreamConfig
) -> BatchStream:
    """Batches of one folder, or of several mixed by weight; see `stream.mixed`."""
    return batched(mixed([in_order(s, config) for s in sources], weights), config, _stack)


def _stack(rows: Sequence[dict[str, np.ndarray]]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

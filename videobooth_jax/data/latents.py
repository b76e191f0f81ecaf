"""A Grain random-access source over precomputed latents (written by
:mod:`videobooth_jax.precompute`).

A folder of plain ``.npy`` arrays, one row an example, memory-mapped: ``latents`` (n frames height
width channels) float16, scaled; ``exemplar_latents`` (n height width channels) float16;
``clip_image`` (n H W 3) float16; ``ids``, ``placeholder`` int32; ``zero_exemplar`` (1 height width
channels) float16, the latents of a picture of zeros, which dropped rows are shown; and
``manifest.json`` with the weights' fingerprint.
"""

import json
from pathlib import Path
from typing import Any

import grain
import numpy as np

from videobooth_jax.data.rows import process_stream

ARRAYS = ("latents", "exemplar_latents", "clip_image", "ids", "placeholder")
ZERO_EXEMPLAR = "zero_exemplar"


class LatentsSource:
    """Random access to a folder of precomputed examples; ``source[i]`` is a dict of arrays
    without the batch axis.

    Raises:
        FileNotFoundError: the folder or one of its arrays is missing.
        ValueError: ``num_frames`` is more than what was stored.
    """

    def __init__(self, path: str | Path, num_frames: int):
        """Open ``path``; examples are cut to their first ``num_frames`` frames."""
        self._path = Path(path)
        manifest = self._path / "manifest.json"
        if not manifest.exists():
            raise FileNotFoundError(
                f"{self._path} holds no finished dataset (no manifest.json); run precompute first"
            )
        self.manifest = json.loads(manifest.read_text())
        self._arrays = {n: np.load(self._path / f"{n}.npy", mmap_mode="r") for n in ARRAYS}
        stored = self._arrays["latents"].shape[1]
        if num_frames > stored:
            raise ValueError(f"{self._path} stores {stored} frames a clip, {num_frames} were asked")
        self._num_frames = num_frames

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._arrays["latents"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example, floats in float32."""
        row = {name: np.array(array[index]) for name, array in self._arrays.items()}
        row["latents"] = row["latents"][: self._num_frames].astype(np.float32)
        row["clip_image"] = row["clip_image"].astype(np.float32)
        row["exemplar_latents"] = row["exemplar_latents"][None].astype(np.float32)
        return row

    @property
    def zero_exemplar(self) -> np.ndarray | None:
        """Latents of a picture of zeros (1 1 height width channels), float32.

        None where the folder was written without them.
        """
        path = self._path / f"{ZERO_EXEMPLAR}.npy"
        return np.load(path)[None].astype(np.float32) if path.exists() else None

    def __repr__(self) -> str:
        return f"LatentsSource({self._path})"


def latent_batches(
    source: LatentsSource, batch_size: int, seed: int = 0, rows: range | None = None
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Endless shuffled batches of ``source``; ``get_state()`` and ``set_state()`` save and
    restore the position.

    ``batch_size`` is that of all processes together, ``rows`` those of every batch that this
    process supplies; None: all.
    """
    order = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    size = batch_size if rows is None else len(rows)
    data = process_stream(order, batch_size, rows).batch(size)
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))

"""A prepared dataset as a random-access source: shards of clips, read through Grain.

A dataset is a TFDS folder, ``DIR/videobooth_clips/1.0.0``, of ArrayRecord shards and a
``dataset_info.json`` that says how many clips each holds; see `clip_records` for what a clip is.
Only the information is read when it is opened. The extra ``data`` brings TFDS.
"""

import json
from pathlib import Path
from typing import Any

import grain

from videobooth_jax.data.clip_records import DATASET, VERSION, ClipRecord, decode_record

INFO = "dataset_info.json"


class ClipsSource:
    """Clips by index; can be pickled, and opens its shards when they are first read."""

    def __init__(self, path: str | Path, split: str = "train"):
        """Open a dataset.

        Args:
            path: the folder given to prepare, or the one with the shards.
            split: its name, or a part of it as TFDS writes them, ``train[:95%]``.

        Raises:
            FileNotFoundError: there is no dataset, or shards of it are missing.
            ValueError: what describes it cannot be read, or it has no such split or no clips in it.
            ImportError: TFDS is not installed.
        """
        folder = find_dataset(path)
        self._name = f"{folder}, {split}"
        self._pieces = _pieces(folder, split)
        missing = [p.filename for p in self._pieces if not Path(p.filename).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(self._pieces)} shards are missing, the first is "
                f"{missing[0]}: copy the whole of {folder}, or prepare it again"
            )
        self._records = grain.sources.ArrayRecordDataSource(self._pieces)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._records)

    def __getitem__(self, index: int) -> ClipRecord:
        """Clip ``index``.

        Raises:
            IndexError: there is none.
            ValueError: it is damaged; says where it lies.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        try:
            return decode_record(self._records[index])
        except (RuntimeError, ValueError) as error:  # the reader's; `decode_record`'s
            reason = str(error).partition(";")[0]
            raise ValueError(f"{self.where(index)} cannot be read: {reason}") from error

    def where(self, index: int) -> str:
        """The shard that holds a clip, and its place there, from 0."""
        for piece in self._pieces:
            if index < piece.take:
                return f"{piece.filename}, record {piece.skip + index}"
            index -= piece.take
        raise IndexError(f"no shard of {self._name} goes that far")

    def __repr__(self) -> str:
        return f"ClipsSource({self._name})"


def find_dataset(path: str | Path) -> Path:
    """The folder with the shards, at or below ``path``. Raises FileNotFoundError."""
    path = Path(path).expanduser()
    for folder in (path, path / VERSION, path / DATASET / VERSION):
        if (folder / INFO).is_file():
            return folder
    raise FileNotFoundError(
        f"{path} holds no prepared dataset (no {DATASET}/{VERSION}/{INFO} there): give the folder "
        "that videobooth prepare wrote"
    )


def _pieces(folder: Path, split: str) -> list[Any]:
    """Which records of which shards make up a split, as TFDS's file instructions.

    The names of shards follow from their number; ``features.json``, which names code, is not read.
    """
    try:
        from tensorflow_datasets.core import splits
        from tensorflow_datasets.core.naming import ShardedFileTemplate
    except ImportError as error:
        raise ImportError(
            "prepared datasets are read through TFDS (no TensorFlow): "
            "pip install 'videobooth_jax[data]'"
        ) from error

    def info(name: str, lengths: list[int]) -> splits.SplitInfo:
        if not name.isidentifier():  # it becomes part of a path
            raise ValueError(f"{name!r} is no name of a split")
        files = ShardedFileTemplate(
            data_dir=folder, dataset_name=DATASET, split=name, filetype_suffix="array_record"
        )
        return splits.SplitInfo(name, lengths, num_bytes=0, filename_template=files)

    try:
        told = json.loads((folder / INFO).read_text(encoding="utf-8"))["splits"]
        known = [info(one["name"], [int(n) for n in one["shardLengths"]]) for one in told]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{folder / INFO} cannot be read: {error!r}; prepare it again") from error
    try:
        pieces = splits.SplitDict(known)[split].file_instructions
    except Exception as error:  # TFDS has several kinds
        names = ", ".join(one.name for one in known)
        raise ValueError(
            f"{folder} has no split {split!r}: it has {names}, and parts of them such as "
            "train[:95%]"
        ) from error
    if not pieces:
        raise ValueError(f"the split {split!r} of {folder} has no clips")
    return list(pieces)

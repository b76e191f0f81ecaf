"""Records to a TFDS dataset of ArrayRecord files, with checksums; no TensorFlow."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from videobooth_jax.data.clip_records import DATASET, VERSION, clip_features
from videobooth_jax.outputs import written_whole

CHECKSUMS = "SHA256SUMS"
DESCRIPTION = (
    "Videos, their captions, and the subject of each cut out: image-prompted video generation."
)


class Split(NamedTuple):
    """``shard_lengths``, records of each file, and the bytes of all together."""

    name: str
    shard_lengths: list[int]
    num_bytes: int

    @classmethod
    def of(cls, name: str, shards: Sequence[tuple[str, Sequence[int]]]) -> "Split":
        """The split of written files, given with what is in each."""
        size = sum(Path(path).stat().st_size for path, _ in shards)
        return cls(name, [len(numbers) for _, numbers in shards], size)


def shard_path(folder: Path, split: str, index: int, count: int) -> Path:
    """Where TFDS looks for a shard."""
    return folder / f"{DATASET}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Write one file, every record readable on its own; it is there whole or not at all."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with written_whole([path]) as (partial,):
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()


def write_metadata(folder: Path, splits: Sequence[Split]) -> None:
    """``dataset_info.json`` and ``features.json``, as TFDS writes them."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    identity = DatasetIdentity(
        name=DATASET,
        version=tfds.core.Version(VERSION),
        data_dir=str(folder),
        module_name="videobooth_jax.data.tfds_builder",
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=clip_features(), description=DESCRIPTION
    )
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET, filetype_suffix="array_record"
    )
    info.set_splits(
        tfds.core.splits.SplitDict(
            [tfds.core.SplitInfo(*split, template.replace(split=split.name)) for split in splits]
        )
    )
    info.write_to_directory(str(folder))


def write_checksums(folder: Path) -> None:
    """A file that ``sha256sum -c`` accepts, of all others in the folder."""
    files = sorted(path for path in folder.iterdir() if path.name != CHECKSUMS)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

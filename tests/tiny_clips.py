"""Prepared datasets small enough for a test: every frame says by its colour which one it is."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videobooth_jax.data.clip_records import (
    DATASET,
    VERSION,
    ClipRecord,
    clip_features,
    encode_record,
)

FRAMES = 40


def encode_video(frames: np.ndarray, rate: int = 10) -> bytes:
    """Frames uint8 (f h w 3) as an H.264 file, nearly without loss."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options={"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def colours(clip: int, frame: np.ndarray) -> np.ndarray:
    """Red says which clip, green which frame."""
    return np.stack([np.full_like(frame, 20 * clip), 4 * frame, np.full_like(frame, 30)], axis=-1)


def told_by(pixels: np.ndarray) -> tuple[int, list[int]]:
    """The clip and the frames that `colours` made of pixels (f 3), which may be a little off."""
    return round(float(pixels[:, 0].mean()) / 20), np.rint(pixels[:, 1] / 4).astype(int).tolist()


def record(index: int, frames: int = FRAMES, **fields) -> ClipRecord:
    """Clip ``index``: ``frames`` frames of one colour each; a red ellipse as its subject."""
    shown = colours(index, np.arange(frames))[:, None, None].astype(np.uint8)
    video = encode_video(np.broadcast_to(shown, (frames, 18, 24, 3)).copy())
    y, x = np.mgrid[:20, :12]
    picture = np.zeros((20, 12, 4), np.uint8)
    picture[..., 0], picture[..., 2] = 20 * index, 9 * y
    picture[..., 3] = 255 * (((x - 5.5) / 6) ** 2 + ((y - 9.5) / 10) ** 2 <= 1)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    values = {
        "id": f"clip{index}",
        "caption": f"a panda number {index} moving left",
        "subject": "panda",
        "video": video,
        "picture": file.getvalue(),
        "mask_frame": 0,
        "num_frames": frames,
        "height": 18,
        "width": 24,
        "frames_per_second": 10.0,
        "facts": "{}",
    }
    return ClipRecord(**values | fields)


def write_dataset(
    folder: Path, records: list[ClipRecord], shard_size: int = 4, split: str = "train"
) -> Path:
    """A dataset in ``folder``, as ``videobooth prepare`` leaves it; returns ``folder``."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    inner = folder / DATASET / VERSION
    inner.mkdir(parents=True)
    shards = [records[i : i + shard_size] for i in range(0, len(records), shard_size)]
    for number, shard in enumerate(shards):
        writer = ArrayRecordWriter(str(inner / _file(split, number, len(shards))), "group_size:1")
        for one in shard:
            writer.write(encode_record(one))
        writer.close()
    names = tfds.core.ShardedFileTemplate(
        data_dir=inner, dataset_name=DATASET, split=split, filetype_suffix="array_record"
    )
    info = tfds.core.SplitInfo(
        name=split, shard_lengths=list(map(len, shards)), num_bytes=0, filename_template=names
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(inner), features=clip_features(), split_infos=[info], check_data=False
    )
    return folder


def damage(folder: Path, shard: int, where: int, split: str = "train") -> None:
    """Flip eight bytes of a shard."""
    (file,) = (folder / DATASET / VERSION).glob(f"*-{split}.array_record-{shard:05d}-*")
    content = bytearray(file.read_bytes())
    content[where : where + 8] = bytes(byte ^ 255 for byte in content[where : where + 8])
    file.write_bytes(content)


def _file(split: str, number: int, count: int) -> str:
    return f"{DATASET}-{split}.array_record-{number:05d}-of-{count:05d}"

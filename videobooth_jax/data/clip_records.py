"""One clip of a prepared dataset, and how it is stored: a TFDS example of scalars.

The video is a short H.264 file and the subject a PNG, both as bytes, so that nothing but TFDS's own
features stands between a shard and its reader, and nothing needs TensorFlow. The extra ``data``
brings TFDS.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

DATASET, VERSION = "videobooth_clips", "1.0.0"
"""TFDS keeps a dataset in ``DIR/DATASET/VERSION``."""


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """A video, what is said of it, and its subject cut out.

    Attributes:
        id: unique in its dataset.
        caption: the sentence.
        subject: the words of the caption that the picture shows.
        video: an H.264 MP4 file of ``num_frames`` frames of ``height`` x ``width`` px, upright.
        picture: a PNG file, RGBA: the subject's box in frame ``mask_frame``, transparent where the
            subject is not; at the source's resolution unless that was very high.
        mask_frame: the frame of ``video`` that the picture shows.
        num_frames, height, width, frames_per_second: of ``video``.
        facts: JSON: where the clip came from, its licence, and what every decision was made on.
    """

    id: str
    caption: str
    subject: str
    video: bytes
    picture: bytes
    mask_frame: int
    num_frames: int
    height: int
    width: int
    frames_per_second: float
    facts: str


def encode_record(record: ClipRecord) -> bytes:
    """A record as it lies in a shard: a serialised ``tf.train.Example``, the same every time."""
    stored = clip_features().serialize_example(dataclasses.asdict(record))

    from tensorflow_datasets.proto import tf_example_pb2

    # A map's order differs from process to process unless asked for.
    return tf_example_pb2.Example.FromString(stored).SerializeToString(deterministic=True)


def decode_record(stored: bytes) -> ClipRecord:
    """What `encode_record` was given.

    Raises:
        ValueError: these bytes are no clip.
    """
    try:
        values = clip_features().deserialize_example_np(stored)
        return ClipRecord(**{f.name: _plain(f.type, values[f.name]) for f in _FIELDS})
    except Exception as error:  # protobuf, TFDS and NumPy each have their own
        raise ValueError(f"these {len(stored)} bytes are no clip: {error}") from error


@functools.cache
def clip_features() -> Any:
    """The `tfds.features.FeaturesDict` of a record.

    Raises:
        ImportError: TFDS is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "prepared datasets are read and written through TFDS (no TensorFlow): "
            "pip install 'videobooth_jax[data]'"
        ) from error

    kinds: dict[Any, Any] = {
        str: tfds.features.Text(),
        bytes: tfds.features.Tensor(shape=(), dtype=np.bytes_),
        int: tfds.features.Scalar(np.int64),
        float: tfds.features.Scalar(np.float32),
    }
    return tfds.features.FeaturesDict({f.name: kinds[f.type] for f in _FIELDS})


_FIELDS = dataclasses.fields(ClipRecord)


def _plain(kind: Any, value: Any) -> Any:
    return value.decode() if kind is str else kind(value)

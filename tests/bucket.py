"""A stand-in for an object store: `gs://bucket/x` is a file under `Bucket.root`, and what a store
cannot do, append and rename folders, fails.
"""

import os
from pathlib import Path

from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem
from tensorboardX import record_writer

from videobooth_jax.checkpointing import arrays
from videobooth_jax.paths import resolve


class Bucket(LocalFileSystem):
    """Files behind `gs://` paths."""

    protocol = ("gs", "gcs")
    root = ""
    cachable = False

    def __init__(self, **_):
        super().__init__(auto_mkdir=True)

    @classmethod
    def behind(cls, path):
        """The local path of a `gs://` one; others as they are."""
        path = os.fspath(path)
        return f"{cls.root}/{path[5:]}" if path.startswith("gs://") else path

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(cls.behind(path))

    def _open(self, path, mode="rb", **kwargs):
        if "a" in mode:
            raise NotImplementedError("an object store cannot append")
        return super()._open(path, mode, **kwargs)

    def mv(self, *_, **__):
        raise NotImplementedError("an object store cannot rename")


class _Events:
    def directory_check(self, path):
        pass

    def open(self, path):
        Path(Bucket.behind(path)).parent.mkdir(parents=True, exist_ok=True)
        return Path(Bucket.behind(path)).open("wb")


def stand_in_for_buckets(monkeypatch, root: Path) -> None:
    """Send `gs://` through the real `etils` path layer to files under ``root``; only Orbax, which
    has a client of its own for buckets, is led to the folder behind.
    """
    monkeypatch.setattr(Bucket, "root", str(root))
    monkeypatch.setattr(
        backend._FileSystemSpecBackend, "_get_filesystem", lambda self, name: Bucket()
    )
    monkeypatch.setitem(record_writer.REGISTERED_FACTORIES, "gs", _Events())
    for name in ("write", "start_write", "read", "read_text"):
        real = getattr(arrays, name)

        def led(path, *args, real=real, **kwargs):
            return real(resolve(Bucket.behind(path)), *args, **kwargs)

        monkeypatch.setattr(arrays, name, led)

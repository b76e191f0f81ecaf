"""Where weights lie: a file, a folder as diffusers and transformers write it, or a hub repository.

`locate` turns what a user gives into the files to read. A folder may hold its weights itself or in
a sub-folder (``unet/``, ``vae/`` of a diffusers pipeline), in one file or in shards that an index
lists. Of several spellings the first of `NAMES` is taken: full precision before half, safetensors
before pickles.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ENDINGS = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".fp16.safetensors",
    ".safetensors.index.fp16.json",
    ".fp16.bin",
    ".bin.index.fp16.json",
)
NAMES = tuple(stem + ending for ending in ENDINGS for stem in STEMS)
WEIGHT_FILE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))

Source = str | os.PathLike[str]

HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?P<inside>(/[\w.-]+)*)")


class SourceError(ValueError):
    """What was given is no file, folder or repository of weights."""


@dataclass(frozen=True)
class Folder:
    """A folder, here or on the hub: the names of its files, and how to get one as a local file.

    Names are relative, slash-separated, and reach one level of sub-folders.
    """

    where: str
    names: frozenset[str]
    get: Callable[[str], Path]


def locate(source: Source, folders: Iterable[str] = ()) -> list[Path]:
    """The files that together hold the weights ``source`` names, on this machine.

    Args:
        source: a weights file, an index file of shards, a folder, or ``owner/name`` of a hub
            repository, where a path inside it may follow. What exists here is never looked for on
            the hub.
        folders: sub-folders to look into when a folder holds no weights itself.

    Raises:
        SourceError: there is nothing, nothing that looks like weights, or an index that is damaged
            or lists files outside its folder.
        ImportError: it is on the hub and huggingface_hub is not installed.
    """
    folder, name = _open(source)
    name = name or _choose(folder, ("", *(f"{f}/" for f in folders)))
    if not name.endswith(".json"):
        return [folder.get(name)]
    return [folder.get(shard) for shard in _shards(folder, name)]


def locate_tokenizer(source: Source) -> tuple[Path, ...]:
    """``tokenizer.json``, or else CLIP's ``vocab.json`` and ``merges.txt``, in or beside a source.

    Raises:
        SourceError: there is none.
        ImportError: it is on the hub and huggingface_hub is not installed.
    """
    folder, _ = _open(source)
    for prefix in ("", "tokenizer/"):
        for files in TOKENIZERS:
            if all(prefix + file in folder.names for file in files):
                return tuple(folder.get(prefix + file) for file in files)
    raise SourceError(
        f"there is no tokenizer in {folder.where}: give the folder of the text encoder's "
        "tokenizer.json (or vocab.json and merges.txt)"
    )


def _open(source: Source) -> tuple[Folder, str | None]:
    """The folder that ``source`` is or lies in, and the name of the file if it is one."""
    path = Path(source).expanduser()
    if path.exists():
        root = path if path.is_dir() else path.parent
        files = (p for pattern in ("*", "*/*") for p in root.glob(pattern) if p.is_file())
        names = frozenset(p.relative_to(root).as_posix() for p in files)
        return Folder(str(root), names, root.joinpath), None if path.is_dir() else path.name
    if match := HUB_NAME.fullmatch(str(source)):
        return _open_hub(match["repository"], match["inside"].strip("/"))
    raise SourceError(f"there is no file or folder {source}")


def _open_hub(repository: str, inside: str) -> tuple[Folder, str | None]:
    """As `_open`, of a repository; single files are downloaded, and the hub's cache keeps them."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ImportError(
            f"there is no file or folder {repository} here, and to look on the hub huggingface_hub "
            "is needed: pip install 'videobooth_jax[hub]'"
        ) from error
    try:
        names = hub.HfApi().list_repo_files(repository)
    except Exception as error:  # the client raises errors of several libraries
        raise SourceError(
            f"there is no file or folder {repository} here, and the hub cannot list a repository "
            f"of that name: {error}"
        ) from error
    name = inside if inside in names else None
    root = str(PurePosixPath(inside).parent if name else inside).strip(".")
    start = f"{root}/" if root else ""
    below = frozenset(n.removeprefix(start) for n in names if n.startswith(start))
    where = f"{repository}/{root}".strip("/")
    folder = Folder(where, below, lambda n: Path(hub.hf_hub_download(repository, start + n)))
    return folder, name and name.removeprefix(start)


def _choose(folder: Folder, prefixes: Iterable[str]) -> str:
    wanted = [prefix + name for prefix in prefixes for name in NAMES]
    if found := next((name for name in wanted if name in folder.names), None):
        return found
    others = sorted(name for name in folder.names if name.endswith(WEIGHT_FILE))
    hint = f"; name one of {', '.join(others)} itself" if others else ""
    raise SourceError(f"{folder.where} holds no file called like {' or '.join(NAMES[:3])}{hint}")


def _shards(folder: Folder, index: str) -> list[str]:
    """The files an index lists, as names in ``folder``; only plain names beside the index count."""
    where = f"{folder.where}/{index}"
    try:
        content = json.loads(folder.get(index).read_text(encoding="utf-8"))
        shards = sorted({str(shard) for shard in content["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{where} is not an index of shards: {error!r}") from error
    if outside := [shard for shard in shards if not re.fullmatch(r"[\w-][\w.-]*", shard)]:
        raise SourceError(
            f"{where} lists {outside[0]!r}, which is no name of a file beside it: do not use it"
        )
    prefix = index.rpartition("/")[0]
    names = [f"{prefix}/{shard}".lstrip("/") for shard in shards]
    if lost := [name for name in names if name not in folder.names]:
        raise SourceError(f"{where} lists shards that are not there: {', '.join(lost)}")
    return names

"""Open PyTorch weights without running anything in them and without holding them in memory.

safetensors files need no torch; tensors are read one by one. Pickled files (``.pt``, ``.bin``) go
through torch with ``weights_only=True``, mapped into memory; one that names any function or class a
weights file has no use for is refused before that is called.
"""

import argparse
import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

WRAPPERS = ("ema", "ema_unet", "state_dict", "model")
"""Keys below which published checkpoints keep their weights; averaged ones are preferred."""


class UnreadableError(ValueError):
    """A file of weights that is damaged, of an unknown kind, or not safe to open."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: its shape is known, its numbers are read when numpy asks for them."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype=dtype)


@contextlib.contextmanager
def open_weights(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    """Name -> `LazyTensor` of one or several files, readable while the context lasts.

    float32, float16, bfloat16 and whatever else numpy or ml_dtypes know are understood.

    Raises:
        UnreadableError: a file is damaged, of an unknown kind or refused, or a name occurs twice.
        ImportError: a pickled file is given and torch is not installed.
    """
    with contextlib.ExitStack() as stack:
        tensors: dict[str, LazyTensor] = {}
        for file in files:
            opener = _open_safetensors if file.suffix == ".safetensors" else _open_pickle
            found = stack.enter_context(opener(file))
            if twice := sorted(found.keys() & tensors.keys()):
                raise UnreadableError(
                    f"{file} repeats names of other shards: {', '.join(twice[:3])}"
                )
            tensors |= found
        yield tensors


@contextlib.contextmanager
def _open_safetensors(file: Path) -> Iterator[dict[str, LazyTensor]]:
    try:
        # pread, not mmap: pages of a mapped file would count as memory of this process.
        handle = safe_open(file, framework="numpy", backend="pread")
    except (SafetensorError, OSError) as error:
        raise UnreadableError(
            f"{file} is not a whole safetensors file ({error}); download it again"
        ) from error
    with handle as opened:
        yield {
            name: LazyTensor(
                tuple(opened.get_slice(name).get_shape()), partial(opened.get_tensor, name)
            )
            for name in opened.keys()  # noqa: SIM118 (not a dict)
        }


@contextlib.contextmanager
def _open_pickle(file: Path) -> Iterator[dict[str, LazyTensor]]:
    state_dict = _unwrap(_load_pickle(file), file)
    yield {
        name: LazyTensor(tuple(tensor.shape), partial(_to_numpy, tensor))
        for name, tensor in state_dict.items()
    }


def _load_pickle(file: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{file} is a PyTorch file, and reading it needs torch: "
            "pip install 'videobooth_jax[torch]', or give a .safetensors file"
        ) from error
    try:
        # Trainers like to keep their command line beside the weights; a Namespace only holds it.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", str(error))
        reason = (
            f"it asks to run or use {named[1]}, and weights have no need to"
            if named
            else "it is no plain PyTorch file of weights; it may be damaged, or try to run code"
        )
        raise UnreadableError(
            f"{file} was refused: {reason}; get it from its publisher again, or as .safetensors"
        ) from error
    except Exception as error:  # on garbage torch fails in any way
        raise UnreadableError(
            f"{file} is damaged or not a PyTorch file; download it again ({error})"
        ) from error


def _unwrap(content: Any, file: Path) -> Mapping[str, Any]:
    """The state dict in a checkpoint, below any of `WRAPPERS`."""
    import torch

    where = "it"
    while isinstance(content, Mapping):
        tensors = [name for name, value in content.items() if isinstance(value, torch.Tensor)]
        if tensors:
            if others := [str(name) for name in content if name not in set(tensors)]:
                raise UnreadableError(
                    f"{file}: {where} mixes tensors with other things: {', '.join(others)}"
                )
            return content
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            keys = ", ".join(map(str, content)) or "nothing"
            raise UnreadableError(
                f"{file} holds no weights: {where} has {keys}, and neither tensors nor any of "
                f"{', '.join(WRAPPERS)}"
            )
        content, where = content[key], f"its {key!r}"
    raise UnreadableError(f"{file} holds a {type(content).__name__}, not a dict of weights")


def _to_numpy(tensor: Any) -> np.ndarray:
    """A copy: a view would keep the whole file mapped."""
    import torch

    tensor = tensor.detach().clone()
    if tensor.dtype == torch.bfloat16:  # numpy has no such dtype: pass the bits
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()

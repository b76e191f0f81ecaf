"""Model directories: everything needed to sample from a model, in one folder.

==================  ===================================================================
``config.json``     format version and `VideoBoothConfig`; may be edited by hand
``weights/``        all parameters (Orbax), in float32, bfloat16 or float16
``tokenizer.json``  the tokenizer, if the model has one
``manifest.json``   sizes and digests of the files above
``README.md``       model card, if there is one
==================  ===================================================================

A local directory appears under its name only when it is complete; on an object store, which cannot
rename folders, the manifest comes last and tells complete from incomplete.
"""

import json
import os
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from videobooth_jax import paths
from videobooth_jax.checkpointing import arrays, manifest
from videobooth_jax.checkpointing.manifest import DamagedError
from videobooth_jax.models.videobooth import (
    VideoBoothConfig,
    abstract_params,
    config_from_dict,
    config_to_dict,
)
from videobooth_jax.typing import Params

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "weights", "tokenizer.json", "README.md"
FORMAT_VERSION = 1
STORED = "stored"


Shardings = Sharding | Callable[[str, tuple[int, ...]], Sharding] | None


class ModelDirectoryError(ValueError):
    """A folder is no model directory, or one that is incomplete, damaged or inconsistent."""


def save_model(
    path: str | os.PathLike[str],
    config: VideoBoothConfig,
    params: Params,
    *,
    tokenizer_file: str | os.PathLike[str] | None = None,
    card: str | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model directory, completely or not at all.

    In a run of several processes, all call it.

    Args:
        path: the directory to make; its parents are made too. ``gs://`` works where its file system
            is installed.
        config: the model.
        params: its parameters, numpy or jax arrays, in any floating dtype; numpy arrays may be
            views of mapped files.
        tokenizer_file: a ``tokenizer.json`` to copy in.
        card: text of the model card, Markdown.
        dtype: dtype of the stored weights ("float32", "bfloat16", "float16"); as they are if None.
        overwrite: replace a model directory that is there. Anything else is never replaced.

    Raises:
        FileExistsError: there is something at ``path``.
        FileNotFoundError: ``tokenizer_file`` does not exist.
        ModelDirectoryError: ``params`` are not those of ``config``; every name is listed.
        OSError: ``path`` cannot be written.
    """
    target = paths.resolve(path)
    named = arrays.named_leaves(params)
    check_target(target, overwrite)
    _check_names(named, config, f"the parameters to save in {path}")
    tokenizer = epath.Path(tokenizer_file).read_bytes() if tokenizer_file else None
    draft = target if paths.is_remote(target) else target.parent / f".{target.name}.partial"
    primary = jax.process_index() == 0
    try:
        if primary:
            draft.rmtree(missing_ok=True)
            draft.mkdir(parents=True)
        arrays.write(draft / WEIGHTS, named, dtype)
        if primary:
            _write_rest(draft, config, tokenizer, card)
            manifest.seal(draft, (CONFIG, WEIGHTS, TOKENIZER), _stored(named, dtype))
            _publish(draft, target)
    except BaseException:
        if primary:
            draft.rmtree(missing_ok=True)
        raise
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"save_model {target}")


def check_target(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse early what `save_model` would refuse to replace.

    Raises:
        FileExistsError: there is something at ``path``; with ``overwrite``: and no model directory.
    """
    target = paths.resolve(path)
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists already; choose another path, or overwrite it")
    if not (target / CONFIG).exists() or not (target / WEIGHTS).is_dir():
        raise FileExistsError(
            f"{target} is not a model directory and is not overwritten; choose another path"
        )


def _stored(named: arrays.Named, dtype: str | None) -> arrays.Named:
    return {n: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype or x.dtype)) for n, x in named.items()}


def _write_rest(
    draft: epath.Path, config: VideoBoothConfig, tokenizer: bytes | None, card: str | None
) -> None:
    content = {"format_version": FORMAT_VERSION, "model": config_to_dict(config)}
    (draft / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
    if card is not None:
        (draft / CARD).write_text(card)
    if tokenizer is not None:
        (draft / TOKENIZER).write_bytes(tokenizer)


def _publish(draft: epath.Path, target: epath.Path) -> None:
    """Give the finished draft its name; what was there goes only after that succeeded."""
    if draft == target:
        return
    old = target.parent / f".{target.name}.replaced"
    old.rmtree(missing_ok=True)
    if target.exists():
        target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    old.rmtree(missing_ok=True)


def load_config(path: str | os.PathLike[str]) -> VideoBoothConfig:
    """The configuration of a model directory; reads no weights.

    Raises:
        ModelDirectoryError: no model directory, or a ``config.json`` that is unreadable, of another
            format version, or has unknown, missing or ill-fitting keys.
    """
    root = paths.resolve(path)
    if not root.is_dir():
        raise ModelDirectoryError(f"{path} is not a model directory: there is no such folder")
    if not (root / CONFIG).is_file():
        raise ModelDirectoryError(f"{path} is not a model directory: it has no {CONFIG}")
    try:
        content = json.loads((root / CONFIG).read_text())
        version, model = content["format_version"], content["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelDirectoryError(f"{root / CONFIG} is not readable: {error!r}") from error
    if version != FORMAT_VERSION:
        raise ModelDirectoryError(
            f"{root / CONFIG} has format version {version}, "
            f"and this videobooth_jax reads {FORMAT_VERSION}"
        )
    try:
        return config_from_dict(model)
    except ValueError as error:
        raise ModelDirectoryError(f"{root / CONFIG} does not describe a model: {error}") from error


def load_model(
    path: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    shardings: Shardings = None,
    networks: Collection[str] | None = None,
) -> tuple[VideoBoothConfig, Params]:
    """Read a model directory.

    Args:
        path: the directory.
        dtype: dtype of the parameters in memory, whatever they are on disk: its name, "stored" for
            as they are on disk, or None for the config's ``param_dtype``.
        shardings: a ``jax.sharding.Sharding`` for all parameters, or a function from the path and
            shape of each to its own; without it they end up uncommitted on the default device.
        networks: read these subtrees alone, such as "vae"; None: all.

    Returns:
        ``(config, params)``: params as a nested dict of jax arrays.

    Raises:
        ModelDirectoryError: the directory is missing, incomplete or damaged, or its weights are not
            those of its config; all missing, unexpected and misshapen names are listed together.
    """
    root, config = paths.resolve(path), load_config(path)
    if not (root / WEIGHTS).is_dir():
        raise ModelDirectoryError(
            f"{path} is not a complete model directory: {WEIGHTS}/ is missing"
        )
    try:
        edited = manifest.check(root, editable=(CONFIG,))
        found = manifest.arrays(root)
    except DamagedError as error:
        raise ModelDirectoryError(
            f"the model directory {path} is damaged: {error}; copy or download it again"
        ) from error
    if edited:  # save_model compared the weights with the config that was written
        _check_names(found, config, f"the weights in {path}")
    wanted = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            _dtype(config, name, leaf, dtype),
            sharding=shardings(name, leaf.shape) if callable(shardings) else shardings,
        )
        for name, leaf in found.items()
        if networks is None or name.split("/")[0] in networks
    }
    return config, unflatten_dict(
        arrays.read(root / WEIGHTS, wanted, networks is not None), sep="/"
    )


def _dtype(config: VideoBoothConfig, name: str, stored: Any, dtype: str | None) -> np.dtype:
    if dtype == STORED:
        return stored.dtype
    network = getattr(config, name.split("/")[0], config.text_encoder)  # for the contrastive head
    return jnp.dtype(dtype or network.param_dtype)


def _check_names(found: arrays.Named, config: VideoBoothConfig, what: str) -> None:
    expected = arrays.named_leaves(abstract_params(config))
    if problems := arrays.differences(found, expected):
        raise ModelDirectoryError(f"{what} are not those of its model {config.name!r}: {problems}")

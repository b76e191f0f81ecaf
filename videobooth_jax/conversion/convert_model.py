"""Published PyTorch files to one model directory: the operation behind ``videobooth convert``.

All files are first looked at by names and shapes, and whatever does not fit in any of them is
reported together. Only then are numbers read, one file after the other and tensor by tensor, so
that memory holds the result and at most one file.
"""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from videobooth_jax.checkpointing import check_target, save_model
from videobooth_jax.conversion.convert import (
    Shape,
    WeightsMismatchError,
    canonical_names,
    flax_path,
    to_flax,
    torch_name,
    torch_shapes,
)
from videobooth_jax.conversion.name_map import Table
from videobooth_jax.conversion.name_map_files import FILES, table_of
from videobooth_jax.conversion.name_map_starts import DRAWN, GROUPS, WATERMARK_TAIL, Start
from videobooth_jax.conversion.reading import open_weights
from videobooth_jax.conversion.sources import Source, locate, locate_tokenizer
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.models.image_projector import ImageProjector
from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import VideoBoothConfig, abstract_params
from videobooth_jax.typing import Params

Flat = dict[str, Any]
"""Flax path -> array, or its shape and dtype."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        path: the model directory.
        config: the model in it.
        sources: option -> the files it was read from.
        parameters: how many numbers are stored.
        dtype: and as what.
        notes: parameters that were not given, and what they start as.
    """

    path: str
    config: VideoBoothConfig
    sources: Mapping[str, tuple[str, ...]]
    parameters: int
    dtype: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.config.name}: {self.parameters:,} parameters as {self.dtype}, from"]
        lines += [f"- {name}: {', '.join(files)}" for name, files in self.sources.items()]
        if self.notes:
            lines += ["", "Not given:"] + [f"- {note}" for note in self.notes]
        return "\n".join(lines)


def convert_checkpoints(
    out: Source,
    *,
    size: str | VideoBoothConfig = "sd14",
    unet: Source | None = None,
    watermark: Source | None = None,
    mapper: Source | None = None,
    vae: Source | None = None,
    text_encoder: Source | None = None,
    vision_encoder: Source | None = None,
    tokenizer: Source | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> ConversionReport:
    """Write a model directory from PyTorch weights.

    Each source is a file, a folder or a hub repository, see `sources.locate`.

    Args:
        out: the model directory to write.
        size: a name of `SIZES`, or a configuration.
        unet: an image UNet (Stable Diffusion 1.4) or a video UNet.
        watermark: a video UNet as published in ``watermark_remove_module.pt``; instead of ``unet``.
        mapper: image projector and injected keys and values, as published in ``mapper.pt``.
        vae: the autoencoder, with old or new names of its attention.
        text_encoder: CLIP's text tower; a file of both towers will do.
        vision_encoder: CLIP's image tower; likewise.
        tokenizer: where ``tokenizer.json`` lies; by default with the text encoder.
        dtype: of the stored weights: "float32", "bfloat16" or "float16".
        overwrite: replace a model directory at ``out``.

    What may be left out, as a whole, and how it starts then: `name_map_starts`.

    Raises:
        ValueError: unknown size or dtype, or sources missing (all are named).
        FileExistsError: there is something at ``out``.
        SourceError: a source is not there.
        UnreadableError: a file is damaged, or wants to run something.
        WeightsMismatchError: names missing, unused or misshapen; those of all files together.
        ImportError: an optional package is needed; it is named.
    """
    config, one_unet = _config(size), _one_unet(unet, watermark)
    sources = _given(dtype, (one_unet, mapper, vae, text_encoder, vision_encoder))
    check_target(out, overwrite)
    files = {name: locate(source, FILES[name].folders) for name, source in sources.items()}
    words = _tokenizer(tokenizer or sources["text_encoder"], config)
    plan = _plan(files, config, dtype)
    params = _read(files, plan)
    report = ConversionReport(
        path=str(out),
        config=plan.config,
        sources={name: tuple(map(str, paths)) for name, paths in files.items()},
        parameters=sum(x.size for x in params.values()),
        dtype=dtype,
        notes=plan.notes,
    )
    _write(report, params, words, overwrite)
    return report


def _config(size: str | VideoBoothConfig) -> VideoBoothConfig:
    if isinstance(size, VideoBoothConfig):
        return size
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]


def _one_unet(unet: Source | None, watermark: Source | None) -> Source | None:
    if unet is not None and watermark is not None:
        raise ValueError("unet and watermark both name the UNet: give one of them")
    return watermark if unet is None else unet


def _given(dtype: str, sources: tuple[Source | None, ...]) -> dict[str, Source]:
    """The sources that are given, by file; all but the mapper must be."""
    if dtype not in DTYPES:
        raise ValueError(f"weights are not stored as {dtype!r}; choose one of {', '.join(DTYPES)}")
    named = dict(zip(FILES, sources, strict=True))
    given = {name: source for name, source in named.items() if source is not None}
    if missing := [f"{n} ({FILES[n].example})" for n in FILES if n not in given and n != "mapper"]:
        raise ValueError(f"these sources are missing: {', '.join(missing)}")
    return given


def _tokenizer(source: Source, config: VideoBoothConfig) -> Tokenizer:
    files = locate_tokenizer(source)
    tokenizer = Tokenizer.from_clip_files(*files) if len(files) > 1 else Tokenizer.from_file(*files)
    wanted = (config.text_encoder.vocab_size, config.text_encoder.max_position_embeddings)
    if (tokenizer.vocab_size, tokenizer.positions) != wanted:
        raise ValueError(
            f"the tokenizer {files[0]} has {tokenizer.vocab_size} words and {tokenizer.positions} "
            f"positions, but the text tower has {wanted[0]} and {wanted[1]}"
        )
    return tokenizer


@dataclass(frozen=True)
class Part:
    """One file against the part of the model it should hold.

    Attributes:
        table: its names.
        given: canonical PyTorch name -> shape of what the file holds; empty if there is no file.
        names: Flax path -> PyTorch name of what it should hold.
    """

    table: Table
    given: Mapping[str, Shape]
    names: Mapping[str, str]

    def lacks(self, paths: list[str]) -> bool:
        """Whether all of these are its parameters and none is given."""
        return all(path in self.names and self.names[path] not in self.given for path in paths)

    def without(self, paths: Iterable[str]) -> "Part":
        """The same file, no longer expected to hold these."""
        dropped = set(paths)
        return replace(self, names={p: n for p, n in self.names.items() if p not in dropped})


@dataclass(frozen=True)
class Plan:
    """What to read from which file and what to start otherwise; known from names and shapes."""

    config: VideoBoothConfig
    leaves: Flat
    parts: Mapping[str, Part]
    started: Mapping[str, Start]
    notes: tuple[str, ...]


def _plan(files: Mapping[str, list[Path]], config: VideoBoothConfig, dtype: str) -> Plan:
    """Look at the names and shapes in all files; raise on whatever does not fit."""
    leaves = {
        path: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype))
        for path, leaf in flatten_dict(abstract_params(config), sep="/").items()
    }
    head = config.contrastive_dim is not None
    parts = {n: _part(files.get(n, []), table_of(f, head), leaves) for n, f in FILES.items()}
    notes = []
    tail = [path for path in leaves if re.fullmatch(WATERMARK_TAIL, path)]
    if tail and parts["unet"].lacks(tail):
        config = replace(config, unet=replace(config.unet, watermark_channels=None))
        parts["unet"] = parts["unet"].without(tail)
        leaves = {path: leaf for path, leaf in leaves.items() if path not in set(tail)}
        notes.append("the model is made without a watermark tail")
    started: dict[str, Start] = {}
    for group in GROUPS:
        found = {path: start for path in leaves if (start := group.start(path)) is not None}
        for name, part in parts.items():
            if found and part.lacks(list(found)):
                parts[name] = part.without(found)
                started |= found
                notes.append(group.note)
    _check(parts, leaves)
    return Plan(config, leaves, parts, started, tuple(notes))


def _part(files: list[Path], table: Table, leaves: Flat) -> Part:
    with open_weights(files) as tensors:
        canonical = canonical_names(tensors, table)
        given = {name: tensors[spelled].shape for name, spelled in canonical.items()}
    names = {path: found[0] for path in leaves if (found := torch_name(path, table.rules))}
    return Part(table, given, names)


def _check(parts: Mapping[str, Part], leaves: Flat) -> None:
    missing, unused, misshapen = [], [], []
    for file, part in parts.items():
        wanted = unflatten_dict({path: leaves[path] for path in part.names}, sep="/")
        shapes = torch_shapes(wanted, part.table)
        for path, name in part.names.items():
            line = f"{file}: torch {name} {shapes[name]} -> flax {path} {leaves[path].shape}"
            if name not in part.given:
                missing.append(line)
            elif part.given[name] != shapes[name]:
                misshapen.append(f"{line}: given {part.given[name]}")
        for name in sorted(part.given.keys() - shapes.keys()):
            target = flax_path(name, part.table.rules)
            where = f"flax {target[0]}, which this model lacks" if target else "no such parameter"
            unused.append(f"{file}: torch {name} {part.given[name]}: {where}")
    if missing or unused or misshapen:
        raise WeightsMismatchError(missing, unused, misshapen)


def _read(files: Mapping[str, list[Path]], plan: Plan) -> Flat:
    """All parameters as jax arrays: those of the files, one file at a time, and the started."""
    params: Flat = {}
    for name, part in plan.parts.items():
        wanted = unflatten_dict({path: plan.leaves[path] for path in part.names}, sep="/")
        read = _read_file(files.get(name, []), wanted, part.table)
        for path in list(read):  # one after the other, so that nothing is there twice
            params[path] = jax.block_until_ready(jnp.asarray(read.pop(path)))
    drawn = _draw(plan) if DRAWN in plan.started.values() else {}
    for path, start in plan.started.items():
        leaf = plan.leaves[path]
        if isinstance(start, float):
            params[path] = jnp.full(leaf.shape, start, leaf.dtype)
        else:
            params[path] = drawn[path] if start == DRAWN else params[start]
    return params


def _read_file(files: list[Path], wanted: Params, table: Table) -> Flat:
    with open_weights(files) as tensors:
        return flatten_dict(to_flax(tensors, wanted, table), sep="/")


def _draw(plan: Plan) -> Flat:
    """The image projector's own initial parameters."""
    config = plan.config.projector
    feature = jnp.zeros((1, 2, config.input_dim), config.dtype)
    init = ImageProjector(config).init(jax.random.key(0), (feature,) * config.num_words)
    drawn = flatten_dict({"projector": init["params"]}, sep="/")
    return {path: x.astype(plan.leaves[path].dtype) for path, x in drawn.items()}


def _write(report: ConversionReport, params: Flat, tokenizer: Tokenizer, overwrite: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        save_model(
            report.path,
            report.config,
            unflatten_dict(params, sep="/"),
            tokenizer_file=Path(folder) / "tokenizer.json",
            card=f"# Converted weights\n\n{report}\n\nThe licences of the sources apply.\n",
            overwrite=overwrite,
        )

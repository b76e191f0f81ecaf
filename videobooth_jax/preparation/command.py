"""The arguments of `videobooth prepare`, and what they start."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from videobooth_jax.preparation.config import PrepareConfig, from_values

OPTIONS = {
    "min_frames": "set aside videos with fewer frames",
    "max_frames": "of longer videos keep so many, around the mask's frame",
    "min_subject_share": "set aside subjects smaller than this share of the picture",
    "max_subject_share": "set aside larger ones",
    "min_centre_share": "set aside subjects of which less lies in the centre square",
    "min_motion": "set aside what moves less, grey levels of 255 a frame of the window",
    "max_frozen_share": "set aside videos with more frames that repeat the one before",
    "resolution": "shorter side of the videos, px; none is enlarged",
    "crf": "quality of the videos, 0 to 51, lower is better",
    "max_picture_side": "longer side of the cut-outs, px",
    "segment": "without mask and box: look for the subject's words (auto), or set aside (given)",
    "mask_frame": "the frame to look in: first, or best of some",
    "mask_candidates": "how many frames best chooses from",
    "detector": "folder or hub id of auto's detector",
    "segmenter": "folder or hub id of what turns its boxes into masks",
    "noun_model": "spaCy's model, for captions without a named subject",
    "validation": "share of the videos that becomes the split validation",
    "clips_per_shard": "clips in a file",
    "timeout": "set aside what takes longer, s",
}
"""Every field of the configuration is an option of the command."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be said on the command line."""
    add = command.add_argument
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--videos", metavar="PATH", help="folder, or table .csv or .jsonl")
    what.add_argument("--published", metavar="FOLDER", help="the published dataset, unpacked")
    add("--video-root", metavar="FOLDER", help="with --published: where its videos lie")
    add("--out", required=True, metavar="FOLDER", help="an interrupted run goes on here")
    add("--workers", type=int, metavar="N", help="processes (default: one per CPU core)")
    add("--beam", action="store_true", help="run on Apache Beam; its flags follow: --runner=...")
    add("--config", metavar="FILE", help="a Python file whose get_config() sets some of these:")
    fields = command.add_argument_group("what to keep, and how")
    hints = get_type_hints(PrepareConfig)
    for field in dataclasses.fields(PrepareConfig):
        fields.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            choices=get_args(hints[field.name]) or None,
            metavar=type(field.default).__name__.upper(),
            help=f"{OPTIONS[field.name]} (default: {field.default})",
        )


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Do what was asked and say what was made."""
    config, flags = read_arguments(args, rest)
    from videobooth_jax.preparation.prepare import prepare

    inputs = _inputs(args)
    if args.beam:
        from videobooth_jax.preparation.beam import prepare_with_beam

        made = prepare_with_beam(inputs, args.out, config, flags)
    else:
        workers = args.workers or os.cpu_count() or 1
        made = prepare(inputs, args.out, config, workers)
    if made.already:
        print("the same inputs and configuration as before: nothing to do")
    print(f"{made.counts.summary()}\n{made.folder}")


def read_arguments(
    args: argparse.Namespace, rest: Sequence[str]
) -> tuple[PrepareConfig, list[str]]:
    """The configuration, file first, options over it, and flags that are left for Beam.

    Raises:
        ValueError: options that do not go together or make no sense.
        FileNotFoundError: there is no such file.
    """
    if (args.published is None) != (args.video_root is None):
        raise ValueError("--published and --video-root go together")
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    overrides = [item for item in rest if item.startswith("--config.")]
    flags = [item for item in rest if not item.startswith("--config.")]
    if flags and not args.beam:
        raise ValueError(f"unrecognized arguments: {' '.join(flags)}")
    if overrides and not args.config:
        raise ValueError("--config.FIELD=VALUE changes a --config FILE; without one: --FIELD VALUE")
    values: dict[str, Any] = {}
    if args.config:
        from videobooth_jax.config_files import read_config

        values = read_config(args.config, overrides).to_dict()
    names = [field.name for field in dataclasses.fields(PrepareConfig)]
    plain = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return from_values(values | plain), flags


def _inputs(args: argparse.Namespace) -> list[Any]:
    from videobooth_jax.preparation.published import read_published
    from videobooth_jax.preparation.reading import read_inputs

    inside = Path(args.videos or args.published).resolve()
    if args.videos and inside.is_dir() and Path(args.out).resolve().is_relative_to(inside):
        raise ValueError(f"--out {args.out} lies in --videos {args.videos}: choose another folder")
    if args.published:
        return read_published(args.published, args.video_root)
    return read_inputs(args.videos)

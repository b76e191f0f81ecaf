"""The console command ``videobooth``: generate, train, compile, evaluate, convert and more.

Everything heavy is imported inside the command that needs it, so that help and slips in the
arguments cost nothing. Expected errors are a sentence on stderr and exit status 2.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

DEBUG = "VIDEOBOOTH_DEBUG"
EXPECTED = (ValueError, OSError, ImportError)
"""Mistakes that a sentence helps to mend; all else is a bug and shows where it comes from."""
EPILOG = f"""environment:
  VIDEOBOOTH_CACHE   folder of compiled programs, or "off"; by default in your cache folder
  {DEBUG}   set to anything: show where an error comes from"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0, 1 where `compile` finds that a program does not fit, 2 for a
    mistake, 130 if interrupted.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.run not in (_train, _compile, _prepare):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nothing a user can mend
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("videobooth: interrupted", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if os.environ.get(DEBUG):
            raise
        print(f"videobooth: error: {error}", file=sys.stderr)
        return 2


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"videobooth: warning: {message}", file=sys.stderr)


def _generate(args: argparse.Namespace) -> None:
    from videobooth_jax.pipeline.command import generate

    generate(args, _hints(args))


def _segment(args: argparse.Namespace) -> None:
    from videobooth_jax.segmentation.command import segment_file

    segment_file(args.photo, args.out, overwrite=args.overwrite, **_hints(args))


def _hints(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in _HINTS}


def _train(args: argparse.Namespace) -> None:
    from videobooth_jax.compilation_cache import enable_compilation_cache
    from videobooth_jax.config_files import read_config
    from videobooth_jax.distributed import CRASH, MISTAKE, leave, start_distributed
    from videobooth_jax.training.config import from_config_dict
    from videobooth_jax.training.loop import train

    config = from_config_dict(read_config(args.config, args.rest))
    processes = (args.coordinator, args.num_processes, args.process_id)
    joined = args.distributed or processes != (None, None, None)
    if joined:
        start_distributed(*processes)
    enable_compilation_cache()
    try:
        train(config, args.workdir)
    except Exception as error:
        if not joined:
            raise
        leave(error, MISTAKE if isinstance(error, EXPECTED) else CRASH)


def _compile(args: argparse.Namespace) -> int:
    from videobooth_jax.aot.environment import set_environment
    from videobooth_jax.config_files import read_config

    values = read_config(args.config, args.rest)
    set_environment()

    from videobooth_jax.aot.command import compile_run
    from videobooth_jax.training.config import from_config_dict

    config = from_config_dict(values)
    return compile_run(config, args.topology, args.what, args.out, args.rest)


def _prepare(args: argparse.Namespace) -> None:
    from videobooth_jax.preparation.command import run

    run(args, args.rest)


def _precompute(args: argparse.Namespace) -> None:
    from videobooth_jax.precompute.command import run

    run(args)


def _evaluate(args: argparse.Namespace) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the measures' products are small

    from videobooth_jax.compilation_cache import enable_compilation_cache
    from videobooth_jax.evaluation.suite import run_sprites_suite
    from videobooth_jax.pipeline import VideoBoothPipeline
    from videobooth_jax.sharding import MeshSizes, make_mesh

    enable_compilation_cache()
    result = run_sprites_suite(
        VideoBoothPipeline.from_pretrained(args.model, mesh=make_mesh(MeshSizes())),
        videos=args.videos,
        injection=args.injection,
        split=args.split,
        seed=args.seed,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        sampler=args.sampler,
        progress=True,
        out=args.out,
    )
    print(result.summary())
    if args.out:
        print(f"in full: {args.out}")


def _convert(args: argparse.Namespace) -> None:
    from videobooth_jax.conversion.convert_model import convert_checkpoints

    report = convert_checkpoints(
        args.out,
        size=args.size,
        dtype=args.dtype,
        overwrite=args.overwrite,
        **{name: getattr(args, name) for name in _SOURCES},
    )
    print(f"{report}\n\nwritten to {report.path}")


def _export(args: argparse.Namespace) -> None:
    from videobooth_jax.conversion.export_model import export_checkpoints
    from videobooth_jax.pipeline import find_model

    files = export_checkpoints(
        find_model(args.model), args.out, dtype=args.dtype, overwrite=args.overwrite
    )
    print(*files, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videobooth",
        description="From one picture of a subject and a sentence, a video of that very subject.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, add_arguments, text in _COMMANDS:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        add_arguments(command)
    return parser


class _Version(argparse.Action):
    """Look the version up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from videobooth_jax import __version__

        print(__version__)
        parser.exit()


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", default="sprites", help='model directory, or "sprites", the one inside (default)'
    )


def _add_sampling(command: argparse.ArgumentParser) -> None:
    own = "(default: the model's own)"
    command.add_argument("--steps", type=int, metavar="N", help=f"denoising steps {own}")
    command.add_argument("--sampler", metavar="NAME", help=f"ddpm, ddim or dpmpp_2m {own}")
    command.add_argument(
        "--guidance", type=float, metavar="SCALE", help=f"weight of prompt and picture {own}"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")


def _add_generate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--image", required=True, metavar="FILE", help="picture of the subject")
    _add_subject(command)
    add("--prompt", required=True, metavar="TEXT", help="what happens")
    add("--out", required=True, metavar="FILE", help=".mp4, .gif, .webp, or .png contact sheet")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add("--count", type=int, default=1, metavar="N", help="how many videos (default: 1)")
    add("--frames", type=int, metavar="N", help="frames per video (default: the model's own)")
    add(
        "--injection",
        default="fine",
        help="what the picture does: fine (all; default), coarse (its words only), text (nothing)",
    )
    _add_model(command)
    _add_sampling(command)


def _add_segment(command: argparse.ArgumentParser) -> None:
    command.add_argument("photo", metavar="PHOTO", help="picture of the subject")
    _add_subject(command)
    add = command.add_argument
    add("--out", required=True, metavar="FILE.png", help="the cut-out; FILE_overlay.png shows it")
    add("--overwrite", action="store_true", help="replace the files if they exist")


def _add_subject(command: argparse.ArgumentParser) -> None:
    for name, (metavar, text) in _HINTS.items():
        form: dict[str, Any] = {"required": True} if name == "subject" else {}
        form |= {"type": numbers} if name in ("box", "point") else {}
        command.add_argument(f"--{name}", metavar=metavar, help=text, **form)


def numbers(text: str) -> list[float]:
    """Of "1,2.5": [1, 2.5]; argparse shows the name of this function to people."""
    return [float(number) for number in text.split(",")]


def _add_train(command: argparse.ArgumentParser) -> None:
    command.usage = "videobooth train --config FILE --workdir FOLDER [--config.FIELD=VALUE ...]"
    command.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="a Python file, see configs/; --config.optimizer.learning_rate=3e-4 sets a field",
    )
    command.add_argument(
        "--workdir",
        required=True,
        metavar="FOLDER",
        help="checkpoints, logs and the finished model; a run that was stopped goes on here",
    )
    several = command.add_argument_group("several processes", "one run on several machines")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="join the others as Cloud TPU, GKE, Slurm or Open MPI say; elsewhere give all of:",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")


def _add_compile(command: argparse.ArgumentParser) -> None:
    command.usage = (
        "videobooth compile --config FILE --topology v5e:16x16 [--config.FIELD=VALUE ...]"
    )
    add = command.add_argument
    add("--config", required=True, metavar="FILE", help="of a training run, see train")
    add("--topology", required=True, metavar="NAME", help="of TPUs, such as v5e:2x4 or v5p:4x4x8")
    add(
        "--what",
        default="train",
        choices=["train", "sample"],
        help="a training step (default), or a denoising step of as many videos",
    )
    add("--out", metavar="FILE", help="write the report as JSON, too; replaces the file")


def _add_prepare(command: argparse.ArgumentParser) -> None:
    from videobooth_jax.preparation.command import add_arguments

    add_arguments(command)


def _add_precompute(command: argparse.ArgumentParser) -> None:
    from videobooth_jax.precompute.command import add_arguments

    add_arguments(command)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--suite", default="sprites", choices=["sprites"], help="what to measure (default)")
    add("--videos", type=int, default=240, metavar="N", help="how many videos (default: 240)")
    add(
        "--injection",
        default="fine",
        help="fine (default), coarse, text, or truth: the suite's own videos",
    )
    add("--split", default="test", help="of the nouns: test (default), validation, train")
    add("--out", metavar="FOLDER", help="folder for all figures and a contact sheet")
    _add_model(command)
    _add_sampling(command)


def _add_convert(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    for name, text in _SOURCES.items():
        add(f"--{name.replace('_', '-')}", metavar="SOURCE", help=text)
    add("--out", required=True, metavar="FOLDER", help="model directory to write")
    add("--size", default="sd14", help='"sd14" (default) or "sprites"')
    add("--dtype", default="float32", help="to store: float32 (default), bfloat16 or float16")
    add("--overwrite", action="store_true", help="replace a model directory that exists")


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    _add_model(command)
    add("--out", required=True, metavar="FOLDER", help="where to write the .safetensors files")
    add("--dtype", help="float32, bfloat16 or float16 (default: as stored)")
    add("--overwrite", action="store_true", help="replace files that exist")


_SOURCES = {
    "unet": "image or video UNet; each SOURCE is a file, a folder or a hub id",
    "watermark": "watermark_remove_module.pt, the published video UNet; instead of --unet",
    "mapper": "mapper.pt, the published projector and injected keys and values",
    "vae": "autoencoder",
    "text_encoder": "CLIP's text tower, or both towers",
    "vision_encoder": "CLIP's image tower, or both towers",
    "tokenizer": "where tokenizer.json lies (default: with the text encoder)",
}
_HINTS = {
    "subject": ("WORD", "word for what the picture shows"),
    "segment": ("METHOD", "how to tell it: auto (by its word), mask, alpha, box, none (default: "
                "as the picture and the hints allow)"),
    "mask": ("FILE", "picture that is bright where the subject is"),
    "box": ("X1,Y1,X2,Y2", "corners around the subject, px"),
    "point": ("X,Y", "a pixel of the subject"),
    "detector": ("SOURCE", "GroundingDINO for auto: a folder or a hub id"),
    "segmenter": ("SOURCE", "SAM for auto: a folder or a hub id"),
}  # fmt: skip
_COMMANDS = (
    ("generate", _generate, _add_generate, "make videos of the subject of a picture"),
    ("segment", _segment, _add_segment, "cut the subject out of a photo"),
    ("train", _train, _add_train, "train a model, or go on training it"),
    ("compile", _compile, _add_compile, "tell, without a TPU, what a run needs of one"),
    ("prepare", _prepare, _add_prepare, "make a training set of videos"),
    ("precompute", _precompute, _add_precompute, "encode training clips once, to train faster"),
    ("evaluate", _evaluate, _add_evaluate, "measure a model"),
    ("convert", _convert, _add_convert, "make a model directory of PyTorch weights"),
    ("export", _export, _add_export, "write a model as PyTorch-named safetensors"),
)

if __name__ == "__main__":
    sys.exit(main())

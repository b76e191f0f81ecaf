"""``videobooth generate``: from the arguments of a command to files of videos."""

import argparse
import time
from typing import Any

from videobooth_jax.compilation_cache import enable_compilation_cache
from videobooth_jax.outputs import check_output
from videobooth_jax.pipeline.requests import SamplingOptions, check_request
from videobooth_jax.pipeline.video_pipeline import VideoBoothPipeline
from videobooth_jax.segmentation.command import segment_photo


def generate(args: argparse.Namespace, hints: dict[str, Any]) -> None:
    """Write the videos that ``args`` ask for, and say what was made.

    Args:
        args: of the command.
        hints: how to tell the subject, see `segment_photo`.

    Raises:
        ValueError: what cannot be done, before the weights are read.
        OSError: the files cannot be read or written.
    """
    started = time.monotonic()
    check_output(args.out, args.count, args.overwrite)
    options: SamplingOptions = {
        "num_frames": args.frames,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "sampler": args.sampler,
        "injection": args.injection,
    }
    drawn = {"seed": args.seed, "count": args.count}
    check_request(args.model, args.prompt, args.subject, **drawn, **options)
    image = segment_photo(args.image, **hints).square()
    enable_compilation_cache()
    output = VideoBoothPipeline.from_pretrained(args.model)(
        args.prompt,
        image,
        args.subject,
        segment="none",
        box=(0, 0, *image.shape[:2]),  # all of the square, white margins too
        progress=True,
        **drawn,
        **options,
    )
    files = output.save(args.out, overwrite=args.overwrite)
    count, frames, height, width, _ = output.frames.shape
    what = "1 video" if count == 1 else f"{count} videos"
    seconds = time.monotonic() - started
    print(f"{what} of {frames} frames, {width}x{height} px, in {seconds:.1f} s:")
    print(*files, sep="\n")

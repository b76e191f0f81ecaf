"""The sprites suite: videos of nouns the model never saw, judged by `sprite_measures`.

Video i is example i of the world's source: nouns take turns, and with every turn of a noun its
design, motion and background change, so that any number of videos is balanced. The image prompt is
the example's own, drawn in another pose than the example's video. Nothing is picked by hand.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from videobooth_jax.data.sprites import SpriteExample, SpritesConfig, SpritesSource
from videobooth_jax.evaluation import sprite_measures
from videobooth_jax.evaluation.report import SuiteResult, VideoRow, save_report, shares_of
from videobooth_jax.models.videobooth import VideoBoothConfig
from videobooth_jax.pipeline import INJECTIONS, VideoBoothPipeline
from videobooth_jax.pipeline.requests import make_plan
from videobooth_jax.typing import Frames

TRUTH = "truth"
"""Instead of an injection: measure the world's own videos, the ceiling of every figure."""
SHOWN = 40


def run_sprites_suite(
    pipeline: VideoBoothPipeline,
    *,
    videos: int = 240,
    injection: str = "fine",
    split: str = "test",
    seed: int = 0,
    batch_size: int = 16,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    progress: bool | Callable[[int, int], None] = False,
    out: str | Path | None = None,
) -> SuiteResult:
    """Make ``videos`` videos and measure identity, motion and background.

    Args:
        pipeline: the model; the world is drawn at its length and size.
        videos: how many, the first of the split.
        injection: "fine", "coarse", "text", or "truth" for the world's own videos.
        split: of the nouns: "test", "validation" or "train".
        seed: of the world's poses and of the sampler's noise.
        batch_size: most videos made at once; changes no figure.
        num_inference_steps, guidance_scale, sampler: the model's own choice where None.
        progress: as for the pipeline; with a bar, measuring shows one too.
        out: folder for ``result.json`` and ``videos.png`` (the first 40 videos); None: no files.

    Raises:
        ValueError: an unknown injection or split, a number of videos the split does not have, or an
            option the model cannot do; before anything is compiled.
        OSError: ``out`` cannot be written to.
    """
    world = sprites_world(pipeline.config, split, seed)
    _check(injection, videos, len(world))
    chosen = (sampler, num_inference_steps, guidance_scale)
    sampling = {} if injection == TRUTH else _resolved(pipeline.config, *chosen)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    examples = [SpritesSource(world)[i] for i in range(videos)]
    started = time.monotonic()
    options = {"seed": seed, "batch_size": batch_size, "progress": progress, **sampling}
    frames = _make(pipeline, examples, injection, options)
    made = time.monotonic()
    rows = measure(world, examples, frames, bar=progress is True)
    result = SuiteResult(
        suite="sprites",
        model=pipeline.config.name,
        injection=injection,
        split=split,
        videos=videos,
        seed=seed,
        sampling=sampling,
        world=dataclasses.asdict(world),
        seconds={"making": made - started, "measuring": time.monotonic() - made},
        shares=shares_of(rows),
        rows=rows,
    )
    if out is not None:
        save_report(out, result, [e["image_prompt"] for e in examples[:SHOWN]], frames[:SHOWN])
    return result


def _check(injection: str, videos: int, available: int) -> None:
    if injection not in (*INJECTIONS, TRUTH):
        known = ", ".join((*INJECTIONS, TRUTH))
        raise ValueError(f"unknown injection {injection!r}; choose one of {known}")
    if not 1 <= videos <= available:
        raise ValueError(f"videos must be between 1 and {available}, not {videos}")


def sprites_world(config: VideoBoothConfig, split: str, seed: int) -> SpritesConfig:
    """The world a model is judged in: the training world's rules at the model's length and size."""
    if config.height != config.width:
        raise ValueError(
            f"the sprites suite needs a model of square videos, not {config.height}x{config.width}"
        )
    return SpritesConfig(
        split=split, resolution=config.height, num_frames=config.num_frames, seed=seed
    )


def measure(
    world: SpritesConfig, examples: Sequence[SpriteExample], frames: Frames, bar: bool = False
) -> tuple[VideoRow, ...]:
    """Judge videos uint8 (b, f, h, w, 3) of b examples; rows in the order of the examples.

    Videos of one noun are judged one after the other, so that its designs are drawn once.
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i]["noun"])
    rows = {}
    for i in tqdm(order, desc="measure", unit="video", disable=not bar):
        rows[i] = _row(world, i, examples[i], frames[i])
    return tuple(rows[i] for i in range(len(examples)))


def _row(world: SpritesConfig, index: int, example: SpriteExample, video: np.ndarray) -> VideoRow:
    identity = sprite_measures.identity(video, example["noun"], world)
    return VideoRow(
        index=index,
        prompt=example["prompt"],
        subject=example["subject"],
        noun=example["noun"],
        asked={
            "identity": example["style"],
            "motion": example["motion"],
            "background": example["background"],
        },
        seen={
            "identity": identity.style,
            "motion": sprite_measures.motion(video),
            "background": sprite_measures.background(video),
        },
        distances=identity.distances,
    )


def _resolved(
    config: VideoBoothConfig, sampler: str | None, steps: int | None, guidance: float | None
) -> dict[str, Any]:
    """Options with the model's own choices filled in. Raises ValueError for impossible ones."""
    plan, scale = make_plan(
        config, {"sampler": sampler, "num_inference_steps": steps, "guidance_scale": guidance}
    )
    return {
        "sampler": plan.sampler,
        "num_inference_steps": plan.num_inference_steps,
        "guidance_scale": scale,
    }


def _make(
    pipeline: VideoBoothPipeline,
    examples: Sequence[SpriteExample],
    injection: str,
    options: dict[str, Any],
) -> Frames:
    """A video for each example, from its image prompt and sentence; or its own video."""
    if injection == TRUTH:
        return np.stack([example["video"] for example in examples])
    return pipeline(
        prompt=[example["prompt"] for example in examples],
        image=[example["image_prompt"] for example in examples],
        subject=[example["subject"] for example in examples],
        injection=injection,
        cut_out=False,
        **options,
    ).frames

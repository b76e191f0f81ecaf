"""What one guided denoising step of the full-size model costs, on random weights, as JSON.

    python benchmarks/denoise_step.py --mode single --count-only   # counts only, needs no memory
    python benchmarks/denoise_step.py --mode single                # and seconds and peak memory
    JAX_PLATFORMS=cpu python benchmarks/denoise_step.py --profile  # and where the seconds go

One video of 16 frames at 256 x 256 (latents 32 x 32), 77 text positions, watermark tail and
guidance on. Modes: ``replicated``, the published way, one noised copy of the exemplar per frame;
``single``, one copy; ``reused``, its keys and values made once before and looked up. FLOPs are 2
per multiply-add of matmuls and convolutions; bytes are an upper estimate, see `costs`.
"""

import argparse
import dataclasses
import functools
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
from measuring import counts, fill, timed
from profiling import seconds_by_part

from videobooth_jax.costs import count_costs
from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import VideoBoothConfig, abstract_params, with_dtypes
from videobooth_jax.pipeline import programs
from videobooth_jax.pipeline.programs import Conditioning
from videobooth_jax.pipeline.requests import Plan, make_plan

MODES = ("replicated", "single", "reused")


def full_size(mode: str, size: str, dtype: str) -> tuple[VideoBoothConfig, Plan]:
    config = with_dtypes(SIZES[size], dtype=dtype, param_dtype=dtype)
    exemplar_mode = "replicated" if mode == "replicated" else "single"
    diffusion = dataclasses.replace(config.diffusion, exemplar_mode=exemplar_mode)
    config = dataclasses.replace(config, diffusion=diffusion)
    return config, make_plan(config, {})[0]


def step_inputs(config: VideoBoothConfig, plan: Plan, mode: str) -> tuple[Any, ...]:
    """Shapes of what `programs.denoise` takes besides configuration and plan."""
    params = abstract_params(config)
    spec = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    side = config.vision_encoder.image_size
    subject = jax.eval_shape(
        functools.partial(programs.read_subject, config, plan.num_frames),
        params,
        spec((1, side, side, 3), jnp.float32),
        spec((1, plan.height, plan.width, 3), jnp.float32),
        spec((1, config.text_encoder.max_position_embeddings), jnp.int32),
        spec((1,), jnp.int32) if mode == "reused" else None,
        key,
    )
    scale = spec((), jnp.float32)
    conditioning = Conditioning(subject.null_states, subject, scale)
    latents = spec((1, *config.latent_shape(plan.num_frames)), jnp.float32)
    return params, conditioning, latents, spec((1,), jnp.int32), key


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, default="replicated")
    parser.add_argument("--size", choices=sorted(SIZES), default="sd14")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps after one to warm up")
    parser.add_argument("--count-only", action="store_true")
    parser.add_argument("--profile", action="store_true", help="one step more: where seconds go")
    args = parser.parse_args()
    config, plan = full_size(args.mode, args.size, args.dtype)
    specs = step_inputs(config, plan, args.mode)
    step = jax.jit(functools.partial(programs.denoise, config, plan))
    costs = count_costs(step, *specs)
    report = {
        "mode": args.mode,
        "size": args.size,
        "dtype": args.dtype,
        **counts(costs),
    }
    if not args.count_only:
        started = time.perf_counter()
        compiled = step.lower(*specs).compile()
        report["compile_seconds"] = round(time.perf_counter() - started, 1)
        inputs = fill(specs)

        def run() -> None:
            jax.block_until_ready(compiled(*inputs))

        report |= timed(run, args.repeats)
        if args.profile:
            report["seconds_by_part"] = seconds_by_part(run, compiled.as_text())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

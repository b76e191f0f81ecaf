"""Kind of case -> what runs it; and running one."""

from collections.abc import Callable
from typing import Any

import jax

from parity.bounds import measure
from parity.cases import Case
from parity.diffusion_runners import run_tables, run_toy
from parity.image_runners import run_image_prompt
from parity.tower_runners import run_clip_text, run_clip_vision, run_projector, run_vae
from parity.train_runner import run_train_step
from parity.unet_runners import run_sample_loop, run_unet, run_unet_guided

RUNNERS: dict[str, Callable[[Case, str], dict[str, Any]]] = {
    "unet": run_unet,
    "unet_guided": run_unet_guided,
    "clip_vision": run_clip_vision,
    "projector": run_projector,
    "clip_text": run_clip_text,
    "vae": run_vae,
    "diffusion_tables": run_tables,
    "diffusion_toy": run_toy,
    "sample_loop": run_sample_loop,
    "train_step": run_train_step,
    "image_prompt": run_image_prompt,
}
"""Kind -> (case, precision) -> role -> array, in the axes the published code stores."""


def run(case: Case, precision: str) -> dict[str, Any]:
    """Produce the outputs of a case.

    Raises ValueError if no runner knows its kind.
    """
    if case.kind not in RUNNERS:
        raise ValueError(
            f"{case.name}: no runner for cases of kind {case.kind!r}; there are {sorted(RUNNERS)}"
        )
    with jax.enable_x64(precision == "float64"):
        return jax.device_get(RUNNERS[case.kind](case, precision))


def run_and_measure(case: Case, precision: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Role -> bound -> (measured, largest allowed)."""
    return measure(case, run(case, precision), precision)

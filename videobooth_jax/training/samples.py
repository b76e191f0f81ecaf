"""What a model in training makes of a few examples, as one picture for TensorBoard.

The examples come from the data the run trains on, so that any source will do; each row shows the
image prompt, the true frames, and below them the model's own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from videobooth_jax.diffusion.samplers import sample_steps
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.outputs import contact_sheet
from videobooth_jax.pipeline import programs
from videobooth_jax.pipeline.requests import make_plan, sampler_of
from videobooth_jax.training.config import ObjectiveConfig, TrainConfig
from videobooth_jax.training.losses import (
    Batch,
    bound,
    condition,
    encode_pixels,
    pixels_as_floats,
)
from videobooth_jax.training.stopping import Stopped
from videobooth_jax.typing import Frames, Params

MOST = 4


def injection_of(objective: ObjectiveConfig) -> str:
    """How the pipeline is told to use the picture, for a model trained on this objective."""
    if not objective.words:
        return "text"
    return "fine" if objective.exemplar else "coarse"


def sample_grid(
    config: TrainConfig, params: Params, batch: Batch, stopped: Stopped = lambda: False
) -> np.ndarray | None:
    """A picture uint8 (height, width, 3) of the first rows of ``batch``; None for a task that
    makes no pictures, or once ``stopped`` (asked between sampling steps) says so.

    Diffusion: videos sampled as the pipeline would, from noise of ``config.seed``. Autoencoder:
    reconstructions.
    """
    rows = {name: x if name == "null_ids" else x[:MOST] for name, x in batch.items()}
    rows = pixels_as_floats(rows)
    grids = {"diffusion": _videos, "autoencoder": _reconstructions}
    if config.task not in grids:
        return None
    shown, made = grids[config.task](config, params, rows, stopped)
    if made is None:
        return None
    pairs = np.stack([shown, made], axis=1)
    return contact_sheet(pairs.reshape(-1, *pairs.shape[2:]))


def _videos(
    config: TrainConfig, params: Params, batch: Batch, stopped: Stopped
) -> tuple[Frames, Frames | None]:
    model = VideoBooth(config.model)
    key = jax.random.key(config.seed)
    batch = encode_pixels(model, params, batch)
    latents = jnp.asarray(batch["latents"])
    count, frames, height, width, _ = latents.shape
    plan, scale = make_plan(
        config.model,
        {
            "num_frames": frames,
            "height": height * config.model.vae.downsampling,
            "width": width * config.model.vae.downsampling,
            "injection": injection_of(config.objective),
        },
    )
    told = condition(model, params, batch, config.objective.words)
    exemplar = batch.get("exemplar_latents", latents[:, :1])
    subject = programs.Subject(told.words, jnp.asarray(exemplar)[:, 0], told.null_states[:1])
    conditioning = programs.Conditioning(told.states, subject, jnp.float32(scale))
    keys = jax.random.split(key, count)
    shown = np.asarray(
        programs.decode(config.model, params, jnp.concatenate([exemplar, latents], axis=1))
    )
    denoise = programs.denoiser(config.model, plan, params, conditioning)
    noise = programs.start(config.model, plan, keys)
    for _, sampled, _ in sample_steps(sampler_of(config.model, plan), denoise, noise, keys):
        sampled.block_until_ready()
        if stopped():
            return shown, None
    made = programs.decode(config.model, params, sampled)
    return shown, np.concatenate([np.full_like(shown[:, :1], 255), made], axis=1)


def _reconstructions(
    config: TrainConfig, params: Params, batch: Batch, stopped: Stopped
) -> tuple[Frames, Frames | None]:
    pictures = jnp.concatenate([batch["vae_image"][:, None], batch["video"]], axis=1)
    mean, _ = bound(VideoBooth(config.model), params)(pictures, method="encode")
    made = programs.decode(config.model, params, mean)
    return np.asarray(programs.levels(pictures)), np.asarray(made)

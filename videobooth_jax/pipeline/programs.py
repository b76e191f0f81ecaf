"""The compiled parts of the pipeline: reading pictures, reading prompts, and the sampling loop.

Pure functions of arrays; model configuration and `Plan` are static, so equal requests share one
program. Everything random comes from one key per video (or per subject).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float, Int, UInt8

from videobooth_jax.diffusion.gaussian import noise_exemplar
from videobooth_jax.diffusion.guidance import guide
from videobooth_jax.diffusion.samplers import Denoise, initial_latents, sample
from videobooth_jax.models.clip import word_sources
from videobooth_jax.models.videobooth import VideoBooth, VideoBoothConfig
from videobooth_jax.pipeline.requests import Plan, sampler_of, schedule_of
from videobooth_jax.typing import (
    Array,
    ExemplarKV,
    Ids,
    Images,
    Keys,
    Latents,
    Params,
    TextStates,
    Timesteps,
    Words,
)


@struct.dataclass
class Subject:
    """What the networks know about s pictures; reusable for any prompts and seeds.

    Attributes:
        words: image words (s, num_words, d); None where none are wanted.
        latents: scaled autoencoder latents (s, h, w, c), not noised.
        null_states: text states (1, n, d) of the null prompt, which the exemplar is shown with.
        features: keys and values of the exemplar at k timesteps, every leaf (k, s, n, channels);
            None: they are made anew at every step, for every video.
        timesteps: (k,) original timesteps of the features, descending; a single 0 where the model
            is shown the exemplar clean.
    """

    words: Words | None
    latents: Images
    null_states: TextStates
    features: ExemplarKV | None = None
    timesteps: Timesteps | None = None


@struct.dataclass
class Conditioning:
    """All that steers b videos.

    Attributes:
        text_states: (b, n, d), image words included.
        subject: pictures, one per video or one for all.
        guidance_scale: (), float32.
    """

    text_states: TextStates
    subject: Subject
    guidance_scale: Float[Array, ""]


@jax.jit
def video_keys(seed: Array, indices: Int[Array, "batch"]) -> Keys:
    """One key per video, of the seed () and the video's index in the request."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(indices)


@functools.partial(jax.jit, static_argnames=("config", "num_frames"))
def read_subject(
    config: VideoBoothConfig,
    num_frames: int,
    params: Params,
    clip_images: Images,
    vae_images: Images,
    null_ids: Ids,
    timesteps: Int[Array, "steps"] | None,
    keys: Keys,
) -> Subject:
    """What s pictures say, with the exemplar's features at ``timesteps`` (k,) unless None.

    Latents are the mean of the autoencoder's posterior. The noise of features depends on the keys
    (s,) and the place among the timesteps alone.
    """
    apply = _model(config, params)
    latents, _ = apply(vae_images, method="encode")
    subject = Subject(
        words=apply(clip_images, method="image_words"),
        latents=latents.astype(jnp.float32),
        null_states=apply(null_ids, method="text_states"),
    )
    if timesteps is None:
        return subject

    def at_step(_: None, step: Array) -> tuple[None, ExemplarKV]:
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
        rows = jnp.broadcast_to(timesteps[step], keys.shape)
        return None, _show(config, num_frames, params, subject, rows, step_keys)

    steps = jnp.arange(timesteps.shape[0], dtype=jnp.int32)
    _, features = jax.lax.scan(at_step, None, steps)
    return dataclasses.replace(subject, features=features, timesteps=timesteps)


@functools.partial(jax.jit, static_argnames="config")
def read_prompts(
    config: VideoBoothConfig, params: Params, ids: Ids, placeholder: Ids, words: Words | None
) -> TextStates:
    """States (b, n, d) of prompts (b, n).

    ``words``, of one row per prompt or one for all, replace the placeholder unless they are None.
    """
    encode = functools.partial(_model(config, params), method="text_states")
    if words is None:
        return encode(ids)
    source = word_sources(ids, placeholder, config.projector.num_words)
    return encode(ids, source, _per_row(words, ids.shape[0]))


@functools.partial(jax.jit, static_argnames=("config", "plan"))
def make_videos(
    config: VideoBoothConfig,
    plan: Plan,
    params: Params,
    conditioning: Conditioning,
    noise: Latents,
    keys: Keys,
) -> UInt8[Array, "batch frames height width 3"]:
    """The whole sampling loop from `start` as one scan, and decoding: finished frames."""
    latents = sample(
        sampler_of(config, plan), denoiser(config, plan, params, conditioning), noise, keys
    )
    return decode(config, params, latents)


@functools.partial(jax.jit, static_argnames="config")
def decode(
    config: VideoBoothConfig, params: Params, latents: Latents
) -> UInt8[Array, "batch frames height width 3"]:
    """Frames of clean latents, 0..255."""
    return levels(_model(config, params)(latents, method="decode"))


def levels(pictures: Array) -> UInt8[Array, "..."]:
    """Pictures of any shape in [-1, 1] as 0..255."""
    rounded = jnp.round((pictures.astype(jnp.float32) + 1) * 127.5)
    return jnp.clip(rounded, 0, 255).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames=("config", "plan"))
def start(config: VideoBoothConfig, plan: Plan, keys: Keys) -> Latents:
    """Starting noise (b, f, h, w, c), float32, one key per video."""
    shape = config.latent_shape(plan.num_frames, plan.height, plan.width)
    return initial_latents(keys, shape)


@functools.partial(jax.jit, static_argnames=("config", "plan"))
def denoise(
    config: VideoBoothConfig,
    plan: Plan,
    params: Params,
    conditioning: Conditioning,
    latents: Latents,
    timesteps: Timesteps,
    keys: Keys,
) -> Latents:
    """One prediction for (b, f, h, w, c) latents, guided if the plan says so.

    The unconditional branch of guidance has the null prompt and takes no exemplar. Both branches
    go through the UNet as one batch of 2 b rows, those of a video side by side, so that a batch
    that is split over devices stays where it is; or one after the other, ``plan.branches``.
    """
    exemplar = _exemplar(config, plan, params, conditioning.subject, timesteps, keys)
    predict = functools.partial(_model(config, params), method="denoise", kv=plan.kv)
    states = conditioning.text_states
    if not plan.guided:
        return predict(latents, timesteps, states, exemplar=exemplar)
    null_states = _per_row(conditioning.subject.null_states, latents.shape[0])
    if plan.branches == "apart":
        told = predict(latents, timesteps, states, exemplar=exemplar)
        untold = predict(latents, timesteps, null_states)
    else:
        both = functools.partial(jax.tree.map, lambda x: _side_by_side(x, x))
        prediction = predict(
            both(latents),
            both(timesteps),
            _side_by_side(states, null_states),
            exemplar=both(exemplar),
            exemplar_rows=jnp.arange(2 * latents.shape[0]) % 2 == 0,
        )
        branches = prediction.reshape(-1, 2, *prediction.shape[1:])
        told, untold = branches[:, 0], branches[:, 1]
    return guide(told, untold, conditioning.guidance_scale, config.diffusion.guided_channels)


def _side_by_side(x: Array, y: Array) -> Array:
    """Two arrays (b, ...) as (2 b, ...), row by row in turn."""
    return jnp.stack([x, y], axis=1).reshape(2 * x.shape[0], *x.shape[1:])


def denoiser(
    config: VideoBoothConfig, plan: Plan, params: Params, conditioning: Conditioning
) -> Denoise:
    """`denoise` with all but latents, timesteps and keys bound, as the samplers want it."""
    return functools.partial(denoise, config, plan, params, conditioning)


def _exemplar(
    config: VideoBoothConfig,
    plan: Plan,
    params: Params,
    subject: Subject,
    timesteps: Timesteps,
    keys: Keys,
) -> ExemplarKV | None:
    """The exemplar's keys and values for every row at this step: looked up, or made anew."""
    if plan.injection != "fine":
        return None
    if subject.features is None:
        return _show(config, plan.num_frames, params, subject, timesteps, keys)
    # Where the exemplar is shown clean, its one timestep is not the video's; argmax gives 0 then.
    step = jnp.argmax(subject.timesteps == timesteps[0])
    return jax.tree.map(lambda leaf: _per_row(leaf[step], timesteps.shape[0]), subject.features)


def _show(
    config: VideoBoothConfig,
    num_frames: int,
    params: Params,
    subject: Subject,
    timesteps: Timesteps,
    keys: Keys,
) -> ExemplarKV:
    """Keys and values of the subject for rows (b,), noised as the model wants them."""
    settings, batch = config.diffusion, timesteps.shape[0]
    latents = _per_row(subject.latents, batch)
    if settings.exemplar_timestep == "zero":
        copies, timesteps = latents[:, None], jnp.zeros_like(timesteps)
    else:
        count = num_frames if settings.exemplar_mode == "replicated" else 1
        copies = noise_exemplar(schedule_of(config), latents, timesteps, keys, count)
    null_states = _per_row(subject.null_states, batch)
    return _model(config, params)(copies, timesteps, null_states, method="exemplar_keys_values")


def _model(config: VideoBoothConfig, params: Params) -> Callable[..., Any]:
    """Apply the model's methods, by name, to these weights."""
    return functools.partial(VideoBooth(config).apply, {"params": params})


def _per_row(x: Array, batch: int) -> Array:
    """(1 or batch, ...) to (batch, ...)."""
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))

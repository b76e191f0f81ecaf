"""What each task minimises, as pure functions of parameters, a batch and its random draws.

Three tasks share one loop:

- ``diffusion``: the denoising loss of the paper (eq. 1) with the embedding regulariser; base,
  coarse and fine differ only in :class:`~.config.ObjectiveConfig`.
- ``autoencoder``: squared error plus a small KL term (a plain VAE bound).
- ``clip``: two symmetric InfoNCE terms, sentence <-> first frame and image prompt <-> first frame.

Randomness is drawn apart (:func:`draw`), so that stored draws can stand in for it.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from videobooth_jax.data.image_prompt import clip_input, clip_normalised, vae_input
from videobooth_jax.diffusion import gaussian
from videobooth_jax.diffusion.schedules import NoiseSchedule
from videobooth_jax.models.clip import word_sources
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.training.config import ObjectiveConfig
from videobooth_jax.typing import Array, Latents, Params, TextStates, Words

Batch = dict[str, Any]
"""See ``docs/architecture.md``, data; the diffusion task also needs ``null_ids`` (1, n)."""
Metrics = dict[str, Array]


def pixels_as_floats(batch: Batch) -> Batch:
    """A batch with its uint8 pictures as the networks take them, float32: in [-1, 1] for the
    autoencoder, CLIP-normalised for the image tower. What is float is left as it is.
    """
    ranges = {"video": vae_input, "vae_image": vae_input, "clip_image": clip_input}
    made = {
        name: in_range(batch[name])
        for name, in_range in ranges.items()
        if name in batch and batch[name].dtype == jnp.uint8
    }
    return batch | made


def bound(model: VideoBooth, params: Params) -> Callable[..., Any]:
    """The model's methods, by name, on these weights: ``bound(model, params)(x, method="...")``."""
    return functools.partial(model.apply, {"params": params})


@flax.struct.dataclass
class Draws:
    """Everything random in one evaluation of the diffusion loss.

    ``indices`` (batch,) are respaced; ``noise`` has the latents' shape; ``exemplar_noise``
    (batch, copies, height, width, channels).
    """

    indices: Array
    noise: Latents
    exemplar_noise: Latents
    drop: Array


def draw(
    key: Array, latents: Latents, num_indices: int, copies: int, drop_probability: float
) -> Draws:
    """Draw timesteps uniformly, noise, and which rows are dropped; of ``latents`` only shape and
    dtype matter.
    """
    indices_key, noise_key, exemplar_key, drop_key = jax.random.split(key, 4)
    batch = latents.shape[0]
    return Draws(
        indices=jax.random.randint(indices_key, (batch,), 0, num_indices),
        noise=gaussian.normal(noise_key, latents.shape, latents.dtype),
        exemplar_noise=gaussian.normal(
            exemplar_key, (batch, copies, *latents.shape[2:]), latents.dtype
        ),
        drop=jax.random.bernoulli(drop_key, drop_probability, (batch,)),
    )


def posterior_noise(model: VideoBooth, batch: Batch, key: Array) -> dict[str, Array]:
    """Noise for drawing from the autoencoder's posterior of everything :func:`encode_pixels`
    encodes, under the names of the results; empty for batches that carry latents without their
    deviation.
    """
    if "latents" in batch and "latents_deviation" not in batch:
        return {}
    config = model.config.vae

    if "latents" in batch:
        rows, frames, height, width, _ = batch["latents"].shape
    else:
        rows, frames = batch["video"].shape[:2]
        height, width = (side // config.downsampling for side in batch["video"].shape[2:4])

    def shape(*pictures: int) -> tuple[int, ...]:
        return (*pictures, height, width, config.latent_channels)

    shapes = {"latents": shape(rows, frames)}
    if "vae_image" in batch or "exemplar_latents" in batch:
        shapes |= {"exemplar_latents": shape(rows, 1), "zero_exemplar": shape(1, frames)}
    keys = jax.random.split(key, 3)
    return {
        name: gaussian.normal(key, shape, config.dtype)
        for key, (name, shape) in zip(keys, shapes.items(), strict=False)
    }


def encode_pixels(
    model: VideoBooth, params: Params, batch: Batch, noise: dict[str, Array] | None = None
) -> Batch:
    """Replace pixels by scaled latents: ``latents``, ``exemplar_latents`` and ``zero_exemplar``.

    The published trainers *sample* the posterior everywhere (quirk 10), which ``noise`` of
    :func:`posterior_noise` does; without it the mean is taken. Batches that carry latents already
    are sampled with the deviations that lie beside them.
    """
    if "latents" in batch:
        drawn = {
            name: batch[name] + batch[f"{name}_deviation"] * values
            for name, values in (noise or {}).items()
        }
        return batch | drawn

    def encode(images: Array, name: str) -> Array:
        mean, logvar = bound(model, params)(images, method="encode")
        return mean if noise is None else mean + jnp.exp(0.5 * logvar) * noise[name]

    out = dict(batch)
    frames = batch["video"].shape[1]
    out["latents"] = encode(out.pop("video"), "latents")
    if "vae_image" in batch:
        image = out.pop("vae_image")
        out["exemplar_latents"] = encode(image[:, None], "exemplar_latents")
        zeros = jnp.zeros((1, frames, *image.shape[1:]), image.dtype)
        out["zero_exemplar"] = encode(zeros, "zero_exemplar")
    return out


@flax.struct.dataclass
class Conditioning:
    """What the denoiser is told.

    Image words, text states of the sentence with and without them, and of the null text.
    """

    words: Words | None
    states: TextStates
    null_states: TextStates


def condition(model: VideoBooth, params: Params, batch: Batch, use_words: bool) -> Conditioning:
    """Image -> words -> text states with the words in place of the subject (Section 3.2 of the
    paper).
    """
    apply = bound(model, params)
    null_states = apply(batch["null_ids"], method="text_states")
    if not use_words:
        states = apply(batch["ids"], method="text_states")
        return Conditioning(None, states, null_states)
    if "vision_features" in batch:
        words = apply(batch["vision_features"], method="feature_words")
    else:
        words = apply(batch["clip_image"], method="image_words")
    source = word_sources(batch["ids"], batch["placeholder"], words.shape[1])
    states = apply(batch["ids"], source, words, method="text_states")
    return Conditioning(words, states, null_states)


def exemplar_branch(
    model: VideoBooth,
    params: Params,
    batch: Batch,
    draws: Draws,
    null_states: TextStates,
    schedule: NoiseSchedule,
    timesteps: Array,
    drop: Array | None,
) -> Any:
    """Keys and values of the exemplar at every injected attn1 (Section 3.3), noised to the
    video's timestep or clean.

    Raises:
        ValueError: dropped rows are to be shown zeros, and the data have no latents of zeros.
    """
    copies = draws.exemplar_noise.shape[1]
    clean = batch["exemplar_latents"]
    clean = jnp.broadcast_to(clean, (clean.shape[0], copies, *clean.shape[2:]))
    if drop is not None:
        if "zero_exemplar" not in batch:
            raise ValueError(
                "these latents were stored without those of a picture of zeros, which dropped rows "
                "are shown: run precompute again, or set objective.dropped_exemplar to 'none'"
            )
        zeros = batch["zero_exemplar"][:, :copies]
        clean = jnp.where(drop[:, None, None, None, None], zeros, clean)
    if model.config.diffusion.exemplar_timestep == "zero":
        noised, exemplar_timesteps = clean, jnp.zeros_like(timesteps)
    else:
        noised = gaussian.q_sample(schedule, clean, draws.exemplar_noise, draws.indices)
        exemplar_timesteps = timesteps
    states = jnp.broadcast_to(null_states, (clean.shape[0], *null_states.shape[1:]))
    return bound(model, params)(noised, exemplar_timesteps, states, method="exemplar_keys_values")


def diffusion_loss(
    model: VideoBooth,
    objective: ObjectiveConfig,
    schedule: NoiseSchedule,
    params: Params,
    batch: Batch,
    draws: Draws,
) -> tuple[Array, Metrics]:
    """Mean squared error of the prediction plus ``embedding_l1_weight`` * mean|image words|.

    Needs in ``batch``: ``latents`` (batch frames height width channels, scaled), ``ids``,
    ``null_ids``; with words ``placeholder`` and ``clip_image`` or ``vision_features``; with an
    exemplar ``exemplar_latents`` (batch 1 height width channels) and, when dropped rows get zeros,
    ``zero_exemplar``. Returns the loss and its terms.
    """
    told = condition(model, params, batch, objective.words)
    latents = batch["latents"]
    states = jnp.where(draws.drop[:, None, None], told.null_states, told.states)
    timesteps = jnp.asarray(schedule.timestep_map, jnp.int32)[draws.indices]
    exemplar = rows = None
    if objective.exemplar:
        zeros = objective.dropped_exemplar == "zeros"
        drop = draws.drop if zeros else None
        rows = None if zeros else ~draws.drop
        exemplar = exemplar_branch(
            model, params, batch, draws, told.null_states, schedule, timesteps, drop
        )
    prediction = bound(model, params)(
        gaussian.q_sample(schedule, latents, draws.noise, draws.indices),
        timesteps,
        states,
        kv=objective.kv,
        exemplar=exemplar,
        exemplar_rows=rows,
        watermark=objective.watermark,
        method="denoise",
    )
    kind = model.config.diffusion.prediction_type
    target = gaussian.training_target(schedule, kind, latents, draws.noise, draws.indices)
    error = jnp.square(prediction - target)
    per_sample = jnp.mean(error, axis=tuple(range(1, error.ndim)))
    metrics = {"loss_ldm": jnp.mean(per_sample)}
    loss = metrics["loss_ldm"]
    if told.words is not None:
        words = told.words.astype(metrics["loss_ldm"].dtype)
        metrics["loss_reg"] = objective.embedding_l1_weight * jnp.mean(jnp.abs(words))
        loss = loss + metrics["loss_reg"]
    return loss, metrics


def autoencoder_noise(model: VideoBooth, batch: Batch, key: Array) -> Array:
    """Noise (batch, frames + 1, height, width, channels) for :func:`autoencoder_loss`."""
    config = model.config.vae
    rows, frames, *sides = batch["video"].shape[:4]
    sides = [side // config.downsampling for side in sides]
    return gaussian.normal(key, (rows, frames + 1, *sides, config.latent_channels), config.dtype)


def autoencoder_loss(
    model: VideoBooth, objective: ObjectiveConfig, params: Params, batch: Batch, noise: Array
) -> tuple[Array, Metrics]:
    """Squared error of the reconstruction plus ``kl_weight`` times the mean KL of a latent entry
    to N(0, 1).

    Frames and image prompts both. ``scaling_factor`` must be 1 while it trains, so that "scaled"
    latents are the raw ones.
    """
    pictures = jnp.concatenate([batch["video"], batch["vae_image"][:, None]], axis=1)
    images = pictures.reshape(-1, *pictures.shape[2:])
    mean, logvar = bound(model, params)(images, method="encode")
    noise = noise.reshape(mean.shape)
    decoded = bound(model, params)(mean + jnp.exp(0.5 * logvar) * noise, method="decode")
    mse = jnp.mean(jnp.square(decoded - images))
    kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)
    psnr = 10.0 * jnp.log10(4.0 / mse)
    return mse + objective.kl_weight * kl, {"mse": mse, "kl": kl, "psnr": psnr}


def clip_loss(model: VideoBooth, params: Params, batch: Batch) -> tuple[Array, Metrics]:
    """Symmetric InfoNCE between sentences and first frames, and between image prompts and first
    frames.

    The second term is what makes the image tower tell apart designs that share a name. Pairs that
    show the same thing twice in a batch are rare enough to be left in.
    """
    apply = bound(model, params)
    size = model.config.vision_encoder.image_size
    frame = (batch["video"][:, 0] + 1.0) / 2.0
    frame = jax.image.resize(frame, (frame.shape[0], size, size, 3), "bilinear")
    text, image, scale = apply(batch["ids"], clip_normalised(frame), method="contrastive")
    _, prompt, _ = apply(batch["ids"], batch["clip_image"], method="contrastive")
    metrics = {}
    total = jnp.zeros((), jnp.float32)
    for name, other in (("text", text), ("image", prompt)):
        logits = scale * jnp.matmul(other, image.T)
        diagonal = jnp.arange(logits.shape[0])
        forward = -jnp.mean(jax.nn.log_softmax(logits, axis=1)[diagonal, diagonal])
        backward = -jnp.mean(jax.nn.log_softmax(logits, axis=0)[diagonal, diagonal])
        metrics[f"loss_{name}"] = 0.5 * (forward + backward)
        metrics[f"accuracy_{name}"] = jnp.mean(jnp.argmax(logits, axis=1) == diagonal)
        total = total + metrics[f"loss_{name}"]
    return total, metrics

"""Runners of the denoising network: one pass, a guided pass, a whole sampling run."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.cases import Case
from parity.configs import unet_config
from parity.weights import recipe_params
from videobooth_jax.conversion.name_map import INJECTED, UNET
from videobooth_jax.diffusion import gaussian
from videobooth_jax.diffusion.guidance import guide
from videobooth_jax.diffusion.samplers import make_sampler
from videobooth_jax.diffusion.schedules import make_schedule
from videobooth_jax.models.unet_3d import UNet3D, UNet3DConfig
from videobooth_jax.typing import Params


def channels_last(x: np.ndarray) -> np.ndarray:
    """(b, c, f, h, w) -> (b, f, h, w, c)."""
    return np.moveaxis(x, 1, -1)


def channels_first(x: Any) -> np.ndarray:
    """(b, f, h, w, c) -> (b, c, f, h, w)."""
    return np.moveaxis(np.asarray(x), -1, 1)


def unet_params(config: UNet3DConfig, lists: dict[str, Any]) -> Params:
    """Recipe weights; the names and shapes must be those of the lists `unet` and `injected`."""
    dtype = config.compute_dtype
    abstract = jax.eval_shape(
        UNet3D(config).init,
        jax.random.key(0),
        jnp.zeros((1, 1, 8, 8, config.in_channels), dtype),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, config.cross_attention_dim), dtype),
    )["params"]
    return recipe_params(abstract, UNET + INJECTED, lists["unet"] | lists["injected"])


@lru_cache(maxsize=8)
def denoiser(config: UNet3DConfig, kv: str, watermark: bool) -> Callable[..., jax.Array]:
    """Jitted (params, latents, t, text, exemplar, rows) -> prediction; exemplar is (latents, t,
    text) or None.

    Cases of one size share it, and with it the compiled program.
    """
    model = UNet3D(config)

    def denoise(params, latents, t, text, exemplar, rows):
        variables = {"params": params}
        keys_values = None
        if exemplar is not None:
            keys_values = model.apply(variables, *exemplar, method="exemplar_keys_values")
        return model.apply(
            variables,
            latents,
            t,
            text,
            kv=kv,
            exemplar=keys_values,
            exemplar_rows=rows,
            watermark=watermark,
        )

    return jax.jit(denoise)


def _network(case: Case, dtype: str) -> Callable[..., jax.Array]:
    config = unet_config(case.config, dtype)
    params = unet_params(config, case.params)
    options = case.options
    denoise = denoiser(config, options["kv"], options["watermark"])
    return lambda *arguments: denoise(params, *arguments)


def run_unet(case: Case, dtype: str) -> dict[str, Any]:
    x = case.inputs(dtype)
    exemplar = rows = None
    if case.options["exemplar"]:
        exemplar = (channels_last(x["exemplar"]), x["exemplar_t"], x["exemplar_text"])
        rows = np.ones(len(x["sample"]), bool)
    out = _network(case, dtype)(channels_last(x["sample"]), x["t"], x["text"], exemplar, rows)
    return {"epsilon": channels_first(out)}


def _twice(x: np.ndarray) -> np.ndarray:
    """The first half of the rows, repeated."""
    half = x[: len(x) // 2]
    return np.concatenate([half, half])


def run_unet_guided(case: Case, dtype: str) -> dict[str, Any]:
    """Conditional and unconditional rows share one call; the exemplar is for the conditional
    ones.
    """
    x, options = case.inputs(dtype), case.options
    count = len(x["sample"]) // 2
    exemplar = rows = None
    timesteps = x["t"]
    if options["exemplar"]:
        timesteps = _twice(x["t"])
        exemplar = (
            channels_last(_twice(x["exemplar"])),
            _twice(x["exemplar_t"]),
            _twice(x["exemplar_text"]),
        )
        rows = np.arange(2 * count) < count
    latents = channels_last(_twice(x["sample"]))
    out = _network(case, dtype)(latents, timesteps, x["text"], exemplar, rows)
    conditional, unconditional = out[:count], out[count:]
    scale, channels = options["guidance_scale"], options["guided_channels"]
    guided = guide(conditional, unconditional, scale, channels)
    # The published second half repeats the guided channels beside the unconditional branch's own.
    second = jnp.concatenate([guided[..., :channels], unconditional[..., channels:]], axis=-1)
    return {"epsilon": channels_first(jnp.concatenate([guided, second]))}


def run_sample_loop(case: Case, dtype: str) -> dict[str, Any]:
    """The published DDPM loop with stored draws; only the first half of their rows is ever seen."""
    x, options = case.inputs(dtype), case.options
    schedule = make_schedule()
    sampler = make_sampler("ddpm", schedule, options["respacing"])
    network = _network(case, dtype)
    latents = channels_last(x["z"])
    batch = len(latents)
    rows = np.arange(2 * batch) < batch
    text = np.concatenate([x["text_cond"], x["text_uncond"]])
    null_text = np.concatenate([x["text_uncond"], x["text_uncond"]])
    clean = channels_last(x["exemplar_latent"])
    state = sampler.init(jnp.asarray(latents))
    after = []
    for i, timestep in enumerate(sampler.timesteps):
        t = np.full(2 * batch, timestep, np.int32)
        step = np.full(batch, len(sampler) - 1 - i, np.int32)
        noise = channels_last(x["noise_exemplar"][i][:batch])
        copies = np.broadcast_to(clean, noise.shape)
        noised = gaussian.q_sample(sampler.schedule, jnp.asarray(copies), jnp.asarray(noise), step)
        both = jnp.concatenate([state.latents, state.latents])
        exemplar = (jnp.concatenate([noised, noised]), t, null_text)
        out = network(both, t, text, exemplar, rows)
        out = guide(out[:batch], out[batch:], options["guidance_scale"], options["guided_channels"])
        if options["model_output"] == "blend":
            sigma = gaussian.look_up(np.sqrt(1 - schedule.alphas_cumprod), t[:batch], state.latents)
            out = sigma * state.latents + 0.3 * out
        noise_x = jnp.asarray(channels_last(x["noise_x"][i][:batch]))
        state, _ = sampler.step(state, i, out, noise_x)
        after.append(channels_first(state.latents))
    return {"final_latent": after[-1], "x_after_step": np.stack(after)}

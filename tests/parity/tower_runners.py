"""Runners of the CLIP towers, the projector and the autoencoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from parity.cases import Case
from parity.configs import projector_config, text_config, vae_config, vision_config
from parity.weights import recipe_params
from videobooth_jax.conversion.name_map import Table
from videobooth_jax.conversion.name_map_towers import CLIP_TEXT, CLIP_VISION, PROJECTOR, VAE
from videobooth_jax.models.autoencoder_kl import AutoencoderKL
from videobooth_jax.models.clip import CLIPTextModel, CLIPVisionModel, word_sources
from videobooth_jax.models.image_projector import ImageProjector


def _variables(
    model: nn.Module, table: Table, listed: dict[str, Any], *inputs: Any
) -> dict[str, Any]:
    abstract = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return {"params": recipe_params(abstract, table, listed)}


def run_clip_vision(case: Case, dtype: str) -> dict[str, Any]:
    pixels = np.moveaxis(case.inputs(dtype)["pixel_values"], 1, -1)
    model = CLIPVisionModel(vision_config(case.config, dtype))
    variables = _variables(model, CLIP_VISION, case.params["vision"], pixels)
    out = jax.jit(model.apply)(variables, pixels)
    return {
        "last_hidden_state": out.last_hidden_state,
        "pooler_output": out.pooler_output,
        **{f"hidden_{i}": state for i, state in enumerate(out.hidden_states)},
    }


def run_projector(case: Case, dtype: str) -> dict[str, Any]:
    features = case.inputs(dtype)["features"]
    model = ImageProjector(projector_config(case.config, len(features), dtype))
    variables = _variables(model, PROJECTOR, case.params["mapper"], features)
    return {"embeddings": jax.jit(model.apply)(variables, features)}


def run_clip_text(case: Case, dtype: str) -> dict[str, Any]:
    x = case.inputs(dtype)
    words = x.get("embeddings")
    source = None if words is None else word_sources(x["ids"], x["placeholder"], words.shape[1])
    model = CLIPTextModel(text_config(case.config, dtype))
    variables = _variables(model, CLIP_TEXT, case.params["text"], x["ids"])
    states = jax.jit(model.apply)(variables, x["ids"], source, words)
    return {"text_states": states} | ({} if source is None else {"source": source})


def run_vae(case: Case, dtype: str) -> dict[str, Any]:
    x = {role: np.moveaxis(array, 1, -1) for role, array in case.inputs(dtype).items()}
    scale = case.options["scaling_factor"]
    model = AutoencoderKL(vae_config(case.config, scale, dtype))
    variables = _variables(model, VAE, case.params["vae"], x["image"])

    @jax.jit
    def run(variables, image, latent, noise):
        mean, logvar = model.apply(variables, image, method="encode")
        return {
            "mean": mean,
            "logvar": logvar,
            "scaled_sample": scale * (mean + jnp.exp(0.5 * logvar) * noise),
            "decoded": model.apply(variables, latent, method="decode"),
            "decoded_from_scaled": model.apply(variables, latent / scale, method="decode"),
        }

    out = run(variables, x["image"], x["latent"], x["posterior_noise"])
    return {role: np.moveaxis(np.asarray(array), -1, 1) for role, array in out.items()}

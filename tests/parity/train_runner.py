"""Runner of one optimizer step of either published training stage."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parity.cases import Case
from parity.configs import projector_config, text_config, unet_config, vision_config
from parity.unet_runners import channels_last, unet_params
from parity.weights import recipe_params
from videobooth_jax.conversion.convert import to_torch, torch_shapes
from videobooth_jax.conversion.name_map import INJECTED, Table, under
from videobooth_jax.conversion.name_map_towers import CLIP_TEXT, CLIP_VISION, PROJECTOR
from videobooth_jax.diffusion.schedules import make_schedule, respace
from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.videobooth import (
    DiffusionSettings,
    VideoBooth,
    VideoBoothConfig,
    abstract_params,
)
from videobooth_jax.training import losses
from videobooth_jax.training.config import ObjectiveConfig, OptimizerConfig
from videobooth_jax.training.optimizer import make_optimizer, update_ema
from videobooth_jax.training.phases import merge, split
from videobooth_jax.typing import Params

TRAINED = {1: ("projector", "text_kv"), 2: ("projector", "text_kv", "frame_kv")}
MAPPER = Table(under("", "projector", PROJECTOR.rules) + under("", "unet", INJECTED.rules))
SHARED = ("null_ids", "zero_exemplar")
"""What a batch holds once, not per row."""


def _config(case: Case, dtype: str) -> VideoBoothConfig:
    sizes = case.config
    vision = vision_config(sizes["vision_encoder"], dtype)
    defaults = VideoBoothConfig.__dataclass_fields__
    num_words = len(defaults["vision_layers"].default)
    return VideoBoothConfig(
        name="parity",
        unet=unet_config(sizes["unet"], dtype),
        vae=AutoencoderKLConfig(),
        text_encoder=text_config(sizes["text_encoder"], dtype),
        vision_encoder=vision,
        projector=projector_config(sizes["mapper"], num_words, dtype),
        diffusion=DiffusionSettings(),
    )


def _params(case: Case, config: VideoBoothConfig) -> Params:
    """Every network but the autoencoder, whose latents are given."""
    abstract = abstract_params(config)
    towers = {"text_encoder": CLIP_TEXT, "vision_encoder": CLIP_VISION}
    return {
        "unet": unet_params(config.unet, case.json(case.options["unet_params"])),
        "projector": recipe_params(abstract["projector"], PROJECTOR, None),
        **{
            name: recipe_params(abstract[name], table, case.params[name]["shapes"])
            for name, table in towers.items()
        },
    }


def _batch(x: dict[str, Any], use_drop: bool) -> tuple[losses.Batch, losses.Draws]:
    batch = {
        "latents": channels_last(x["x"]),
        "ids": x["ids"],
        "null_ids": x["null_ids"],
        "clip_image": channels_last(x["pixel_values"]),
        "placeholder": x["placeholder"],
        "exemplar_latents": channels_last(x["exemplar_latent"]),
        "zero_exemplar": channels_last(x["zero_exemplar"]),
    }
    draws = losses.Draws(
        indices=x["t"],
        noise=channels_last(x["noise"]),
        exemplar_noise=channels_last(x["exemplar_noise"]),
        drop=x["drop"] & use_drop,
    )
    return jax.tree.map(jnp.asarray, batch), jax.tree.map(jnp.asarray, draws)


def _row(i: int, batch: losses.Batch, draws: losses.Draws) -> tuple[losses.Batch, losses.Draws]:
    rows = {k: v if k in SHARED else v[i : i + 1] for k, v in batch.items()}
    return rows, jax.tree.map(lambda a: a[i : i + 1], draws)


def run_train_step(case: Case, dtype: str) -> dict[str, Any]:
    options = case.options
    config, x = _config(case, dtype), case.inputs(dtype)
    model = VideoBooth(config)
    schedule = respace(make_schedule(), options["respacing"])
    objective = ObjectiveConfig(
        kv=options["kv"],
        exemplar=options["exemplar"],
        embedding_l1_weight=options["embedding_l1_weight"],
        watermark=options["watermark"],
    )
    batch, draws = _batch(x, options["drop"])
    trained, frozen = split(_params(case, config), TRAINED[options["stage"]])

    def loss_of(trained, frozen, batch, draws):
        params = merge(trained, frozen)
        loss, metrics = losses.diffusion_loss(model, objective, schedule, params, batch, draws)
        told = losses.condition(model, params, batch, use_words=True)
        plain = losses.condition(model, params, batch, use_words=False)
        states = jnp.where(draws.drop[:, None, None], told.null_states, told.states)
        metrics["reg_text_unweighted"] = jnp.mean(jnp.abs(states - plain.states))
        loss = loss + options["text_l1_weight"] * metrics["reg_text_unweighted"]
        return loss, (metrics | {"loss_total": loss}, told)

    gradient = jax.jit(jax.grad(loss_of, has_aux=True))
    grads, (metrics, told) = gradient(trained, frozen, batch, draws)
    evaluate = jax.jit(loss_of)
    rows = [evaluate(trained, frozen, *_row(i, batch, draws))[1][0] for i in range(len(x["t"]))]
    stored = options["text_positions_stored"]
    outputs = {
        **metrics,
        "inj_embedding": told.words,
        "text_states_before_drop": told.states[:, :stored],
        "loss_ldm_per_sample": np.array([row["loss_ldm"] for row in rows]),
        "grad_global_norm": optax.global_norm(grads),
        "t_mapped": schedule.timestep_map[x["t"]],
    }
    return outputs | _step(case, trained, grads)


def _step(case: Case, trained: Params, grads: Params) -> dict[str, Any]:
    """Gradients, parameters and averages after one optimizer step, under the checkpoint's names."""
    options = case.options
    listed = case.params[f"stage{options['stage']}"]["trainable"]
    assert {n: list(s) for n, s in torch_shapes(trained, MAPPER).items()} == listed
    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=options["learning_rate"],
            weight_decay=options["weight_decay"],
            clip_norm=options["clip_norm"],
        ),
        steps=1,
    )

    @jax.jit
    def update(trained, grads):
        updates, _ = optimizer.update(grads, optimizer.init(trained), trained)
        after = optax.apply_updates(trained, updates)
        return after, update_ema(trained, after, options["ema_decay"])

    after, average = update(trained, grads)
    trees = {"before": trained, "grad": grads, "param_after": after, "ema09_after": average}
    torch = {name: to_torch(tree, MAPPER) for name, tree in trees.items()}
    outputs: dict[str, Any] = {
        f"{name}/{key}": array for name, arrays in torch.items() for key, array in arrays.items()
    }
    outputs["grad_norms"] = {n: float(np.linalg.norm(g)) for n, g in torch["grad"].items()}
    outputs["step_delta_norms"] = {
        n: float(np.linalg.norm(torch["param_after"][n] - torch["before"][n])) for n in listed
    }
    return outputs

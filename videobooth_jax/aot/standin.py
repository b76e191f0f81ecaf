"""Stands in for `videobooth_jax.sharding` and `training.program` of the model-parallel change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from videobooth_jax.models.videobooth import abstract_params
from videobooth_jax.training.config import MeshConfig, TrainConfig
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.state import TrainState, create_state
from videobooth_jax.training.train_step import TrainStep, make_loss, make_train_step

SHARED = ("null_ids", "zero_exemplar")


def make_mesh(sizes: MeshConfig, devices: Sequence[jax.Device]) -> Mesh:
    count = len(devices) if sizes.data == -1 else sizes.data
    if not 1 <= count <= len(devices):
        raise ValueError(f"the mesh data {count} does not fit: there are {len(devices)} devices")
    return Mesh(np.array(devices[:count]), ("data",), axis_types=(AxisType.Auto,))


def check_batch(mesh: Mesh, batch_size: int, num_frames: int) -> None:
    if batch_size % mesh.shape["data"]:
        raise ValueError(
            f"a batch of {batch_size} cannot be split evenly over {mesh.shape['data']} devices"
        )


def batch_shardings(mesh: Mesh, names: Iterable[str]) -> dict[str, NamedSharding]:
    return {
        n: NamedSharding(mesh, PartitionSpec(*(() if n in SHARED else ("data",)))) for n in names
    }


def state_shardings(mesh: Mesh, state: Any) -> Any:
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), state)


@dataclass(frozen=True)
class TrainProgram:
    config: TrainConfig
    mesh: Mesh
    state: TrainState
    step: TrainStep


def train_program(config: TrainConfig, mesh: Mesh) -> TrainProgram:
    optimizer = make_optimizer(config.optimizer, config.steps)
    make = partial(
        create_state,
        trainable=config.trainable,
        optimizer=optimizer,
        frozen_dtype=config.frozen_dtype,
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    abstract = jax.eval_shape(lambda p, k: make(p, key=k), abstract_params(config.model), key)
    shardings = state_shardings(mesh, abstract)
    step = jax.jit(
        make_train_step(make_loss(config), optimizer, config.ema_decay),
        donate_argnums=0,
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    )
    return TrainProgram(config, mesh, _placed(abstract, shardings), step)


def abstract_batch(config: TrainConfig, mesh: Mesh) -> dict[str, Any]:
    model, size = config.model, config.data.batch_size
    side, (_, *picture) = model.vision_encoder.image_size, model.latent_shape(1)
    positions = model.text_encoder.max_position_embeddings
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "clip_image": ((size, side, side, 3), jnp.float32),
        "ids": ((size, positions), jnp.int32),
        "null_ids": ((1, positions), jnp.int32),
        "placeholder": ((size, 12), jnp.int32),
    }
    if config.data.source == "latents":
        shapes["latents"] = ((size, config.data.num_frames, *picture), jnp.float32)
        shapes["exemplar_latents"] = ((size, 1, *picture), jnp.float32)
        shapes["zero_exemplar"] = ((1, 1, *picture), jnp.float32)
    else:
        pixels = (model.height, model.width, 3)
        shapes["video"] = ((size, config.data.num_frames, *pixels), jnp.float32)
        shapes["vae_image"] = ((size, *pixels), jnp.float32)
    structs = {name: jax.ShapeDtypeStruct(*given) for name, given in shapes.items()}
    return _placed(structs, batch_shardings(mesh, structs))


def _placed(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
    )

"""A phase as one program on a mesh: what its state and batches look like and where they live, the
state it starts from, and its step. Nothing here touches data or disk except `load_given`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh

from videobooth_jax.checkpointing import load_config, load_model
from videobooth_jax.costs import count_costs
from videobooth_jax.data.batches import BatchConfig
from videobooth_jax.models.videobooth import VideoBoothConfig, abstract_params, init_params
from videobooth_jax.sharding import (
    batch_shardings,
    check_batch,
    check_frames,
    known,
    replicated,
    state_shardings,
    weight_shardings,
)
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.losses import Batch
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.phases import start_from_copies
from videobooth_jax.training.state import TrainState, create_state
from videobooth_jax.training.train_step import (
    TrainStep,
    ValidationStep,
    check_accumulation,
    make_loss,
    make_train_step,
    make_validation_step,
)
from videobooth_jax.typing import Array


@dataclass(frozen=True)
class TrainProgram:
    """What to compile, and for where.

    Attributes:
        config: the run.
        mesh: of `sharding.AXES`.
        optimizer: as ``config.optimizer`` says.
        state: a `TrainState` of ShapeDtypeStructs with shardings.
        step: jitted; the state it is given is donated.
        validate: jitted.
    """

    config: TrainConfig
    mesh: Mesh
    optimizer: optax.GradientTransformation
    state: TrainState
    step: TrainStep
    validate: ValidationStep


def check_batches(config: TrainConfig, mesh: Mesh) -> None:
    """Raises ValueError unless the batches of a run can be split as its mesh and parts ask."""
    check_batch(mesh, config.data.batch_size, config.data.num_frames)
    check_accumulation(config, mesh.shape["data"] * mesh.shape["fsdp"])
    check_frames(mesh, config.data.batch_size // config.accumulate_steps)


def train_program(config: TrainConfig, mesh: Mesh) -> TrainProgram:
    """The program of ``config`` on ``mesh``; nothing is compiled or allocated yet."""
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
    loss = make_loss(config)
    step = make_train_step(loss, optimizer, config.ema_decay, config.accumulate_steps)
    state = _placed(abstract, shardings)
    return TrainProgram(
        config=config,
        mesh=mesh,
        optimizer=optimizer,
        state=state,
        step=jit_step(known(mesh)(step), mesh, state),
        validate=jit_validation(
            known(mesh)(make_validation_step(loss, config.accumulate_steps)), mesh
        ),
    )


def jit_step(step: TrainStep, mesh: Mesh, state: TrainState) -> TrainStep:
    """A step whose state is donated, and stays where ``state`` (ShapeDtypeStructs) says."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def jit_validation(step: ValidationStep, mesh: Mesh) -> ValidationStep:
    """A validation step whose figures every device has."""
    return jax.jit(step, out_shardings=replicated(mesh))


COMPUTED_TWICE = ("map", "blocks", "pallas")
"""Attention implementations that compute scores again for the gradient."""


def computed_once(model: VideoBoothConfig) -> VideoBoothConfig:
    """The same model with nothing computed twice, be it to save memory or on two devices."""
    unet = replace(model.unet, remat="none")
    if unet.attention_implementation in COMPUTED_TWICE:
        unet = replace(unet, attention_implementation="xla")
    return replace(model, unet=unet)


def model_flops(program: TrainProgram, batch: Batch) -> int:
    """FLOPs of matmuls and convolutions that a step needs, over all devices: no activations
    computed twice, no optimizer's own matmuls.

    Gradients of frozen weights are not taken; those that pass through them to trained ones are.

    Args:
        program: of any task.
        batch: global; arrays or ShapeDtypeStructs.
    """
    config = program.config
    model = computed_once(config.model)
    if model != config.model:
        program = train_program(replace(config, model=model), program.mesh)
    state = program.state
    update = program.optimizer.update
    own = count_costs(update, state.trained, state.opt_state, state.trained)
    return count_costs(program.step, state, batch).flops - own.flops


def abstract_batch(config: TrainConfig, mesh: Mesh) -> Batch:
    """A global batch as ShapeDtypeStructs with shardings: what the data of ``config`` gives."""
    model, size = config.model, config.data.batch_size
    side, (_, height, width, channels) = model.vision_encoder.image_size, model.latent_shape(1)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "ids": ((size, model.text_encoder.max_position_embeddings), jnp.int32),
        "null_ids": ((1, model.text_encoder.max_position_embeddings), jnp.int32),
        "placeholder": ((size, BatchConfig.subject_length), jnp.int32),
    }
    if config.data.source == "latents":
        picture = (height, width, channels)
        for name in ("", "_deviation"):
            shapes["latents" + name] = ((size, config.data.num_frames, *picture), jnp.float32)
            shapes["exemplar_latents" + name] = ((size, 1, *picture), jnp.float32)
            shapes["zero_exemplar" + name] = ((1, 1, *picture), jnp.float32)
    else:
        picture = (model.height, model.width, 3)
        shapes["video"] = ((size, config.data.num_frames, *picture), jnp.uint8)
        shapes["vae_image"] = ((size, *picture), jnp.uint8)
    if config.data.source == "latents" and config.data.vision_features:
        vision, layers = model.vision_encoder, len(model.vision_layers)
        features = (size, layers, vision.num_tokens, vision.hidden_size)
        shapes["vision_features"] = (features, jnp.float16)
    else:
        shapes["clip_image"] = ((size, side, side, 3), jnp.uint8)
    structs = {name: jax.ShapeDtypeStruct(*given) for name, given in shapes.items()}
    return _placed(structs, batch_shardings(mesh, structs))


def _placed(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
    )


def initial_state(program: TrainProgram) -> TrainState:
    """The state before the first step, made in parts where its parts live.

    Fresh parameters, overwritten by those of ``init_from`` that exist there; then the phase's
    copies.

    Raises:
        ValueError: a parameter of ``init_from`` has another shape here; all are named.
    """
    config = program.config
    given = load_given(config, program.mesh)
    complete = (
        traverse_util.flatten_dict(abstract_params(config.model), sep="/").keys() <= given.keys()
    )

    def make(given: dict[str, Array], key: Array) -> TrainState:
        fresh = {} if complete else init_params(config.model, key)
        flat = traverse_util.flatten_dict(fresh, sep="/") | given
        params = start_from_copies(traverse_util.unflatten_dict(flat, sep="/"), config.copies)
        return create_state(params, config.trainable, program.optimizer, key, config.frozen_dtype)

    shardings = jax.tree.map(lambda x: x.sharding, program.state)
    return jax.jit(make, out_shardings=shardings)(given, jax.random.key(config.seed))


def load_given(config: TrainConfig, mesh: Mesh) -> dict[str, Array]:
    """The parameters of ``init_from`` that this model has, by path, as stored there; each device
    reads its own part.

    Raises:
        ValueError: one has another shape there than here; all are named.
    """
    if not config.init_from:
        return {}
    expected = traverse_util.flatten_dict(abstract_params(config.model), sep="/")
    params = load_model(config.init_from, dtype="stored", shardings=weight_shardings(mesh))[1]
    given = {p: x for p, x in traverse_util.flatten_dict(params, sep="/").items() if p in expected}
    wrong = [
        f"{path}: {x.shape} there, {expected[path].shape} here"
        for path, x in given.items()
        if x.shape != expected[path].shape
    ]
    if wrong:
        raise ValueError(f"{config.init_from} is of another size:\n  " + "\n  ".join(wrong))
    return given


def with_measured_scale(config: TrainConfig) -> TrainConfig:
    """The config with the latent scale measured when the autoencoder of ``init_from`` was trained.

    An autoencoder in training keeps its own.
    """
    if not config.init_from or config.task == "autoencoder":
        return config
    factor = load_config(config.init_from).vae.scaling_factor
    model = replace(config.model, vae=replace(config.model.vae, scaling_factor=factor))
    return replace(config, model=model)

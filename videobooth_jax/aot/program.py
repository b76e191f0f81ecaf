"""The programs worth knowing the cost of, on devices that need not be here.

Nothing is allocated: parameters, state and batch are shapes with shardings.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from videobooth_jax.aot.chips import chip_of, known_topologies
from videobooth_jax.costs import count_costs
from videobooth_jax.models.videobooth import abstract_params
from videobooth_jax.pipeline import programs
from videobooth_jax.pipeline.on_mesh import plan_on
from videobooth_jax.pipeline.requests import make_plan
from videobooth_jax.sharding import (
    batch_shardings,
    check_batch,
    check_frames,
    known,
    make_mesh,
    replicated,
    state_shardings,
)
from videobooth_jax.training.config import TrainConfig
from videobooth_jax.training.program import (
    abstract_batch,
    check_batches,
    computed_once,
    model_flops,
    train_program,
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function, what it is called with, and what it usefully computes.

    Attributes:
        mesh: the devices it is for.
        step: to be lowered with ``arguments``.
        arguments: pytrees of `jax.ShapeDtypeStruct`s with shardings.
        model_flops: FLOPs of matmuls and convolutions, of all devices together; for training the
            forward pass and the backward pass that the trained weights need.
    """

    mesh: Mesh
    step: Any
    arguments: tuple[Any, ...]
    model_flops: int


def topology_devices(topology: str) -> Sequence[jax.Device]:
    """The devices of a TPU topology, "v5e:16x16", which programs can be compiled for.

    Raises:
        ImportError: libtpu, which holds the compiler, is not installed.
        ValueError: there is no such topology; the known ones are listed.
    """
    chip = chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            "the compiler for TPUs is not installed: pip install 'videobooth_jax[aot]'"
        )
    try:
        found = topologies.get_topology_desc(topology, "tpu", **dict(chip.options))
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise ValueError(f"no topology {topology!r}: {reason}; {known_topologies()}") from error
    return found.devices


def train(config: TrainConfig, devices: Sequence[jax.Device]) -> Program:
    """One optimizer step of a run.

    Raises:
        ValueError: mesh or batch do not fit the devices.
    """
    mesh = make_mesh(config.mesh, devices)
    check_batches(config, mesh)
    program = train_program(config, mesh)
    batch = abstract_batch(config, mesh)
    return Program(mesh, program.step, (program.state, batch), model_flops(program, batch))


def sample(config: TrainConfig, devices: Sequence[jax.Device]) -> Program:
    """One guided denoising step of ``data.batch_size`` videos of ``data.num_frames`` frames, each
    with a picture of its own, as `pipeline.programs.denoise` takes it.

    Raises:
        ValueError: mesh, batch or frames do not fit the devices or the model.
    """
    mesh = make_mesh(config.mesh, devices)
    rows, model = config.data.batch_size, config.model
    plan, _ = make_plan(model, {"num_frames": config.data.num_frames})
    plan = plan_on(mesh, plan)
    check_batch(mesh, rows, plan.num_frames)
    check_frames(mesh, rows)
    spec, side = jax.ShapeDtypeStruct, model.vision_encoder.image_size
    params = abstract_params(model)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    subject = jax.eval_shape(
        functools.partial(programs.read_subject, model, plan.num_frames),
        params,
        spec((rows, side, side, 3), jnp.float32),
        spec((rows, plan.height, plan.width, 3), jnp.float32),
        spec((1, model.text_encoder.max_position_embeddings), jnp.int32),
        None,
        keys,
    )
    null = subject.null_states
    states = spec((rows, *null.shape[1:]), null.dtype)
    latents = spec((rows, *model.latent_shape(plan.num_frames)), jnp.float32)
    whole, split = replicated(mesh), batch_shardings(mesh, ("latents", "ids"))
    rows_of: Any = functools.partial(_place, sharding=split["ids"])
    subject = dataclasses.replace(
        jax.tree.map(rows_of, subject), null_states=_place(null, sharding=whole)
    )
    scale: Any = _place(spec((), jnp.float32), sharding=whole)
    conditioning = programs.Conditioning(rows_of(states), subject, scale)
    arguments = (
        jax.tree.map(_place, params, state_shardings(mesh, params)),
        conditioning,
        _place(latents, sharding=split["latents"]),
        rows_of(spec((rows,), jnp.int32)),
        rows_of(keys),
    )
    step = jax.jit(known(mesh)(functools.partial(programs.denoise, model, plan)))
    plain = functools.partial(programs.denoise, computed_once(model), plan)
    return Program(mesh, step, arguments, count_costs(plain, *arguments).flops)


def _place(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


PROGRAMS: dict[str, Callable[[TrainConfig, Sequence[jax.Device]], Program]] = {
    "train": train,
    "sample": sample,
}
"""What can be compiled: an optimizer step, or a denoising step."""

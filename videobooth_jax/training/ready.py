"""The steps of a run made ready: out of a folder, so that starting again costs no tracing, or
traced; and compiled.
"""

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import export

from videobooth_jax.checkpointing.traced_programs import TracedProgram, kept_program
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.program import TrainProgram, jit_step, jit_validation, model_flops
from videobooth_jax.training.state import TrainState
from videobooth_jax.training.train_step import TrainStep, ValidationStep
from videobooth_jax.typing import Array

FIRST = np.int32(0)
"""The number of the first held-out batch."""

COMPILER_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
"""By platform. On CPUs no matmul goes to YNNPACK: XLA finds each one again by a search of the whole
program when it reads a compiled one back, which takes longer than all the rest of a restart
(docs/performance.md), and a step is no faster for it (jaxlib 0.10.2)."""

_FLOPS = "model_flops"


def compiled(program: TrainProgram, state: TrainState, batch: Batch) -> TrainProgram:
    """The same program with its steps compiled, for arguments such as these alone.

    Args:
        program: its validation step is compiled where the run looks at held-out examples.
        state: before a step.
        batch: global.
    """
    options = COMPILER_OPTIONS.get(program.mesh.devices.flat[0].platform)

    def compile_for(step: Any, *arguments: Any) -> Any:
        return step.lower(*arguments).compile(options)

    ready = dataclasses.replace(program, step=compile_for(program.step, state, batch))
    if not program.config.validation.every:
        return ready
    look = compile_for(program.validate, state, batch, FIRST)
    return dataclasses.replace(ready, validate=look)


def kept_train_program(
    program: TrainProgram, batch: Batch, folder: epath.Path | None
) -> tuple[TrainProgram, int]:
    """The same program with its steps out of ``folder``, and its `model_flops`.

    What `jax.export` refuses, as it does calls into libraries whose interfaces are not kept stable
    (cuDNN), is traced by every process, as it is without a folder.

    Args:
        program: traced only where nothing that fits is kept.
        batch: global; arrays or ShapeDtypeStructs with shardings.
        folder: see `kept_program`; None: nothing is kept.
    """
    if folder is not None:
        try:
            step, flops = _kept_step(program, batch, folder)
            look = program.config.validation.every > 0
            validate = _kept_validation(program, batch, folder) if look else program.validate
            return dataclasses.replace(program, step=step, validate=validate), flops
        except (NotImplementedError, ValueError) as error:
            warnings.warn(f"{program.config.name}: not kept for a restart: {error}", stacklevel=2)
    return program, model_flops(program, batch)


# Exported programs take and give a state as a list of its leaves: optimizers' states have types of
# their own, which `jax.export` would have to be taught.


def _kept_step(program: TrainProgram, batch: Batch, folder: epath.Path) -> tuple[TrainStep, int]:
    tree, leaves = jax.tree.structure(program.state), jax.tree.leaves(program.state)

    def on_leaves(leaves: list[Array], batch: Batch) -> tuple[list[Array], Metrics]:
        state, metrics = program.step(jax.tree.unflatten(tree, leaves), batch)
        return jax.tree.leaves(state), metrics

    def trace() -> TracedProgram:
        exported = export.export(jax.jit(on_leaves))(leaves, batch)
        return TracedProgram(exported, {_FLOPS: model_flops(program, batch)})

    kept = kept_program(folder, f"{program.config.name}-step", _made_of(program, batch), trace)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        leaves, metrics = kept.exported.call(jax.tree.leaves(state), batch)
        return jax.tree.unflatten(tree, leaves), metrics

    return jit_step(train_step, program.mesh, program.state), kept.notes[_FLOPS]


def _kept_validation(program: TrainProgram, batch: Batch, folder: epath.Path) -> ValidationStep:
    tree, leaves = jax.tree.structure(program.state), jax.tree.leaves(program.state)

    def on_leaves(leaves: list[Array], batch: Batch, number: Array) -> Metrics:
        return program.validate(jax.tree.unflatten(tree, leaves), batch, number)

    def trace() -> TracedProgram:
        return TracedProgram(export.export(jax.jit(on_leaves))(leaves, batch, FIRST))

    name = f"{program.config.name}-validation"
    kept = kept_program(folder, name, _made_of(program, batch), trace)

    def validation_step(state: TrainState, batch: Batch, number: Array | np.integer) -> Metrics:
        return kept.exported.call(jax.tree.leaves(state), batch, number)

    return jit_validation(validation_step, program.mesh)


def _made_of(program: TrainProgram, batch: Batch) -> list[str]:
    """All that the text of a run's steps depends on, beside the sources."""
    given = [*jax.tree.leaves(program.state), *(batch[name] for name in sorted(batch))]
    return [
        repr(program.config),
        *(f"{device.platform} {device.device_kind}" for device in program.mesh.devices.flat),
        *sorted(batch),
        *(f"{x.shape} {x.dtype} {x.sharding}" for x in given),
    ]

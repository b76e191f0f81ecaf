"""The steps of a run made ready: out of a folder, so that starting again costs no tracing, or
traced; and compiled.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from videobooth_jax.checkpointing.traced_programs import (
    NotKeptError,
    TracedProgram,
    export_program,
    kept_program,
)
from videobooth_jax.compilation_cache import is_debugging
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.program import TrainProgram, jit_step, jit_validation, model_flops
from videobooth_jax.training.state import TrainState
from videobooth_jax.typing import Array

FIRST = np.int32(0)
"""The number of the first held-out batch."""

COMPILER_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
"""By platform. On CPUs no matmul goes to YNNPACK: XLA finds each one again by a search of the whole
program when it reads a compiled one back, which takes longer than all the rest of a restart
(docs/performance.md), and a step is no faster for it (jaxlib 0.10.2)."""

_FLOPS = "model_flops"


def compiled(program: TrainProgram, state: TrainState, batch: Batch) -> TrainProgram:
    """The same program with its steps compiled, for arguments such as these alone; as it is where
    JAX is told to debug.

    Args:
        program: its validation step is compiled where the run looks at held-out examples.
        state: before a step.
        batch: global.
    """
    if is_debugging():
        return program
    options = COMPILER_OPTIONS.get(_platform(program))

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

    What cannot be kept is traced by every process, as it is without a folder; a warning says so.

    Args:
        program: of `train_program`, whose steps follow from config, mesh and the sources. Traced
            only where nothing that fits is kept.
        batch: global; arrays or ShapeDtypeStructs with shardings.
        folder: see `kept_program`; None: nothing is kept.
    """
    if folder is not None:
        try:
            return _Kept(program, batch, folder).program()
        except NotKeptError as error:
            warnings.warn(f"{program.config.name}: not kept for a restart: {error}", stacklevel=2)
    return program, model_flops(program, batch)


class _Kept:
    """The steps of a program in a folder.

    There they take a state as a list of its leaves, and give it so: optimizers' states have types
    of their own, which `jax.export` would have to be taught.
    """

    def __init__(self, program: TrainProgram, batch: Batch, folder: epath.Path):
        self._program, self._batch, self._folder = program, batch, folder
        self._leaves, self._tree = jax.tree.flatten(program.state)

    def program(self) -> tuple[TrainProgram, int]:
        program, mesh = self._program, self._program.mesh
        step, flops = self._step()
        kept = dataclasses.replace(program, step=jit_step(step, mesh, program.state))
        if program.config.validation.every:
            kept = dataclasses.replace(kept, validate=jit_validation(self._validation(), mesh))
        return kept, flops

    def _step(self) -> tuple[Callable[..., tuple[TrainState, Metrics]], int]:
        def of_leaves(leaves: list[Array], batch: Batch) -> tuple[list[Array], Metrics]:
            state, metrics = self._program.step(self._state(leaves), batch)
            return jax.tree.leaves(state), metrics

        def notes() -> dict[str, Any]:
            return {_FLOPS: model_flops(self._program, self._batch)}

        found = self._find("step", of_leaves, (self._leaves, self._batch), notes)

        def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            leaves, metrics = found.exported.call(jax.tree.leaves(state), batch)
            return self._state(leaves), metrics

        return train_step, found.notes[_FLOPS]

    def _validation(self) -> Callable[..., Metrics]:
        def of_leaves(leaves: list[Array], batch: Batch, number: Array) -> Metrics:
            return self._program.validate(self._state(leaves), batch, number)

        found = self._find("validation", of_leaves, (self._leaves, self._batch, FIRST), dict)

        def validation_step(state: TrainState, batch: Batch, number: Array | np.integer) -> Metrics:
            return found.exported.call(jax.tree.leaves(state), batch, number)

        return validation_step

    def _state(self, leaves: list[Array]) -> TrainState:
        return jax.tree.unflatten(self._tree, leaves)

    def _find(
        self,
        kind: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        notes: Callable[[], Mapping[str, Any]],
    ) -> TracedProgram:
        platform, config = _platform(self._program), self._program.config
        given = [*self._leaves, *(self._batch[name] for name in sorted(self._batch))]
        made_of = [
            repr(config),
            *(
                f"{device.platform} {device.device_kind}"
                for device in self._program.mesh.devices.flat
            ),
            *sorted(self._batch),
            *(f"{x.shape} {x.dtype} {x.sharding}" for x in given),
        ]

        def trace() -> TracedProgram:
            return TracedProgram(export_program(function, arguments, platform), notes())

        return kept_program(self._folder, f"{config.name}-{kind}", made_of, trace)


def _platform(program: TrainProgram) -> str:
    return program.mesh.devices.flat[0].platform

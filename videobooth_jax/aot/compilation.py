"""Compile a program for a topology and count what came of it."""

import importlib.metadata
import time
from collections.abc import Sequence
from typing import Any

import jax

from videobooth_jax.aot.chips import Chip, chip_of
from videobooth_jax.aot.collectives import collectives
from videobooth_jax.aot.hlo import parse
from videobooth_jax.aot.loops import schedule
from videobooth_jax.aot.program import PROGRAMS, topology_devices
from videobooth_jax.aot.report import Costs, Memory, Report
from videobooth_jax.aot.roofline import roofline
from videobooth_jax.aot.work import work
from videobooth_jax.training.config import TrainConfig


def compile_report(
    config: TrainConfig, topology: str, what: str = "train", overrides: Sequence[str] = ()
) -> Report:
    """Compile a run's training step, or a sampling step, for a TPU topology.

    Args:
        config: the run; of its mesh, -1 takes all devices of the topology.
        topology: "v5e:16x16".
        what: a key of `PROGRAMS`.
        overrides: to be noted in the report.

    Raises:
        ImportError: libtpu is not installed.
        ValueError: no such topology, or mesh and batch do not fit it; before anything is compiled.
    """
    chip = chip_of(topology).per_device()
    program = PROGRAMS[what](config, topology_devices(topology))
    model_flops = program.model_flops / program.mesh.size
    started = time.monotonic()
    costs, refusal = None, ""
    try:
        compiled = program.step.lower(*program.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = _sentence(str(error))
    else:
        costs = count(compiled, program.mesh.size, chip, model_flops)
    return Report(
        name=config.name,
        what=what,
        topology=topology,
        mesh=dict(program.mesh.shape),
        batch_size=config.data.batch_size,
        num_frames=config.data.num_frames,
        overrides=tuple(overrides),
        versions={name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        compile_seconds=round(time.monotonic() - started, 1),
        hbm_bytes=chip.hbm_bytes,
        model_flops=model_flops,
        costs=costs,
        refusal=refusal,
    )


def count(compiled: Any, devices: int, chip: Chip, model_flops: float) -> Costs:
    """Count a `jax.stages.Compiled` for so many devices.

    Args:
        compiled: for any platform.
        devices: that run it together.
        chip: of one device.
        model_flops: useful FLOPs of one device.
    """
    module = parse(compiled.as_text())
    runs = schedule(module)
    done, sent = work(module, runs), tuple(collectives(runs, devices))
    bound = roofline(
        chip, model_flops, done.flops, done.hbm_bytes, sum(part.sent_bytes for part in sent)
    )
    return Costs(_memory(compiled.memory_analysis()), done, sent, bound, runs.unknown_loops)


def _memory(stats: Any) -> Memory:
    return Memory(
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def _sentence(error: str) -> str:
    """The first line of an XLA error, without its code."""
    line = error.strip().splitlines()[0]
    return line.split(": ", 2)[-1] if line.startswith("RESOURCE_EXHAUSTED: E") else line

"""What the compiler made of a program, for people and as JSON."""

import dataclasses
import json
from typing import Any

from videobooth_jax.aot.chips import GIB
from videobooth_jax.aot.collectives import Collective
from videobooth_jax.aot.roofline import Roofline
from videobooth_jax.aot.work import Work


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's HBM.

    Attributes:
        arguments: state or weights, and the batch.
        temporaries: the most that lives in between at one time.
        outputs: results that do not take the place of donated arguments.
        code: the program itself.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a program that was compiled needs, on each device and each step.

    Attributes:
        memory: HBM it takes.
        work: what it computes and moves.
        collectives: what it sends.
        roofline: the bound that follows.
        unknown_loops: loops whose trip count the program does not tell; counted once.
    """

    memory: Memory
    work: Work
    collectives: tuple[Collective, ...]
    roofline: Roofline
    unknown_loops: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """A program, where it was compiled for, and what came of it.

    Attributes:
        name: of the run.
        what: a key of `program.PROGRAMS`.
        topology: "v5e:16x16".
        mesh: axis -> devices.
        batch_size: rows of all devices together.
        num_frames: of each clip.
        overrides: how the config was changed, as on the command line.
        versions: of jax and libtpu.
        compile_seconds: tracing and compiling.
        hbm_bytes: what a device has.
        model_flops: useful FLOPs of one device, see `program.Program`.
        costs: None if the compiler found no way to make it fit.
        refusal: what it said then.
    """

    name: str
    what: str
    topology: str
    mesh: dict[str, int]
    batch_size: int
    num_frames: int
    overrides: tuple[str, ...]
    versions: dict[str, str]
    compile_seconds: float
    hbm_bytes: float
    model_flops: float
    costs: Costs | None
    refusal: str

    @property
    def fits(self) -> bool:
        """Whether the program can run there."""
        return self.costs is not None and self.costs.memory.total <= self.hbm_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with what follows from them: ``fits``, and of the costs the total
        of memory, the bound and what binds."""
        values = dataclasses.asdict(self) | {"fits": self.fits}
        if self.costs is not None:
            values["costs"]["memory"]["total"] = self.costs.memory.total
            bound = self.costs.roofline
            values["costs"]["roofline"] |= {"seconds": bound.seconds, "binds": bound.binds}
        return values

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def __str__(self) -> str:
        devices = 1
        for size in self.mesh.values():
            devices *= size
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"{self.name}: {self.what} on {self.topology}, {devices} devices ({axes})",
            f"batch {self.batch_size} of {self.num_frames} frames; compiled in "
            f"{self.compile_seconds:.0f} s by {versions}",
            "",
        ]
        if self.costs is None:
            return "\n".join([*lines, f"the compiler refuses: {self.refusal}"])
        return "\n".join(
            lines
            + _memory_lines(self.costs.memory, self.hbm_bytes)
            + _work_lines(self.costs, self.model_flops)
            + _collective_lines(self.costs.collectives)
            + _bound_lines(self.costs)
        )


def _memory_lines(memory: Memory, capacity: float) -> list[str]:
    parts = dataclasses.asdict(memory) | {"together": memory.total, "there are": capacity}
    return [
        "HBM of a device, GiB",
        *(f"  {name:<22}{value / GIB:>12.2f}" for name, value in parts.items()),
    ]


def _work_lines(costs: Costs, model_flops: float) -> list[str]:
    return [
        "work of a device, each step",
        f"  {'model':<22}{model_flops / 1e12:>12.3f} TFLOP",
        f"  {'program':<22}{costs.work.flops / 1e12:>12.3f} TFLOP",
        f"  {'from and to HBM':<22}{costs.work.hbm_bytes / 1e9:>12.2f} GB",
    ]


def _collective_lines(collectives: tuple[Collective, ...]) -> list[str]:
    if not collectives:
        return ["nothing is sent between devices"]
    head = f"  {'':<22}{'devices':>12}{'count':>10}{'result, GB':>14}{'sent, GB':>12}"
    return [
        "between devices, each step",
        head,
        *(
            f"  {c.kind:<22}{c.group_size:>12}{c.count:>10}{c.result_bytes / 1e9:>14.4f}"
            f"{c.sent_bytes / 1e9:>12.4f}"
            for c in collectives
        ),
    ]


def _bound_lines(costs: Costs) -> list[str]:
    bound = costs.roofline
    times = {"compute": bound.compute_seconds, "HBM": bound.hbm_seconds, "ICI": bound.ici_seconds}
    lines = [
        "at best, ms",
        *(f"  {name:<22}{seconds * 1e3:>12.2f}" for name, seconds in times.items()),
        f"  {'bound':<22}{bound.seconds * 1e3:>12.2f}   {bound.binds} binds; "
        f"MFU at most {100 * bound.mfu:.1f} %",
    ]
    if costs.unknown_loops:
        lines.append(f"note: {len(costs.unknown_loops)} loops of unknown length count once")
    if costs.work.kernels:
        lines.append(
            f"note: {costs.work.kernels} calls of kernels (the compiler's own for attention, or "
            "Pallas'): their FLOPs are not in 'program'"
        )
    return lines

"""How often each computation of a program runs: loops, calls, fusions and branches followed."""

import dataclasses
import re
from collections.abc import Iterator

from videobooth_jax.aot.hlo import Computation, Instruction, Module

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SAME = {"copy", "bitcast", "convert", "reshape"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A computation and how often one call of the program runs it.

    Attributes:
        times: the product of the trip counts around it.
        site: the fusion that calls it, None outside of fusions.
    """

    computation: Computation
    times: int
    site: Instruction | None = None

    @property
    def fused(self) -> bool:
        """Whether it is the inside of a fusion, whose own results stay on the chip."""
        return self.site is not None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """All runs of a program, and the loops whose trip count could not be told (taken as 1)."""

    runs: tuple[Run, ...]
    unknown_loops: tuple[str, ...]


def schedule(module: Module) -> Schedule:
    """Follow a program from its entry. Of a conditional every branch is taken once: at most."""
    unknown: list[str] = []
    runs = tuple(_follow(module, Run(module.entry, 1), unknown))
    return Schedule(runs, tuple(unknown))


def _follow(module: Module, run: Run, unknown: list[str]) -> Iterator[Run]:
    yield run
    for instruction in run.computation:
        times, site = run.times, run.site
        if instruction.opcode == "while":
            trips = trip_count(module, run.computation, instruction)
            if trips is None:
                unknown.append(instruction.name)
            times *= 1 if trips is None else trips
        elif instruction.opcode == "fusion":
            site = instruction
        for name in _called(instruction):
            yield from _follow(module, Run(module.computations[name], times, site), unknown)


def _called(instruction: Instruction) -> list[str]:
    """Computations an instruction runs as such; not what is applied to every element."""
    attributes = {
        "while": ("body",),
        "fusion": ("calls",),
        "async-start": ("calls",),
        "call": ("to_apply",),
        "conditional": ("true_computation", "false_computation"),
    }.get(instruction.opcode, ())
    names = [instruction.called(attribute) for attribute in attributes]
    if instruction.opcode == "conditional":
        listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
        names += re.findall(r"%([\w.\-]+)", listed.group(1)) if listed else []
    return [name for name in names if name]


def trip_count(module: Module, around: Computation, loop: Instruction) -> int | None:
    """How often a ``while`` of computation ``around`` runs; None if the text does not tell.

    XLA writes it down for CPUs and GPUs. For TPUs it follows from the condition ``i < n``, the
    start of ``i`` before the loop and its step in the body, where all three are constants.
    """
    if known := _KNOWN.search(loop.attributes):
        return int(known.group(1))
    condition = module.computations[loop.called("condition") or ""]
    body = module.computations[loop.called("body") or ""]
    before = around.operands(loop)[0]
    test, result = condition.instructions[condition.root], body.instructions[body.root]
    if (test.opcode, before.opcode, result.opcode) != ("compare", "tuple", "tuple"):
        return None
    carried = around.operands(before)

    def number(computation: Computation, instruction: Instruction) -> int | None:
        """A constant's value, also of one that is carried through the loop."""
        origin = _origin(computation, instruction)
        if computation is not around and (place := _place(origin)) is not None:
            return number(around, carried[place])
        digits = origin.opcode == "constant" and re.fullmatch(r"-?\d+", origin.argument)
        return int(origin.argument) if digits else None

    counter, limit = condition.operands(test)
    place = _place(_origin(condition, counter))
    if place is None or "direction=LT" not in test.attributes:
        return None
    added = _origin(body, body.operands(result)[place])
    if added.opcode != "add" or _place(_origin(body, body.operands(added)[0])) != place:
        return None
    first, end = number(around, carried[place]), number(condition, limit)
    step = number(body, body.operands(added)[1])
    return None if first is None or end is None or not step else max(0, -(-(end - first) // step))


def _origin(computation: Computation, instruction: Instruction) -> Instruction:
    """What an instruction's value was before it was copied."""
    while instruction.opcode in _SAME:
        instruction = computation.operands(instruction)[0]
    return instruction


def _place(instruction: Instruction) -> int | None:
    """The index that a ``get-tuple-element`` takes."""
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    return int(found.group(1)) if instruction.opcode == "get-tuple-element" and found else None

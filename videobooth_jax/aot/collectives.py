"""What a program sends between devices, counted from its HLO."""

import dataclasses
import math
import re

from videobooth_jax.aot.hlo import Instruction
from videobooth_jax.aot.loops import Run, Schedule

_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
"""Kind -> bytes that each of n devices must send per byte it brings, by the best algorithms known
(a ring's; Thakur et al. 2005)."""
_RESULT = {"all-gather": lambda n: n, "reduce-scatter": lambda n: 1 / n}
"""Kind -> bytes of the result per byte of the operand, where they differ."""

KINDS = tuple(_SENT)


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size, in one call of the program.

    Attributes:
        kind: one of `KINDS`.
        group_size: devices that take part in one; 2 for a permutation's pairs.
        count: how many run, loops multiplied out.
        result_bytes: bytes of their results on one device.
        sent_bytes: bytes one device must send for them.
    """

    kind: str
    group_size: int
    count: int
    result_bytes: int
    sent_bytes: int


def collectives(schedule: Schedule, devices: int) -> list[Collective]:
    """All collectives of a program of so many devices, in the order of `KINDS`, then group size.

    Asynchronous ones count once, where they start. A sum of which each device at once cuts its
    share, TPUs' way to write it, counts as the reduce-scatter it is.
    """
    totals: dict[tuple[str, int], list[float]] = {}
    for run in schedule.runs:
        for instruction in run.computation:
            kind = kind_of(instruction)
            if kind is None or continues(run, instruction):
                continue
            kind = "reduce-scatter" if _scatters(run, instruction, kind) else kind
            size = group_size(instruction, devices)
            operands = run.computation.operands(instruction)
            brought = sum(a.bytes for operand in operands for a in operand.shape)
            total = totals.setdefault((kind, size), [0, 0, 0])
            total[0] += run.times
            total[1] += run.times * brought * _RESULT.get(kind, lambda n: 1)(size)
            total[2] += run.times * brought * _SENT[kind](size)
    order = sorted(totals, key=lambda key: (KINDS.index(key[0]), key[1]))
    return [Collective(*key, *(round(value) for value in totals[key])) for key in order]


def kind_of(instruction: Instruction) -> str | None:
    """The collective that an instruction is, or starts; None for everything else."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in _SENT else None


def continues(run: Run, instruction: Instruction) -> bool:
    """Whether this is a later part of a collective that TPUs run beside a chain of fusions.

    Each fusion of the chain repeats the collective; only the first holds the call that starts it.
    """
    if not run.fused or "chain_id=" not in instruction.attributes:
        return False
    return not any("AsyncCollectiveStart" in other.attributes for other in run.computation)


def _scatters(run: Run, instruction: Instruction, kind: str) -> bool:
    """Whether a sum inside a fusion is only ever cut to this device's share."""
    users = run.computation.users[instruction.name]
    cut = bool(users) and all(user.opcode == "dynamic-slice" for user in users)
    return run.fused and kind == "all-reduce" and cut


def group_size(instruction: Instruction, devices: int) -> int:
    """Devices that take part, of the three ways to write groups; all where none are given."""
    if "source_target_pairs=" in instruction.attributes:
        return 2
    written = re.search(
        r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]<=|mesh\[([^\]]*)\]\s*\{([^}]*)\})",
        instruction.attributes,
    )
    if written is None:
        return devices
    listed, size, mesh, axes = written.groups()
    if listed:
        return len(listed.split(","))
    if size:
        return int(size)
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh))
    parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes)
    return math.prod(int(part or sizes[axis]) for axis, part in parts)

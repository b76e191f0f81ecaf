"""What one device computes and moves in one call of a program, counted from its HLO."""

import dataclasses
import math
import re

import numpy as np

from videobooth_jax.aot.collectives import continues, kind_of
from videobooth_jax.aot.hlo import Array, Computation, Instruction, Module
from videobooth_jax.aot.loops import Run, Schedule

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "async-start",
    "async-update",
}
"""Operations that move nothing themselves."""
_PLACING = ("ConcatBitcast", "AllocateBuffer", "AsyncCollective", "Sharding")
"""Targets of custom calls that only say where an array lies."""
_CUTS = {"slice", "dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one device, loops multiplied out.

    Attributes:
        flops: of matmuls and convolutions, 2 per multiply-add; products with padding not counted.
        hbm_bytes: read from and written to main memory between fusions; what the compiler keeps
            on the chip is not counted, nor is the padding of tiled layouts.
        kernels: calls of kernels, of Pallas or of the compiler's own (it takes one for attention),
            whose FLOPs the program does not tell.
    """

    flops: int
    hbm_bytes: int
    kernels: int


def work(module: Module, schedule: Schedule) -> Work:
    """Count a parsed program."""
    flops = moved = kernels = 0
    for run in schedule.runs:
        for instruction in run.computation:
            flops += run.times * _flops(run.computation, instruction)
            kernels += run.times * ("tpu_custom_call" in instruction.attributes)
            if not run.fused:
                moved += run.times * _moved(module, run.computation, instruction)
    return Work(flops, moved, kernels)


def _flops(computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (operand.shape[0] for operand in computation.operands(instruction))
    if instruction.opcode == "convolution":
        return 2 * _multiply_adds(instruction, left, right)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted.group(1).split(",")] if contracted else []
    return 2 * instruction.shape[0].elements * math.prod(left.dims[axis] for axis in axes)


def _multiply_adds(instruction: Instruction, left: Array, right: Array) -> int:
    """Output batch x output features x kernel's input features x pairs of output place and tap.

    TPUs write batched matmuls as convolutions over the batch, with dilations that leave one pair
    per place; so pairs that fall on padding or between dilated values are not counted.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"convolution {instruction.name} has no dim_labels")
    at_left, at_right, at_out = labels.groups()
    result = instruction.shape[0]
    count = result.dims[at_out.index("b")] * result.dims[at_out.index("f")]
    count *= right.dims[at_right.index("i")]
    window = _window(instruction.attributes)
    for i, axis in enumerate(sorted(set(at_out) - {"b", "f"})):
        count *= _pairs(
            left.dims[at_left.index(axis)],
            result.dims[at_out.index(axis)],
            right.dims[at_right.index(axis)],
            {name: values[i] for name, values in window.items()},
        )
    return count


def _window(attributes: str) -> dict[str, list[int]]:
    """``window={size=3x3 stride=2x2 pad=0_1x0_1}`` as numbers per axis; of pads the lower one."""
    written = re.search(r"window=\{([^}]*)\}", attributes)
    parts = dict(part.split("=") for part in written.group(1).split()) if written else {}
    return {
        name: [int(value.split("_")[0]) for value in values.split("x")]
        for name, values in parts.items()
    }


def _pairs(size: int, outputs: int, taps: int, window: dict[str, int]) -> int:
    """Pairs of output place and kernel tap along one axis that meet a value of the input."""
    dilation = window.get("lhs_dilate", 1)
    start = np.arange(outputs) * window.get("stride", 1) - window.get("pad", 0)
    place = start[:, None] + np.arange(taps) * window.get("rhs_dilate", 1)
    inside = (place >= 0) & (place <= (size - 1) * dilation) & (place % dilation == 0)
    return int(inside.sum())


def _bytes(arrays: tuple[Array, ...]) -> int:
    return sum(array.bytes for array in arrays if array.hbm)


def _moved(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Main memory traffic of an instruction that is not inside a fusion."""
    opcode, operands = instruction.opcode, computation.operands(instruction)
    placing = opcode == "custom-call" and any(t in instruction.attributes for t in _PLACING)
    if opcode in _FREE or opcode.endswith("-done") or placing:
        return 0
    if opcode == "fusion":
        inside = module.computations[instruction.called("calls") or ""]
        return _fusion(inside, Run(inside, 1, instruction))
    if opcode in _CUTS:
        return _part(instruction.shape, operands[0].shape) + _bytes(instruction.shape)
    if opcode == "dynamic-update-slice":
        return _bytes(operands[1].shape) + _part(operands[1].shape, instruction.shape)
    results = instruction.shape
    if opcode == "copy-start":
        results = results[:1]
    elif opcode.endswith("-start") and len(results) > len(operands):
        results = results[len(operands) : 2 * len(operands)]
    if opcode == "slice-start":
        return _part(results, operands[0].shape) + _bytes(results)
    return sum(_bytes(operand.shape) for operand in operands) + _bytes(results)


def _part(part: tuple[Array, ...], whole: tuple[Array, ...]) -> int:
    """Bytes of ``part``, taken from or put into ``whole``, if that lies in main memory."""
    return sum(array.bytes for array in part) if whole[0].hbm else 0


def _fusion(inside: Computation, run: Run) -> int:
    """What a fusion reads of its operands and writes of its results."""
    root = inside.instructions[inside.root]
    if "AsyncCollectiveDone" in root.attributes:
        return 0
    several = root.opcode == "tuple" or "AsyncCollectiveStart" in root.attributes
    results = inside.operands(root) if several else [root]
    made = [r for r in results if r.opcode != "parameter" and not _handed_on(run, r)]
    read = sum(_read(inside, run, parameter) for parameter in inside.parameters)
    return read + sum(_written(inside, result) for result in made)


def _handed_on(run: Run, instruction: Instruction) -> bool:
    """Whether this is a collective that only goes on here: it moved where it started."""
    return kind_of(instruction) is not None and continues(run, instruction)


def _read(inside: Computation, run: Run, value: Instruction) -> int:
    """Bytes read of a parameter: its cuts alone where nothing else of it is used."""
    total = 0
    for user in inside.users[value.name]:
        first = user.operands[0] == value.name
        if user.opcode == "tuple" or _handed_on(run, user):
            continue
        if user.opcode == "bitcast":
            total += _read(inside, run, user)
        elif user.opcode in _CUTS and first:
            total += _part(user.shape, value.shape)
        elif user.opcode != "dynamic-update-slice" or not first:
            total += _bytes(value.shape)
    return min(total, _bytes(value.shape))


def _written(inside: Computation, result: Instruction) -> int:
    """Bytes written of a result: the new part alone where the rest is updated in place."""
    origin = result
    while origin.opcode == "bitcast":
        origin = inside.operands(origin)[0]
    if origin.opcode == "dynamic-update-slice":
        return _part(inside.operands(origin)[1].shape, result.shape)
    return _bytes(result.shape)

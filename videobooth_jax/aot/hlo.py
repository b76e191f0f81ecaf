"""XLA's optimised programs, as text, read into computations of instructions.

Only what costs are counted from is kept: names, operation, result shape, operands, and the
attributes as text. A program of several devices is the program of one of them: shapes are those of
its own share.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")
_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) .*->.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape.

    Attributes:
        dtype: as XLA writes it, ``bf16``.
        dims: sizes of the axes.
        hbm: whether it lies in a device's main memory; TPUs also place arrays in on-chip memory.
    """

    dtype: str
    dims: tuple[int, ...]
    hbm: bool = True

    @property
    def elements(self) -> int:
        """Number of values."""
        return functools.reduce(lambda a, b: a * b, self.dims, 1)

    @property
    def bytes(self) -> int:
        """Bytes of all values, without the padding of a tiled layout."""
        return -(-self.elements * _bits(self.dtype) // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """``%name = shape opcode(operands), attributes``.

    Attributes:
        shape: the result's arrays, a tuple's in order.
        argument: the text between the parentheses.
        operands: names in ``argument``.
        attributes: the text behind the parentheses.
    """

    name: str
    opcode: str
    shape: tuple[Array, ...]
    argument: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str | None:
        """The computation an attribute such as ``calls``, ``body`` or ``to_apply`` names."""
        found = re.search(rf"\b{attribute}=%([\w.\-]+)", self.attributes)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; ``root`` names the one whose result is returned."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions whose results an instruction takes."""
        return [self.instructions[name] for name in instruction.operands]

    @property
    def parameters(self) -> list[Instruction]:
        """Parameters in order."""
        found = [i for i in self if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.argument))

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that take its result."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self:
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return users


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """Read what ``compiled.as_text()`` gives.

    Raises:
        ValueError: no entry computation is in it.
    """
    computations: dict[str, Computation] = {}
    entry = name = root = None
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, instructions = header.group(2), {}
            entry = name if header.group(1) else entry
        elif name and line.startswith("}"):
            computations[name] = Computation(name, instructions, root or "")
            name = root = None
        elif name and (match := _INSTRUCTION.match(line)):
            instruction = _instruction(match.group(2), _COMMENT.sub("", match.group(3)))
            instructions[instruction.name] = instruction
            root = instruction.name if match.group(1) else root
    if entry is None:
        raise ValueError("this is no HLO program: it has no ENTRY computation")
    return Module(computations, computations[entry])


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    argument = rest[start + 1 : end - 1]
    opcode = rest[:start]
    operands = () if opcode in ("constant", "parameter") else tuple(_NAME.findall(argument))
    return Instruction(name, opcode, arrays(shape), argument, operands, rest[end:])


def _closing(text: str, start: int) -> int:
    """One past the parenthesis that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"unbalanced parentheses: {text[start : start + 80]}")


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays in a shape as XLA writes it: ``bf16[8,128]{1,0:T(8,128)S(1)}``, or a tuple."""
    return tuple(
        Array(
            dtype,
            tuple(int(size.lstrip("<=")) for size in dims.split(",") if size),
            hbm="S(" not in layout or "S(0)" in layout,
        )
        for dtype, dims, layout in _ARRAY.findall(shape)
    )


def _bits(dtype: str) -> int:
    """Bits of one value; the digits of ``bf16``, ``f8e4m3fn``, ``s32`` say them."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+?(\d+)", dtype)
    if digits is None:
        raise ValueError(f"unknown element type {dtype!r}")
    return int(digits.group(1))

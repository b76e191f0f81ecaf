"""What a function costs, counted from its jaxpr: nothing is compiled, run or allocated.

XLA's own cost analysis counts the body of a loop once and sees only what it has already fused;
this walks the traced program instead, drops what the results do not need, and multiplies loop
bodies by their trip counts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters import partial_eval

PEAK_FLOPS = {
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""``device_kind`` of a JAX device -> its dense bfloat16 peak, FLOP/s, by the makers' data sheets. A
v3 or 7x chip is two devices; a v4 chip is one, its two cores together (the default there).
"""


@dataclasses.dataclass(frozen=True)
class Costs:
    """Counts of one call.

    Attributes:
        convolution_flops: of ``conv_general_dilated``, 2 per multiply-add, padding counted as work.
        matmul_flops: of ``dot_general``, 2 per multiply-add.
        bytes: read and written if every operation went through memory: an upper estimate, since
            compilers fuse.
    """

    convolution_flops: int = 0
    matmul_flops: int = 0
    bytes: int = 0

    @property
    def flops(self) -> int:
        """All floating point operations counted; elementwise ones and reductions are not."""
        return self.convolution_flops + self.matmul_flops

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.convolution_flops + other.convolution_flops,
            self.matmul_flops + other.matmul_flops,
            self.bytes + other.bytes,
        )

    def __mul__(self, times: int) -> "Costs":
        return Costs(self.convolution_flops * times, self.matmul_flops * times, self.bytes * times)


def count_costs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Costs:
    """Count ``function(*args, **kwargs)``.

    Args:
        function: any traceable function, jitted or not.
        *args: arrays or `jax.ShapeDtypeStruct`s, in any pytree.
        **kwargs: the same by name.

    Raises:
        ValueError: if a ``while`` loop, whose trip count nobody can know, does work worth counting.
    """
    closed = jax.make_jaxpr(function)(*args, **kwargs)
    needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return count_jaxpr(needed)


def count_jaxpr(jaxpr: Jaxpr) -> Costs:
    """Count an open jaxpr as it stands, without removing anything. Raises as `count_costs` does."""
    return sum((_count_equation(equation) for equation in jaxpr.eqns), Costs())


def _count_equation(equation: JaxprEqn) -> Costs:
    name = equation.primitive.name
    if name in _LEAVES:
        return _LEAVES[name](equation) + _traffic(equation)
    inner = [count_jaxpr(jaxpr) for jaxpr in jaxprs_in_params(equation.params)]
    if name in _CONTROL:
        return _CONTROL[name](equation, inner)
    return sum(inner, Costs()) if inner else _traffic(equation)


def _traffic(equation: JaxprEqn) -> Costs:
    return Costs(bytes=sum(_num_bytes(v.aval) for v in (*equation.invars, *equation.outvars)))


def _num_bytes(aval: Any) -> int:
    """Bytes of an array; tokens and such take none."""
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    return 0 if shape is None or dtype is None else math.prod(shape) * dtype.itemsize


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _matmul(equation: JaxprEqn) -> Costs:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = _shape(equation.invars[0]), _shape(equation.outvars[0])
    depth = math.prod(left[axis] for axis in contracted)
    return Costs(matmul_flops=2 * math.prod(result) * depth)


def _convolution(equation: JaxprEqn) -> Costs:
    """Each output value takes one kernel column; ``lhs_dilation``'s zeros are not multiplied."""
    params = equation.params
    kernel, result = _shape(equation.invars[1]), _shape(equation.outvars[0])
    column = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
    multiplied = math.prod(result) * column // math.prod(params["lhs_dilation"])
    return Costs(convolution_flops=2 * multiplied)


def _scan(equation: JaxprEqn, inner: list[Costs]) -> Costs:
    return sum(inner, Costs()) * equation.params["length"]


def _cond(equation: JaxprEqn, inner: list[Costs]) -> Costs:
    """The dearest branch; where platforms have ways of their own, that of all others."""
    platforms = equation.params.get("branches_platforms")
    if platforms is not None and None in platforms:
        return inner[platforms.index(None)]
    return max(inner, key=lambda costs: (costs.flops, costs.bytes))


def _kernel(equation: JaxprEqn, inner: list[Costs]) -> Costs:
    """A Pallas kernel: its body once for every place of the grid; between them, what lies in main
    memory is its operands and results alone.
    """
    each = dataclasses.replace(sum(inner, Costs()), bytes=0)
    return each * math.prod(equation.params["grid_mapping"].grid) + _traffic(equation)


def _on_devices(equation: JaxprEqn, inner: list[Costs]) -> Costs:
    """``shard_map``: what one device does, on all of them; done twice where two hold the same."""
    mesh, axes = equation.params["mesh"], equation.params["newly_manual_axes"]
    return sum(inner, Costs()) * math.prod(mesh.shape[axis] for axis in axes)


def _while(equation: JaxprEqn, inner: list[Costs]) -> Costs:
    if any(costs.flops for costs in inner):
        raise ValueError(
            "a while loop holds matmuls or convolutions, and its trip count is not known before "
            "it runs: write it as jax.lax.scan, or as fori_loop with constant bounds"
        )
    return sum(inner, Costs())


_LEAVES: dict[str, Callable[[JaxprEqn], Costs]] = {
    "dot_general": _matmul,
    "conv_general_dilated": _convolution,
}

_CONTROL: dict[str, Callable[[JaxprEqn, list[Costs]], Costs]] = {
    "scan": _scan,
    "cond": _cond,
    "while": _while,
    "pallas_call": _kernel,
    "shard_map": _on_devices,
}

"""What the benchmarks of one step share: numbers for shapes, seconds, memory."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from videobooth_jax.costs import Costs


def fill(specs: Any) -> Any:
    """Small random numbers of the given shapes, zeros where they are whole numbers."""

    def leaf(index: int, spec: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.dtypes.issubdtype(spec.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(index), spec.size)
            return keys.reshape(spec.shape)
        if not jnp.issubdtype(spec.dtype, jnp.floating):
            return jnp.zeros(spec.shape, spec.dtype)
        flat = jax.random.uniform(jax.random.key(index), (spec.size,), spec.dtype, -0.02, 0.02)
        return flat.reshape(spec.shape)

    leaves, structure = jax.tree.flatten(specs)
    return jax.tree.unflatten(structure, [leaf(i, x) for i, x in enumerate(leaves)])


def timed(step: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of ``step``, which waits for its result, after one call to warm up; peak memory of
    the process so far.
    """
    step()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "seconds": round(statistics.median(seconds), 3),
        "seconds_of_each": [round(s, 3) for s in seconds],
        "peak_memory_gib": round(peak / 2**30, 2),
        "device": jax.devices()[0].device_kind,
    }


def counts(costs: Costs) -> dict[str, float]:
    """Counts of a step, in 1e12."""
    return {
        "tflop": _tera(costs.flops),
        "tflop_convolutions": _tera(costs.convolution_flops),
        "tflop_matmuls": _tera(costs.matmul_flops),
        "terabytes_at_most": _tera(costs.bytes),
    }


def _tera(count: int) -> float:
    return float(f"{count / 1e12:.5g}")

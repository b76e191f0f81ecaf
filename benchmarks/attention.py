"""Memory and time of the attention implementations on one shape, as JSON lines.

    python benchmarks/attention.py 2 16 1024 320 xla parts map  # seconds, on this machine
    python benchmarks/attention.py 1 1 4096 320 xla pallas --topology v5e:2x4  # a TPU's compiler
    python benchmarks/attention.py 8 16 4096 320 xla pallas --topology v5e:2x4 --split

The shape is (batch, frames, tokens, channels), of eight heads. Every frame attends to frame 0 and
to the frame before, a single frame to itself. With ``--topology`` nothing runs: libtpu compiles for
a TPU that is not there and says what its program needs, of one device, or with ``--split`` of each
when the batch is split over all; ``gigabytes_accessed`` counts the body of a
loop once, so it says little about ``map`` and ``blocks``. Seconds are the least of ``--repeats``
rounds; in a round the implementations take turns.
"""

import argparse
import functools
import json
import os
import time
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp

from videobooth_jax.models.attention import first_and_previous
from videobooth_jax.models.attention_ops import IMPLEMENTATIONS, attention_over_parts
from videobooth_jax.sharding import MeshSizes, batch_shardings, known, make_mesh


def program(implementation: str, gradient: bool, query: Any, key: Any, value: Any) -> Any:
    def attend(query: Any, key: Any, value: Any) -> Any:
        parts = first_and_previous(key, value)
        return attention_over_parts(query, parts, num_heads=8, implementation=implementation)

    def loss(*arguments: Any) -> Any:
        return jnp.sum(jnp.sin(attend(*arguments).astype(jnp.float32)))

    return (jax.grad(loss, (0, 1, 2)) if gradient else attend)(query, key, value)


def report(compiled: Any) -> dict[str, float]:
    costs, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    return {
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "gigabytes_accessed": round(costs.get("bytes accessed", 0) / 1e9, 3),
    }


def seconds(compiled: dict[str, Any], spec: Any, repeats: int) -> dict[str, float]:
    keys = jax.random.split(jax.random.key(0), 3)
    arguments = [jax.random.normal(key, spec.shape, spec.dtype) for key in keys]
    arguments = jax.device_put(arguments, spec.sharding)
    least = dict.fromkeys(compiled, float("inf"))
    for _ in range(repeats + 1):  # caches are warm after the first round, the slowest anyway
        for name, run in compiled.items():
            started = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            least[name] = min(least[name], time.perf_counter() - started)
    return least


def devices_of(topology: str) -> Any:
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", type=int, nargs=4)
    parser.add_argument("implementations", nargs="+", choices=sorted(IMPLEMENTATIONS))
    parser.add_argument("--topology", help="compile for this TPU instead, such as v5e:2x4")
    parser.add_argument("--split", action="store_true", help="the batch, over all devices")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    devices = devices_of(args.topology) if args.topology else None
    mesh = make_mesh(MeshSizes(data=-1 if args.split else 1), devices)
    sharding = batch_shardings(mesh, ("latents",))["latents"]
    spec = jax.ShapeDtypeStruct(tuple(args.shape), args.dtype, sharding=sharding)
    for gradient in (False, True):
        compiled = {
            name: jax.jit(known(mesh)(functools.partial(program, name, gradient)))
            .lower(spec, spec, spec)
            .compile()
            for name in args.implementations
        }
        times = {} if args.topology else seconds(compiled, spec, args.repeats)
        for name, run in compiled.items():
            line = {"implementation": name, "gradient": gradient, **report(run)}
            if name in times:
                line["seconds"] = round(times[name], 4)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""What one optimizer step of a run costs, on random weights and data, as JSON.

    python benchmarks/train_step.py --config=configs/videobooth_fine.py --count-only
    python benchmarks/train_step.py --config=configs/sprites_fine.py --config.data.batch_size=16

Any run of `videobooth train`, with its options; on all devices here, as it would train. FLOPs are
2 per multiply-add of matmuls and convolutions, forward and backward, what is rematerialised
counted again; bytes are an upper estimate, see `costs`. A full-size step in float32 takes minutes
and some 20 GB on a CPU: count it.
"""

import argparse
import json
import time

import jax
from measuring import counts, fill, timed

from videobooth_jax.config_files import read_config
from videobooth_jax.costs import count_costs
from videobooth_jax.sharding import make_mesh
from videobooth_jax.training.config import from_config_dict
from videobooth_jax.training.program import abstract_batch, check_batches, train_program


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--repeats", type=int, default=3, help="timed steps after one to warm up")
    parser.add_argument("--count-only", action="store_true")
    args, overrides = parser.parse_known_args()
    config = from_config_dict(read_config(args.config, overrides))
    mesh = make_mesh(config.mesh)
    check_batches(config, mesh)
    program, batch = train_program(config, mesh), abstract_batch(config, mesh)
    report = {
        "name": config.name,
        "batch_size": config.data.batch_size,
        "num_frames": config.data.num_frames,
        "remat": config.model.unet.remat,
        "devices": mesh.size,
        **counts(count_costs(program.step, program.state, batch)),
    }
    if not args.count_only:
        started = time.perf_counter()
        compiled = program.step.lower(program.state, batch).compile()
        report["compile_seconds"] = round(time.perf_counter() - started, 1)
        specs = (program.state, batch)
        state, given = jax.device_put(fill(specs), jax.tree.map(lambda x: x.sharding, specs))

        def step() -> None:
            nonlocal state
            state, metrics = compiled(state, given)
            jax.block_until_ready(metrics)

        report |= timed(step, args.repeats)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

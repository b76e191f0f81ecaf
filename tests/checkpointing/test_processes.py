"""Two processes save and restore together, as on a pod."""

import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax, numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from videobooth_jax.checkpointing import TrainCheckpoints, load_model, model_directory, save_model
from videobooth_jax.models.sizes import SIZES

process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, process)
mesh = Mesh(np.asarray(jax.devices()), ("data",))
split, everywhere = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))

def put(x, sharding):
    return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

def own(x):
    return np.asarray(x.addressable_data(0))

numbers = np.arange(32, dtype=np.float32).reshape(8, 4)
key = jax.jit(lambda: jax.random.key(3), out_shardings=everywhere)()
state = {"w": put(numbers, split), "b": put(numbers[0], everywhere), "key": key}
with TrainCheckpoints(folder + "/run", keep=2) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, state, f"{step} of {process}")
    checkpoints.wait()
    sync_global_devices("saved")
    assert checkpoints.steps() == (2, 3)
    restored, position = checkpoints.restore(state)
assert position == f"3 of {process}"
assert {n: x.sharding for n, x in restored.items()} == {n: x.sharding for n, x in state.items()}
assert np.array_equal(own(restored["w"]), numbers[4 * process : 4 * process + 4])
assert np.array_equal(own(jax.random.key_data(restored["key"])), own(jax.random.key_data(key)))

struct = jax.ShapeDtypeStruct((8, 4), np.float32)
model_directory.abstract_params = lambda _: {"unet": {"w": struct}}
save_model(folder + "/model", SIZES["sprites"], {"unet": {"w": state["w"]}})
_, params = load_model(folder + "/model", shardings=split)
assert np.array_equal(own(params["unet"]["w"]), numbers[4 * process : 4 * process + 4])
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(i), port, str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    ends = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(err for _, err in ends)

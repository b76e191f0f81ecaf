"""What the launchers rely on: the image's contents, and how JAX finds its processes under Slurm."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_image_holds_what_hosts_read():
    text = (ROOT / "launch" / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()}
    assert {"videobooth_jax", "configs", "launch"} <= copied
    assert not [name for name in copied if not (ROOT / name).exists()]
    [extras] = re.findall(r"\.\[([a-z,]+)\]", text)
    setup = (ROOT / "setup.py").read_text()
    assert not [extra for extra in extras.split(",") if f'"{extra}": [' not in setup]


PROCESS = """
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize()
from jax._src.distributed import global_state
print(jax.process_index(), jax.process_count(), global_state.coordinator_address)
"""


def test_jax_finds_the_processes_of_a_slurm_step_and_the_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    common = os.environ | step | {"JAX_COORDINATOR_PORT": port, "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env=common | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert said == [["0", "2", f"localhost:{port}"], ["1", "2", f"localhost:{port}"]]

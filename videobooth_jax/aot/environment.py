"""What the compiler for TPUs must find in the environment, before JAX is imported."""

import os

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # there is no machine to ask which TPU it has
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # of no consequence: the topology is named
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # only the compiler is used
}


def set_environment() -> None:
    """Set what is not set already."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)

"""TPU slices that can be rented, by the names gcloud and XPK know them by.

Names count chips for v5e and v6e, TensorCores (two a chip) for v4 and v5p. Topologies, labels and
names are those of XPK 1.16's table and of Google Kubernetes Engine's pages; runtime versions are
the Cloud TPU pages'. TPU7x is left out: the Cloud TPU API does not rent it.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """One slice: ``gke`` is its node label, ``runtime`` the software of its TPU VMs."""

    accelerator: str
    topology: str
    gke: str
    runtime: str

    @property
    def chips(self) -> int:
        """How many chips it has; each is one JAX device."""
        return math.prod(int(side) for side in self.topology.split("x"))

    @property
    def chips_per_host(self) -> int:
        """Chips of one Kubernetes node, of a machine type that ends in ``-1t`` or ``-4t``."""
        return min(self.chips, 4)

    @property
    def hosts(self) -> int:
        """Kubernetes nodes it spans."""
        return self.chips // self.chips_per_host


FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
CUBES = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8"
GENERATIONS = (
    ("v4", 2, "tpu-v4-podslice", "tpu-ubuntu2204-base", CUBES),
    ("v5litepod", 1, "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite", FLAT),
    ("v5p", 2, "tpu-v5p-slice", "v2-alpha-tpuv5", CUBES),
    ("v6e", 1, "tpu-v6e-slice", "v2-alpha-tpuv6e", FLAT),
)
"""Name, what the number counts per chip, node label, runtime version, topologies."""


def _slices() -> dict[str, Slice]:
    slices = {}
    for name, per_chip, gke, runtime, topologies in GENERATIONS:
        for topology in topologies.split():
            chips = math.prod(map(int, topology.split("x")))
            accelerator = f"{name}-{chips * per_chip}"
            slices[accelerator] = Slice(accelerator, topology, gke, runtime)
    return slices


SLICES = _slices()


def find_slice(accelerator: str) -> Slice:
    """The slice of that name.

    Raises:
        ValueError: there is none; all names are listed.
    """
    if accelerator not in SLICES:
        raise ValueError(f"unknown accelerator {accelerator!r}; choose one of {', '.join(SLICES)}")
    return SLICES[accelerator]

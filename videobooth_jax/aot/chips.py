"""What TPU chips can do, as published; the yardsticks of `roofline`.

Sources: cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x for peak bfloat16 compute, memory
bandwidth and interconnect. Those pages give interconnect (ICI) bandwidth of a chip with all its
links in both directions; half of it, which is what a chip can *send*, stands here. For v4 it is 6
links of 50 GB/s each way (Jouppi et al. 2023, arXiv 2304.01433). Memory capacity is what libtpu
0.0.52 lets a program use: the published size less what the system keeps.
"""

import dataclasses
import re

from videobooth_jax.costs import PEAK_FLOPS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation. Figures are per chip; `per_device` makes them those of a JAX device.

    Attributes:
        peak_flops: bfloat16 FLOP/s.
        hbm_bytes: bytes of memory a program may use.
        hbm_bandwidth: bytes/s to and from memory.
        ici_bandwidth: bytes/s sent over all links to other chips together.
        devices: JAX devices a chip shows itself as; v4 and v5p join their two cores to one
            ("megacore").
        examples: topologies that exist.
        options: what `get_topology_desc` must be told besides the name.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    devices: int
    examples: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def per_device(self) -> "Chip":
        """The share of one JAX device."""
        return dataclasses.replace(
            self,
            peak_flops=self.peak_flops / self.devices,
            hbm_bytes=self.hbm_bytes / self.devices,
            hbm_bandwidth=self.hbm_bandwidth / self.devices,
            ici_bandwidth=self.ici_bandwidth / self.devices,
            devices=1,
        )


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

CHIPS: dict[str, Chip] = {
    "v4": Chip(
        PEAK_FLOPS["TPU v4"],
        30.75 * GIB,
        1.2e12,
        300e9,
        1,
        _CUBES,
        (("chip_config_name", "megacore"),),
    ),
    "v5e": Chip(PEAK_FLOPS["TPU v5 lite"], 15.75 * GIB, 0.819e12, 200e9, 1, _FLAT),
    "v5p": Chip(PEAK_FLOPS["TPU v5"], 95.73 * GIB, 2.765e12, 600e9, 1, _CUBES),
    "v6e": Chip(PEAK_FLOPS["TPU v6 lite"], 31.24 * GIB, 1.638e12, 400e9, 1, _FLAT),
    "tpu7x": Chip(2 * PEAK_FLOPS["TPU7x"], 2 * 94.74 * GIB, 7.38e12, 600e9, 2, _CUBES),
}
"""Generation, as topology names begin -> chip."""


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as ``"v5e:16x16"``.

    Raises:
        ValueError: unknown generation or no shape; the known ones are listed.
    """
    generation, _, shape = topology.partition(":")
    if generation not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise ValueError(f"there is no topology {topology!r}; {known_topologies()}")
    return CHIPS[generation]


def known_topologies() -> str:
    """All generations with usual shapes, for error messages."""
    lines = (f"{name}: {' '.join(chip.examples)}" for name, chip in CHIPS.items())
    return "known are, as GENERATION:SHAPE,\n  " + "\n  ".join(lines)

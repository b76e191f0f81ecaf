"""How fast a program can be at best on a chip: the roofline (Williams et al. 2009)."""

import dataclasses

from videobooth_jax.aot.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Least seconds of one call, by what it must compute, move and send on each device.

    Attributes:
        compute_seconds: FLOPs over the peak for bfloat16.
        hbm_seconds: bytes from and to memory over its bandwidth.
        ici_seconds: bytes sent over the bandwidth of all links of a chip together.
        mfu: the most that model FLOPs can use of the peak (model FLOPs utilisation, Chowdhery et
            al. 2022), if all three overlap perfectly.
    """

    compute_seconds: float
    hbm_seconds: float
    ici_seconds: float
    mfu: float

    @property
    def seconds(self) -> float:
        """The bound: the largest of the three."""
        return max(self.compute_seconds, self.hbm_seconds, self.ici_seconds)

    @property
    def binds(self) -> str:
        """Which of the three it is."""
        names = ("compute", "HBM", "ICI")
        times = (self.compute_seconds, self.hbm_seconds, self.ici_seconds)
        return names[times.index(max(times))]


def roofline(
    chip: Chip, model_flops: float, flops: float, hbm_bytes: float, sent_bytes: float
) -> Roofline:
    """The bound of a program on one device.

    Args:
        chip: of one device, see `Chip.per_device`.
        model_flops: what the model needs, this device's share.
        flops: what the program computes; where that is less, as products with padding are left
            out, ``model_flops`` count.
        hbm_bytes: moved from and to memory.
        sent_bytes: sent to other devices.
    """
    compute = max(flops, model_flops) / chip.peak_flops
    hbm, ici = hbm_bytes / chip.hbm_bandwidth, sent_bytes / chip.ici_bandwidth
    bound = max(compute, hbm, ici)
    return Roofline(compute, hbm, ici, model_flops / chip.peak_flops / bound)

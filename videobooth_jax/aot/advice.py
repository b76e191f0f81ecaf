"""What to change in a run that does not fit in memory."""

from collections.abc import Callable, Mapping

from videobooth_jax.aot.report import Report
from videobooth_jax.training.config import TrainConfig

Remedy = Callable[[TrainConfig, int, Mapping[str, int]], str]
"""(config, rows on a device, mesh) -> a change, or nothing where it is no help."""


def _fewer_rows(config: TrainConfig, rows: int, mesh: Mapping[str, int]) -> str:
    if rows < 2:
        return ""
    return f"--config.data.batch_size={config.data.batch_size // 2}: {rows // 2} rows on a device"


def _in_parts(config: TrainConfig, rows: int, mesh: Mapping[str, int]) -> str:
    parts = 2 * config.accumulate_steps
    if rows % parts:
        return ""
    return f"--config.accumulate_steps={parts}: the same batch, part by part"


def _compute_again(config: TrainConfig, rows: int, mesh: Mapping[str, int]) -> str:
    if config.model.unet.remat != "none":
        return ""
    return "--config.model.unet.remat=blocks: activations computed again instead of kept"


def _in_pieces(config: TrainConfig, rows: int, mesh: Mapping[str, int]) -> str:
    if mesh.get("data", 1) < 2:
        return ""
    pieces = 2 * mesh.get("fsdp", 1)
    return f"--config.mesh.fsdp={pieces}: weights and moments split over {pieces} devices"


def _split_clips(config: TrainConfig, rows: int, mesh: Mapping[str, int]) -> str:
    parts = 2 * mesh.get("frames", 1)
    if mesh.get("data", 1) < 2 or config.data.num_frames % parts:
        return ""
    return f"--config.mesh.frames={parts}: the frames of a clip split over {parts} devices"


REMEDIES: dict[str, tuple[Remedy, ...]] = {
    "train": (_fewer_rows, _in_parts, _compute_again, _in_pieces, _split_clips),
    "sample": (_fewer_rows, _in_pieces, _split_clips),
}
"""What was compiled -> changes, the simplest first."""


def advice(config: TrainConfig, report: Report) -> str:
    """Why a program does not fit and what helps, one change a line."""
    rows = config.data.batch_size // (report.mesh.get("data", 1) * report.mesh.get("fsdp", 1))
    changes = [remedy(config, rows, report.mesh) for remedy in REMEDIES[report.what]]
    lines = [f"  {change}" for change in changes if change]
    larger = "  a topology of more, or larger, chips"
    return "\n".join(["it does not fit into the HBM of a device. Helps:", *lines, larger])

"""Compile a list of runs for TPU topologies, and make the tables of docs/performance.md of it.

    python benchmarks/tpu_tables.py           # compile what has no result yet, then print tables
    python benchmarks/tpu_tables.py --tables  # print the tables of the results there are

Every case is a process of its own (the compiler keeps its memory) and leaves one JSON file in
docs/results/tpu/; stopped and started again, the script goes on with the first case that has none.
A full-size case takes a quarter of an hour to hours on a few CPU cores.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "tpu"


@dataclasses.dataclass(frozen=True)
class Case:
    """One `videobooth compile`; its file is named after it."""

    what: str  # "coarse", "fine": a training step; "sample": a guided denoising step
    topology: str
    chips: int
    axis: str = "data"  # of the mesh, over which ...
    size: int = 1  # ... so many devices lie, if not all over data
    videos: int = 1  # on every device, or group of devices that share one

    @property
    def name(self) -> str:
        mesh = "" if self.axis == "data" else f"-{self.axis}-{self.size}"
        videos = "" if self.videos == 1 else f"-videos-{self.videos}"
        return f"{self.what}-{self.topology.replace(':', '-')}{mesh}{videos}"

    @property
    def rows(self) -> int:
        groups = self.chips // self.size if self.axis in ("frames", "tensor") else self.chips
        return groups * self.videos

    @property
    def scales(self) -> bool:
        """Whether it differs from others of its program in the number of v5e chips alone."""
        return self.axis == "data" and self.videos == 1 and self.topology.startswith("v5e")

    def command(self, out: Path) -> list[str]:
        stage = "coarse" if self.what == "coarse" else "fine"
        return [
            *(sys.executable, "-m", "videobooth_jax.cli", "compile"),
            f"--config=configs/videobooth_{stage}.py",
            f"--topology={self.topology}",
            f"--what={'sample' if self.what == 'sample' else 'train'}",
            f"--config.data.batch_size={self.rows}",
            *(() if self.axis == "data" else (f"--config.mesh.{self.axis}={self.size}",)),
            f"--out={out}",
        ]


V5E = (("v5e:2x4", 8), ("v5e:8x8", 64), ("v5e:16x16", 256))
OTHERS = (("v6e:2x4", 8), ("v5p:2x2x2", 8), ("v4:2x2x2", 8))
MESHES = (("fsdp", 8), ("tensor", 2))
CASES = (
    *(Case(what, *place) for what in ("fine", "coarse", "sample") for place in V5E),
    *(Case("fine", *place) for place in OTHERS),
    *(Case("fine", "v5e:2x4", 8, *mesh) for mesh in MESHES),
    Case("fine", "v5e:2x4", 8, videos=2),
)
"""v5e at three sizes, where a device's work must not grow with their number; the fine step on every
generation, on meshes that split weights or heads, and with the paper's batch of 16 on eight chips.
"""


def compile_missing(cases: Sequence[Case], results: Path) -> list[str]:
    """Run the cases that have no result. Returns the names of those that ended with an error."""
    results.mkdir(parents=True, exist_ok=True)
    failed = []
    for case in cases:
        out = results / f"{case.name}.json"
        if out.exists():
            continue
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(case.command(out), cwd=ROOT, stdout=subprocess.DEVNULL)
        if done.returncode not in (0, 1):  # 1: compiled, and does not fit; that is a result
            failed.append(case.name)
    return failed


def read(cases: Sequence[Case], results: Path) -> dict[str, dict[str, Any]]:
    """The results there are, in the order of the cases."""
    files = {case.name: results / f"{case.name}.json" for case in cases}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def mesh_of(report: dict[str, Any]) -> str:
    sizes = [f"{axis} {size}" for axis, size in report["mesh"].items() if size > 1]
    return " x ".join(sizes) or "one device"


def programs_table(reports: dict[str, dict[str, Any]]) -> str:
    """Markdown: memory, work and bound of a device, a program a row."""
    rows = [
        "| program | topology, mesh | batch | HBM, GiB | TFLOP: model, program | HBM traffic, GB |"
        " sent, GB | bound, ms | binds | MFU at most |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        start = f"| {name} | {report['topology']}, {mesh_of(report)} | {report['batch_size']} |"
        capacity, costs = report["hbm_bytes"] / 2**30, report["costs"]
        if costs is None:
            rows.append(f"{start} does not fit {capacity:.2f} | | | | | | |")
            continue
        sent = sum(part["sent_bytes"] for part in costs["collectives"])
        bound, memory = costs["roofline"], costs["memory"]["total"] / 2**30
        rows.append(
            f"{start} {memory:.2f} of {capacity:.2f}{'' if report['fits'] else ': too much'} |"
            f" {report['model_flops'] / 1e12:.2f}, {costs['work']['flops'] / 1e12:.2f} |"
            f" {costs['work']['hbm_bytes'] / 1e9:.1f} | {sent / 1e9:.3f} |"
            f" {bound['seconds'] * 1e3:.1f} | {bound['binds']} | {100 * bound['mfu']:.0f} % |"
        )
    return "\n".join(rows)


def collectives_table(reports: dict[str, dict[str, Any]]) -> str:
    """Markdown: what a device sends each step, a kind of collective a row."""
    rows = ["| program | collective | devices | count | result, GB | sent, GB |"]
    rows.append("|---|---|---|---|---|---|")
    rows += [
        f"| {name} | {part['kind']} | {part['group_size']} | {part['count']} |"
        f" {part['result_bytes'] / 1e9:.4f} | {part['sent_bytes'] / 1e9:.4f} |"
        for name, report in reports.items()
        if report["costs"] is not None
        for part in report["costs"]["collectives"]
    ]
    return "\n".join(rows)


def scaling_table(cases: Sequence[Case], reports: dict[str, dict[str, Any]]) -> str:
    """Markdown: of every program on several sizes of v5e, what a device does over what one of the
    smallest size does; the last column is how much of the smallest's bound is kept.
    """
    rows = ["| program | chips | HBM | FLOP | HBM traffic | collectives' results | efficiency |"]
    rows.append("|---|---|---|---|---|---|---|")
    first: dict[str, tuple[float, ...]] = {}
    for case in cases:
        costs = reports.get(case.name, {}).get("costs")
        if costs is None or not case.scales:
            continue
        figures = (
            costs["memory"]["total"],
            costs["work"]["flops"],
            costs["work"]["hbm_bytes"],
            sum(part["result_bytes"] for part in costs["collectives"]),
            costs["roofline"]["seconds"],
        )
        start = first.setdefault(case.what, figures)
        ratios = [now / then if then else 1.0 for now, then in zip(figures, start, strict=True)]
        shown = " | ".join(f"{ratio:.3f}" for ratio in (*ratios[:-1], 1 / ratios[-1]))
        rows.append(f"| {case.what} | {case.chips} | {shown} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="compile nothing")
    args = parser.parse_args()
    failed = [] if args.tables else compile_missing(CASES, RESULTS)
    reports = read(CASES, RESULTS)
    tables = (
        programs_table(reports),
        collectives_table(reports),
        scaling_table(CASES, reports),
    )
    print(*tables, sep="\n\n")
    if failed:
        print(f"without a result, see above: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

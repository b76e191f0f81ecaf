"""GPUs under Slurm: one sbatch script, one process per GPU.

One per GPU, because that is what JAX makes of a Slurm step: of the GPUs of its node, each process
takes the one whose number is ``SLURM_LOCALID``. So GPUs are asked for per node, not per task, for
per task each process would see one GPU, numbered 0.

Slurm sends SIGTERM to the step before the time is up; the trainer saves, every process ends with
status 75, and the script puts its own job back into the queue. A job taken away by Slurm itself
(--requeue) goes the same way. Two jobs of one name never run at once (singleton).
"""

import argparse
import re
import shlex
from dataclasses import dataclass

from launch.runs import ROOT, Run, check_name, check_shared
from launch.shell import command, with_input
from launch.train_phases import STOPPED

NOTICE = 180  # s before the time is up in which to save
TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")


@dataclass(frozen=True)
class Slurm:
    """What the job asks for. ``extra``: further options of sbatch, ``--partition=gpu``."""

    name: str
    nodes: int
    gpus_per_node: int
    cpus_per_gpu: int = 8
    time: str = "24:00:00"
    extra: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """GPUs that share a batch."""
        return self.nodes * self.gpus_per_node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`Slurm` beside the common ones."""
    add = parser.add_argument
    add("--nodes", type=int, required=True, metavar="N", help="how many machines")
    add("--gpus-per-node", type=int, required=True, metavar="N", help="of each machine")
    add("--cpus-per-gpu", type=int, default=Slurm.cpus_per_gpu, metavar="N", help="(default: 8)")
    add("--time", default=Slurm.time, metavar="LIMIT", help="of one job (default: %(default)s)")
    add("--sbatch", dest="extra", action="append", default=[], metavar="OPTION", help="further one")


def render(run: Run, asked: Slurm) -> str:
    """The script that hands the job to sbatch.

    Raises:
        ValueError: name, numbers, time, a folder or a further option cannot be meant.
    """
    check_name(asked.name)
    check_shared(run)
    if min(asked.nodes, asked.gpus_per_node, asked.cpus_per_gpu) < 1:
        raise ValueError("nodes, GPUs per node and CPUs per GPU are 1 or more")
    if not TIME.fullmatch(asked.time):
        raise ValueError(f"time {asked.time!r}: give MINUTES, HOURS:MM:SS or DAYS-HOURS")
    for option in asked.extra:
        if not re.fullmatch(r"--[a-z][-a-z]*(=\S+)?", option):
            raise ValueError(f"--sbatch={option}: give one long option, --sbatch=--partition=gpu")
    if re.search(r"\s", str(ROOT)):
        raise ValueError(f"the checkout's folder, {ROOT}, has a space, which #SBATCH lines cannot")
    mkdir = command("mkdir", "-p", run.workdir)
    return f"set -euo pipefail\n{mkdir}\n{with_input('sbatch', batch_script(run, asked))}\n"


def batch_script(run: Run, asked: Slurm) -> str:
    """The job itself."""
    options = (
        f"--job-name={asked.name}",
        f"--nodes={asked.nodes}",
        f"--ntasks-per-node={asked.gpus_per_node}",
        f"--gpus-per-node={asked.gpus_per_node}",
        f"--cpus-per-task={asked.cpus_per_gpu}",
        f"--time={asked.time}",
        f"--chdir={ROOT}",
        f"--output={run.workdir}/%x-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=TERM@{NOTICE}",
        "--dependency=singleton",
        *asked.extra,
    )
    lines = "\n".join(f"#SBATCH {option}" for option in options)
    on_each = shlex.join(run.on_each_host())
    return SCRIPT.format(options=lines, on_each=on_each, stopped=STOPPED)


SCRIPT = """#!/bin/bash
{options}
set -euo pipefail

# Of this job alone; the second phase takes the next one.
export JAX_COORDINATOR_PORT=$((20000 + SLURM_JOB_ID % 5000 * 2))

# A process that has saved and ended must not end those that still save.
status=0
srun --kill-on-bad-exit=0 --wait=0 \\
  {on_each} ||
  status=$?

if [ "$status" -eq {stopped} ]; then
  echo 'stopped before the end: back into the queue'
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""

"""Google Kubernetes Engine through XPK: ``xpk workload create``.

XPK makes a JobSet like launch/gke.py's, on a cluster of its own making. It ends a workload at an
exit status it was not told to restart on (42 and 127 to 255 are built in), so 1, a crash or a lost
host, and 75, stopped early, are named.
"""

import argparse
import shlex
from dataclasses import dataclass

from launch.accelerators import find_slice
from launch.gke import GRACE
from launch.runs import Run, check_in_bucket, check_name
from launch.shell import command
from launch.tpu_vm import PORT
from launch.train_phases import STOPPED


@dataclass(frozen=True)
class XPK:
    """Where a run is started."""

    name: str
    accelerator: str
    image: str
    project: str
    zone: str
    cluster: str
    restarts: int = 100

    @property
    def devices(self) -> int:
        """Chips that share a batch."""
        return find_slice(self.accelerator).chips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`XPK` beside the common ones."""
    add = parser.add_argument
    add("--accelerator", required=True, metavar="TYPE", help="such as v5litepod-16")
    add("--image", required=True, help="container image with this checkout, see launch/Dockerfile")
    add("--project", required=True, help="Google Cloud project of the cluster")
    add("--zone", required=True, help="zone or region of the cluster")
    add("--cluster", required=True, help="its name")
    add("--restarts", type=int, default=XPK.restarts, metavar="N", help="(default: %(default)s)")


def render(run: Run, rented: XPK) -> str:
    """The script that replaces the workload of that name.

    Raises:
        ValueError: name, accelerator or a folder cannot be meant.
    """
    check_name(rented.name)
    check_in_bucket(run)
    find_slice(rented.accelerator)
    where = (
        *(f"--workload={rented.name}", f"--cluster={rented.cluster}"),
        *(f"--project={rented.project}", f"--zone={rented.zone}"),
    )
    # exec: XPK's shell passes SIGTERM to the one process it started
    on_each_host = f"exec {shlex.join(run.on_each_host())}"
    create = command(
        *("xpk", "workload", "create", *where),
        f"--tpu-type={rented.accelerator}",
        f"--docker-image={rented.image}",
        f"--env=JAX_COORDINATOR_PORT={PORT}",
        f"--max-restarts={rented.restarts}",
        f"--restart-on-exit-codes=1,{STOPPED}",
        f"--termination-grace-period-seconds={GRACE}",
        f"--command={on_each_host}",
    )
    delete = command("xpk", "workload", "delete", *where)
    return f"{delete} ||\n  echo 'no workload of that name: a new one'\n{create}\n"

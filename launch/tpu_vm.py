"""TPU VMs through queued resources: ``gcloud compute tpus queued-resources``.

The request waits until there is a slice. Every host then runs the startup script, at every boot:
the image starts in Docker and trains. A spot slice that was taken away leaves its request
SUSPENDED; the script deletes and repeats it, and training goes on from the last checkpoint.
"""

import argparse
import re
from dataclasses import dataclass

from launch.accelerators import find_slice
from launch.runs import Run, check_in_bucket, check_name, phases
from launch.shell import command, with_input

PORT = 8490  # and the next one; free beside those of the TPU runtime (8431, 8471 to 8479)
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)/")
SECONDS = 60  # between two looks at the request


@dataclass(frozen=True)
class TPUVM:
    """Where a run is rented. ``watch``: repeat a request that lost its slice, delete a done one."""

    name: str
    accelerator: str
    image: str
    project: str
    zone: str
    service_account: str = ""
    spot: bool = False
    attempts: int = 100
    watch: bool = False

    @property
    def devices(self) -> int:
        """Chips that share a batch."""
        return find_slice(self.accelerator).chips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`TPUVM` beside the common ones."""
    add = parser.add_argument
    add("--accelerator", required=True, metavar="TYPE", help="such as v5litepod-16")
    add("--image", required=True, help="container image with this checkout, see launch/Dockerfile")
    add("--project", required=True, help="Google Cloud project that pays")
    add("--zone", required=True, help="such as us-central1-a")
    add("--service-account", default="", metavar="EMAIL", help="whose rights the hosts have")
    add("--spot", action="store_true", help="cheaper; may be taken away at any time")
    add("--attempts", type=int, default=TPUVM.attempts, metavar="N", help="(default: %(default)s)")
    add("--watch", action="store_true", help="stay, repeat lost requests, delete when done")


def render(run: Run, rented: TPUVM) -> str:
    """The script that rents and starts.

    Raises:
        ValueError: name, accelerator, zone or a folder cannot be meant.
    """
    check_name(rented.name)
    check_in_bucket(run)
    find_slice(rented.accelerator)
    if not ZONE.fullmatch(rented.zone):
        raise ValueError(f"zone {rented.zone!r}: give one such as us-central1-a")
    where = (f"--project={rented.project}", f"--zone={rented.zone}")
    gcloud = ("gcloud", "compute", "tpus", "queued-resources")
    return SCRIPT.format(
        name=rented.name,
        describe=command(*gcloud, "describe", rented.name, *where, "--format=value(state.state)"),
        delete=command(*gcloud, "delete", rented.name, *where, "--force", "--quiet"),
        create=with_input(command(*_create(rented, gcloud, where)), startup_script(run, rented)),
        finished=command("gcloud", "storage", "ls", phases(run)[-1].sealed),
        main=WATCH if rented.watch else ONCE,
    )


def _create(rented: TPUVM, gcloud: tuple[str, ...], where: tuple[str, ...]) -> tuple[str, ...]:
    extra = [f"--service-account={rented.service_account}"] if rented.service_account else []
    extra += ["--spot"] if rented.spot else []
    return (
        *(*gcloud, "create", rented.name, *where),
        f"--node-id={rented.name}",
        f"--accelerator-type={rented.accelerator}",
        f"--runtime-version={find_slice(rented.accelerator).runtime}",
        f"--scopes={SCOPE}",
        *extra,
        "--metadata-from-file=startup-script=/dev/stdin",
    )


def startup_script(run: Run, rented: TPUVM) -> str:
    """What each host runs as root at every boot."""
    registry = REGISTRY.match(rented.image)
    login = ("gcloud", "auth", "configure-docker", registry[1], "--quiet") if registry else ()
    docker = (
        *("docker", "run", "--detach", f"--name={rented.name}", "--privileged", "--network=host"),
        *("--stop-timeout=120", f"--env=JAX_COORDINATOR_PORT={PORT}"),
        *(rented.image, *run.on_each_host(), f"--attempts={rented.attempts}"),
    )
    return STARTUP.format(
        name=rented.name,
        login=command(*login) or ":",
        pull=command("docker", "pull", rented.image),
        run=command(*docker),
    )


STARTUP = """#!/bin/bash
# Every host of the slice runs this as root, at every boot.
set -euo pipefail
export HOME=${{HOME:-/root}}
{login}
{pull}
docker rm --force {name} || true
{run}
"""

SCRIPT = """set -euo pipefail

state() {{
{describe} 2>/dev/null || true
}}

finished() {{
{finished} >/dev/null 2>&1
}}

remove() {{
{delete}
}}

create() {{
{create}
}}

submit() {{
  local state
  state=$(state)
  case $state in
    '') create ;;
    SUSPENDED | FAILED)
      echo "{name} is $state: once more"
      remove && create
      ;;
    *) echo "{name} is $state" ;;
  esac
}}

{main}"""

ONCE = """if finished; then
  echo 'both models are complete'
else
  submit
fi
"""

WATCH = f"""until finished; do
  submit || echo 'that failed; once more in a minute' >&2
  sleep {SECONDS}
done
echo 'both models are complete'
if [ -n "$(state)" ]; then
  remove
fi
"""

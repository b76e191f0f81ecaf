"""Google Kubernetes Engine by hand: one JobSet, made with kubectl.

One job of one pod per host. A pod that ends with anything but 0 ends the job, and the JobSet starts
all pods again, which go on from the last checkpoint; a mistake (status 2) ends the JobSet.
"""

import argparse
from dataclasses import dataclass
from typing import Any

from launch.accelerators import find_slice
from launch.runs import Run, check_in_bucket, check_name
from launch.shell import command, to_yaml, with_input
from launch.tpu_vm import PORT
from launch.train_phases import MISTAKE

CONTAINER = "train"
GRACE = 120  # s to save in; a spot node gives less


@dataclass(frozen=True)
class GKE:
    """Where a run is started. ``queue``: a Kueue LocalQueue that admits it."""

    name: str
    accelerator: str
    image: str
    project: str
    location: str
    cluster: str
    namespace: str = "default"
    service_account: str = ""
    queue: str = ""
    spot: bool = False
    restarts: int = 100

    @property
    def devices(self) -> int:
        """Chips that share a batch."""
        return find_slice(self.accelerator).chips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`GKE` beside the common ones."""
    add = parser.add_argument
    add("--accelerator", required=True, metavar="TYPE", help="such as v5litepod-16")
    add("--image", required=True, help="container image with this checkout, see launch/Dockerfile")
    add("--project", required=True, help="Google Cloud project of the cluster")
    add("--location", required=True, help="zone or region of the cluster")
    add("--cluster", required=True, help="its name")
    add("--namespace", default=GKE.namespace, help="(default: %(default)s)")
    add("--service-account", default="", metavar="NAME", help="Kubernetes service account")
    add("--queue", default="", metavar="NAME", help="Kueue LocalQueue, where the cluster has Kueue")
    add("--spot", action="store_true", help="on spot nodes, which may be taken away")
    add("--restarts", type=int, default=GKE.restarts, metavar="N", help="(default: %(default)s)")


def render(run: Run, rented: GKE) -> str:
    """The script that replaces the JobSet of that name.

    Raises:
        ValueError: name, accelerator or a folder cannot be meant.
    """
    check_name(rented.name)
    check_in_bucket(run)
    where = (f"--project={rented.project}", f"--location={rented.location}")
    namespace = f"--namespace={rented.namespace}"
    steps = (
        "set -euo pipefail",
        command("gcloud", "container", "clusters", "get-credentials", rented.cluster, *where),
        command(
            *("kubectl", "delete", "jobset", rented.name, namespace),
            *("--ignore-not-found", "--cascade=foreground"),
        ),
        with_input(
            command("kubectl", "create", namespace, "--filename=-"), to_yaml(job_set(run, rented))
        ),
    )
    return "\n".join(steps) + "\n"


def job_set(run: Run, rented: GKE) -> dict[str, Any]:
    """The manifest (jobset.x-k8s.io/v1alpha2)."""
    place = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    labels = {"labels": {"kueue.x-k8s.io/queue-name": rented.queue}} if rented.queue else {}
    mistake = {
        "name": "mistake",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": rented.name,
            **labels,
            "annotations": {place: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": rented.restarts, "rules": [mistake]},
            "replicatedJobs": [
                {"name": "slice", "replicas": 1, "template": {"spec": _job(run, rented)}}
            ],
        },
    }


def _job(run: Run, rented: GKE) -> dict[str, Any]:
    hosts = find_slice(rented.accelerator).hosts
    on_exit = {"containerName": CONTAINER, "operator": "In", "values": [MISTAKE]}
    return {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": on_exit}]},
        "template": {"spec": _pod(run, rented)},
    }


def _pod(run: Run, rented: GKE) -> dict[str, Any]:
    """One host's pod; Kubernetes would expand ``$(NAME)`` in a command, which ``$$(`` prevents."""
    rented_slice = find_slice(rented.accelerator)
    chips = {"google.com/tpu": rented_slice.chips_per_host}
    account = {"serviceAccountName": rented.service_account} if rented.service_account else {}
    spot = {"cloud.google.com/gke-spot": "true"} if rented.spot else {}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        **account,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": rented_slice.gke,
            "cloud.google.com/gke-tpu-topology": rented_slice.topology,
            **spot,
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": rented.image,
                "command": [word.replace("$(", "$$(") for word in run.on_each_host()],
                "env": [{"name": "JAX_COORDINATOR_PORT", "value": str(PORT)}],
                "ports": [{"containerPort": port} for port in (8471, PORT, PORT + 1)],
                "resources": {"requests": chips, "limits": chips},
            }
        ],
    }

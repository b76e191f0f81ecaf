"""What each launcher prints with --dry-run, and that bash does just that without."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch import __main__ as cli
from launch import tpu_vm
from launch.accelerators import find_slice
from launch.runs import Run, run_from

ROOT = Path(__file__).parents[2]
IMAGE = "us-central1-docker.pkg.dev/p/videobooth/train:1"
BUCKET = {"workdir": "gs://bucket/run", "init-from": "gs://bucket/sd14", "data": "gs://bucket/lat"}
SHARED = {"workdir": "/shared/run", "init-from": "/shared/sd14", "data": "/shared/lat"}
CLOUD = BUCKET | {"accelerator": "v5litepod-16", "image": IMAGE, "project": "p"}
LAUNCHERS = {
    "tpu-vm": CLOUD | {"zone": "us-central1-a", "service-account": "sa@p", "spot": None},
    "xpk": CLOUD | {"zone": "us-central1-a", "cluster": "tpus"},
    "gke": CLOUD
    | {"location": "us-central1", "cluster": "tpus", "service-account": "vb", "queue": "q"},
    "slurm": SHARED | {"nodes": "2", "gpus-per-node": "8"},
}
OVERRIDES = ("--config.name=it's $HOME", "--fine.steps=5")


def words(launcher: str, *more: str, **changes: str | None) -> list[str]:
    """A launcher's arguments; a change of None leaves one away."""
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    options = {"name": "vb-1"} | LAUNCHERS[launcher] | changed
    flags = [f"--{n}" for n, v in options.items() if v is None and n not in changed]
    given = [f"--{n}={v}" for n, v in options.items() if v is not None]
    return [launcher, *given, *flags, *OVERRIDES, *more]


@pytest.fixture
def script(capsys):
    """The script that a launcher prints."""

    def render(launcher: str, *more: str, **changes: str | None) -> str:
        assert cli.main(words(launcher, "--dry-run", *more, **changes)) == 0
        return capsys.readouterr().out

    return render


def commands(text: str) -> list[list[str]]:
    """A script's lines as words, what commands read left out."""
    kept, inside = [], False
    for line in text.replace(" \\\n", " ").splitlines():
        if not inside:
            kept.append(shlex.split(line))
        inside = line.endswith("<<'END_OF_INPUT'") or (inside and line != "END_OF_INPUT")
    return kept


def starting(text: str, *start: str) -> list[str]:
    """The one command that starts so."""
    [found] = [line for line in commands(text) if tuple(line[: len(start)]) == start]
    return found


def read_by(text: str) -> str:
    """What the command with an input reads."""
    return text.partition("<<'END_OF_INPUT'\n")[2].partition("\nEND_OF_INPUT")[0] + "\n"


def run_on_hosts(launcher: str) -> list[str]:
    options = LAUNCHERS[launcher]
    run = Run(options["workdir"], options["init-from"], data=options["data"], overrides=OVERRIDES)
    return list(run.on_each_host())


def check_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    # SC2016 asks whether the override's '$HOME' should expand: it must not
    check = [str(Path(sys.executable).with_name("shellcheck")), "--shell=bash", "--exclude=SC2016"]
    subprocess.run([*check, "-"], input=text, text=True, check=True)


VARIANTS = [*((launcher, ()) for launcher in LAUNCHERS), ("tpu-vm", ("--watch",))]


@pytest.mark.parametrize(("launcher", "more"), VARIANTS)
def test_scripts_pass_shellcheck(script, launcher, more):
    text = script(launcher, *more)
    check_shell(text)
    if launcher in ("tpu-vm", "slurm"):
        check_shell(read_by(text))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_dry_run_is_what_runs(script, calls, launcher, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("kubectl", "sbatch", "mkdir", "xpk"):
        calls.stub(name)
    calls.stub("gcloud", 'case "$*" in "storage ls"*) exit 1 ;; esac')
    assert cli.main(words(launcher)) == 0
    done = calls()
    subprocess.run(["bash", "-c", script(launcher)], check=True)
    assert done
    assert calls() == done * 2


def test_a_failing_command_ends_the_script(calls):
    calls.stub("gcloud", "exit 3")
    calls.stub("kubectl")
    assert cli.main(words("gke")) == 3
    assert [call[0] for call, _ in calls()] == ["gcloud"]


def test_tpu_vm_create(script):
    text = script("tpu-vm")
    create = starting(text, "gcloud", "compute", "tpus", "queued-resources", "create")
    assert create[5] == "vb-1"
    assert set(create[6:]) == {
        *("--project=p", "--zone=us-central1-a", "--node-id=vb-1", "--spot"),
        *("--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"),
        *("--service-account=sa@p", "--scopes=https://www.googleapis.com/auth/cloud-platform"),
        *("--metadata-from-file=startup-script=/dev/stdin", "<<END_OF_INPUT"),
    }


def test_tpu_vm_hosts_start_the_image(script, calls):
    startup = read_by(script("tpu-vm"))
    assert startup.startswith("#!/bin/bash\n")
    calls.stub("gcloud")
    calls.stub("docker", '[ "$1" != rm ]')  # nothing to remove at the first boot
    subprocess.run(["bash", "-c", startup], check=True, env=None)
    login, pull, remove, started = [call for call, _ in calls()]
    registry = "us-central1-docker.pkg.dev"
    assert login == ["gcloud", "auth", "configure-docker", registry, "--quiet"]
    assert pull == ["docker", "pull", IMAGE]
    assert remove == ["docker", "rm", "--force", "vb-1"]
    image = started.index(IMAGE)
    assert started[:2] == ["docker", "run"]
    expected = {"--detach", "--privileged", "--network=host", "--env=JAX_COORDINATOR_PORT=8490"}
    assert expected <= set(started[2:image])
    assert started[image + 1 :] == [*run_on_hosts("tpu-vm"), "--attempts=100"]


def test_images_of_other_registries_need_no_login():
    rented = tpu_vm.TPUVM("vb", "v4-8", "docker.io/me/vb:1", "p", "us-central2-b")
    assert "configure-docker" not in tpu_vm.startup_script(Run("gs://b/w", "gs://b/m"), rented)


# States that the request goes through, one a look; its models are there after the last.
GCLOUD = """
states={folder}/states
case "$*" in
  *" describe "*) head -n 1 "$states"; [ -s "$states" ] ;;
  *" delete "* | *" create "*) ;;
  *"storage ls"*) [ ! -s "$states" ] ;;
esac
"""


@pytest.mark.parametrize(
    ("state", "done"),
    [
        ("", ["create"]),
        ("WAITING_FOR_RESOURCES", []),
        ("ACTIVE", []),
        ("SUSPENDING", []),
        ("SUSPENDED", ["delete", "create"]),
        ("FAILED", ["delete", "create"]),
    ],
)
def test_tpu_vm_again(calls, tmp_path, state, done):
    (tmp_path / "states").write_text(f"{state}\n")
    calls.stub("gcloud", GCLOUD.format(folder=tmp_path))
    assert cli.main(words("tpu-vm")) == 0
    called = [call[4] for call, _ in calls() if call[1] == "compute"]
    assert called == ["describe", *done]


def test_tpu_vm_again_after_the_end_rents_nothing(calls, capfd):
    calls.stub("gcloud")
    assert cli.main(words("tpu-vm")) == 0
    assert [call for call, _ in calls()] == [
        ["gcloud", "storage", "ls", "gs://bucket/run/fine/model/manifest.json"]
    ]
    assert "complete" in capfd.readouterr().out


def test_tpu_vm_watch_repeats_lost_requests_and_deletes_at_the_end(calls, programs, tmp_path):
    states = ["", "WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDED", "ACTIVE", "FAILED", "ACTIVE"]
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    # After the last, the request is still there: the look that asks whether to delete it.
    look = GCLOUD.replace('[ -s "$states" ] ;;', 'if [ ! -s "$states" ]; then echo ACTIVE; fi ;;')
    calls.stub("gcloud", look.format(folder=tmp_path))
    programs("sleep", f'[ "$1" = 60 ] && sed -i 1d {tmp_path}/states')
    assert cli.main(words("tpu-vm", "--watch")) == 0
    called = [call[4] for call, _ in calls() if call[1] == "compute"]
    again = ["delete", "create"]
    look = ["describe"]
    assert called == [
        *(*look, "create", *look, *look),
        *(*look, *again, *look, *look, *again, *look),
        *(*look, "delete"),
    ]


def check_job(job: dict, accelerator: str) -> dict:
    """Check a Job's spec as far as it is the same for all slices; returns the pod's."""
    rented = find_slice(accelerator)
    assert job["completions"] == job["parallelism"] == rented.hosts
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": [2]},
    }
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy asks for
    selector = pod["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == rented.gke
    assert selector["cloud.google.com/gke-tpu-topology"] == rented.topology
    chips = {"google.com/tpu": rented.chips_per_host}
    assert pod["containers"][0]["resources"] == {"requests": chips, "limits": chips}
    return pod


@pytest.mark.parametrize("accelerator", ["v4-32", "v5litepod-1", "v5litepod-16", "v5p-8", "v6e-16"])
def test_gke_job_set(script, accelerator):
    manifest = yaml.safe_load(read_by(script("gke", accelerator=accelerator)))
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"] == {
        "name": "vb-1",
        "labels": {"kueue.x-k8s.io/queue-name": "q"},
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    failure = manifest["spec"]["failurePolicy"]
    assert failure["maxRestarts"] == 100
    assert [(r["action"], r["onJobFailureReasons"]) for r in failure["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    [replicated] = manifest["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    pod = check_job(replicated["template"]["spec"], accelerator)
    assert pod["serviceAccountName"] == "vb"
    [container] = pod["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == run_on_hosts("gke")
    assert container["env"] == [{"name": "JAX_COORDINATOR_PORT", "value": "8490"}]


def test_gke_choices(script):
    pods = {}
    for name, more in {"plain": (), "spot": ("--spot",)}.items():
        text = script("gke", *more, "--config.name=$(HOME)")
        manifest = yaml.safe_load(read_by(text))
        pods[name] = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert "cloud.google.com/gke-spot" not in pods["plain"]["nodeSelector"]
    assert pods["spot"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    # Kubernetes expands $(HOME) and reads $$( as $(
    assert "--config.name=$$(HOME)" in pods["plain"]["containers"][0]["command"]


def test_gke_replaces_what_has_the_name(script):
    text = script("gke")
    where = ["--project=p", "--location=us-central1"]
    names = [line[0] for line in commands(text) if line]
    assert names == ["set", "gcloud", "kubectl", "kubectl"]
    assert starting(text, "gcloud", "container")[3:] == ["get-credentials", "tpus", *where]
    delete = starting(text, "kubectl", "delete")
    assert delete[2:4] == ["jobset", "vb-1"]
    assert {"--ignore-not-found", "--cascade=foreground"} <= set(delete)
    assert {"--filename=-", "--namespace=default"} <= set(starting(text, "kubectl", "create"))


def test_xpk_workload(script):
    create = starting(script("xpk"), "xpk", "workload", "create")
    options = dict(word[2:].split("=", 1) for word in create[3:])
    command = shlex.split(options.pop("command"))
    assert command == ["exec", *run_on_hosts("xpk")]
    assert options == {
        "workload": "vb-1",
        "cluster": "tpus",
        "project": "p",
        "zone": "us-central1-a",
        "tpu-type": "v5litepod-16",
        "docker-image": IMAGE,
        "env": "JAX_COORDINATOR_PORT=8490",
        "max-restarts": "100",
        "restart-on-exit-codes": "1,75",
        "termination-grace-period-seconds": "120",
    }


def test_xpk_creates_where_there_is_nothing_to_delete(calls):
    calls.stub("xpk", '[ "$2" != delete ]')
    assert cli.main(words("xpk")) == 0
    assert [call[2] for call, _ in calls()] == ["delete", "create"]


def test_slurm_job(script):
    text = script("slurm", "--sbatch=--partition=gpu", "--sbatch=--mem=0")
    assert starting(text, "mkdir")[1:] == ["-p", "/shared/run"]
    job = read_by(text)
    assert job.startswith("#!/bin/bash\n#SBATCH ")
    lines = job.splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert set(options) == {
        *("--job-name=vb-1", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8"),
        *("--cpus-per-task=8", "--time=24:00:00", f"--chdir={ROOT}", "--requeue"),
        *("--output=/shared/run/%x-%j.log", "--open-mode=append", "--dependency=singleton"),
        *("--signal=TERM@180", "--partition=gpu", "--mem=0"),
    }
    assert lines.index("set -euo pipefail") == 1 + len(options)  # Slurm reads no further
    step = starting(job, "srun")
    assert step[:3] == ["srun", "--kill-on-bad-exit=0", "--wait=0"]
    assert step[3 : step.index("||")] == run_on_hosts("slurm")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_hosts_read_their_arguments_back(launcher):
    parser = cli.argparse.ArgumentParser(allow_abbrev=False)
    cli.add_run_arguments(parser)
    args = parser.parse_known_args(run_on_hosts(launcher)[3:])
    assert run_from(*args).on_each_host() == tuple(run_on_hosts(launcher))


BAD = "launch: error: "
MISTAKES = {
    "name": ("gke", {"name": "Vb_1"}, "lower-case letters"),
    "accelerator": ("tpu-vm", {"accelerator": "v5e-16"}, "choose one of v4-8"),
    "zone": ("tpu-vm", {"zone": "us-central1"}, "zone"),
    "local workdir": ("gke", {"workdir": "workdir/run"}, "gs://BUCKET/FOLDER"),
    "local model": ("xpk", {"init_from": "/models/sd14"}, "gs://BUCKET/FOLDER"),
    "bucket": ("slurm", {"workdir": "gs://bucket/run"}, "absolute path"),
    "nodes": ("slurm", {"nodes": "0"}, "1 or more"),
    "time": ("slurm", {"time": "a day"}, "HOURS:MM:SS"),
    "sbatch": ("slurm", {"sbatch": "-p gpu"}, "--sbatch=--partition=gpu"),
    "config file": ("gke", {"coarse": "nowhere.py"}, "does not exist"),
    "field": ("gke", {"config.optimizer.speed": "1"}, "there is no field 'speed'"),
    "phase's field": ("gke", {"fine.step": "1"}, "there is no field 'step'"),
    "value": ("gke", {"config.steps": "many"}, "steps"),
    "choice": ("gke", {"config.optimizer.name": "sgd"}, "choose one of"),
    "batch": ("gke", {"accelerator": "v6e-64"}, "give --config.data.batch_size=64"),
    "mesh": ("gke", {"config.mesh.tensor": "3"}, "tensor 3"),
    "no data": ("gke", {"data": ""}, "say where with --data"),
    "unread data": ("gke", {"config.data.source": "sprites"}, "reads no --data"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_before_anything_runs(name, calls, capsys):
    launcher, changes, message = MISTAKES[name]
    for program in ("gcloud", "kubectl", "xpk", "sbatch"):
        calls.stub(program)
    assert cli.main(words(launcher, **changes)) == 2
    said = capsys.readouterr()
    assert said.err.startswith(BAD)
    assert message in said.err
    assert said.out == ""
    assert not calls()


def test_a_batch_is_split_over_two_axes_only(script):
    script("gke", "--config.mesh.tensor=4", accelerator="v6e-64")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_and_missing_arguments(launcher, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([launcher, "--help"])
    assert stopped.value.code == 0
    assert "--init-from" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main([launcher, "--name=vb"])
    assert stopped.value.code == 2
    assert "--workdir" in capsys.readouterr().err

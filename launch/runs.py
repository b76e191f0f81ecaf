"""What is trained: a run of two phases, the same for every launcher.

The coarse phase starts from the model ``init_from``, the fine phase from the coarse phase's model.
Each has a folder of its own in the run's ``workdir`` and is done when its ``model/`` is complete.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = "launch.train_phases"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
OVERRIDE = re.compile(r"--(config|coarse|fine)((?:\.\w+)+=.*)")
GIVEN_ELSEWHERE = {".init_from": "--init-from", ".data.path": "--data"}
BUCKET = re.compile(r"gs://[a-z0-9][-_.a-z0-9]{2,}/\S*[^\s/]")


@dataclass(frozen=True)
class Run:
    """A run of both phases.

    ``coarse`` and ``fine`` are config files, relative to the checkout. ``data`` is a folder of
    precomputed latents, or "" where the configs say what to read; behind ``gs://`` it is copied to
    each host's disk. ``overrides`` are ``--config.FIELD=VALUE`` for both phases and
    ``--coarse.FIELD=VALUE`` or ``--fine.FIELD=VALUE`` for one.
    """

    workdir: str
    init_from: str
    coarse: str = "configs/videobooth_coarse.py"
    fine: str = "configs/videobooth_fine.py"
    data: str = ""
    overrides: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """The run as arguments that :func:`run_from` reads."""
        options = {"workdir": self.workdir, "init-from": self.init_from}
        options |= {"coarse": self.coarse, "fine": self.fine}
        options |= {"data": self.data} if self.data else {}
        return (*(f"--{name}={value}" for name, value in options.items()), *self.overrides)

    def on_each_host(self) -> tuple[str, ...]:
        """The command that every process of the run starts, in the checkout."""
        return ("python3", "-m", MODULE, *self.arguments())


@dataclass(frozen=True)
class Phase:
    """One phase: its folder, its config file, and the overrides of it."""

    name: str
    workdir: str
    config: str
    overrides: tuple[str, ...]

    @property
    def model(self) -> str:
        """The model directory it ends with."""
        return f"{self.workdir}/model"

    @property
    def sealed(self) -> str:
        """What exists once the model is complete: the file written last."""
        return f"{self.model}/manifest.json"

    def command(self) -> tuple[str, ...]:
        """What trains it, on several hosts together."""
        where = (f"--config={self.config}", f"--workdir={self.workdir}")
        return ("videobooth", "train", "--distributed", *where, *self.overrides)


def phases(run: Run) -> tuple[Phase, Phase]:
    """The coarse phase and the fine phase of a run."""
    return (
        _phase(run, "coarse", run.coarse, run.init_from),
        _phase(run, "fine", run.fine, f"{run.workdir}/coarse/model"),
    )


def _phase(run: Run, name: str, config: str, init_from: str) -> Phase:
    ours = [f"--config.init_from={init_from}"]
    ours += [f"--config.data.path={run.data}"] if run.data else []
    matches = [OVERRIDE.fullmatch(override) for override in run.overrides]
    theirs = [f"--config{m[2]}" for m in matches if m and m[1] in ("config", name)]
    return Phase(name, f"{run.workdir}/{name}", config, (*ours, *theirs))


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that describe a :class:`Run`."""
    add = parser.add_argument
    add("--workdir", required=True, metavar="FOLDER", help="checkpoints, logs and both models")
    add("--init-from", required=True, metavar="MODEL", help="model directory the run starts from")
    add("--coarse", default=Run.coarse, metavar="FILE", help="config (default: %(default)s)")
    add("--fine", default=Run.fine, metavar="FILE", help="config (default: %(default)s)")
    add("--data", default="", metavar="FOLDER", help="latents written by videobooth precompute")


def run_from(args: argparse.Namespace, overrides: Sequence[str]) -> Run:
    """A checked run.

    Raises:
        ValueError: an argument means nothing, a field has an option of its own, or a config file
            is not in the checkout.
    """
    for override in overrides:
        match = OVERRIDE.fullmatch(override)
        if not match:
            raise ValueError(
                f"unrecognized argument {override!r}; fields are set as --config.FIELD=VALUE, or "
                "--coarse.FIELD=VALUE and --fine.FIELD=VALUE for one phase"
            )
        for field, option in GIVEN_ELSEWHERE.items():
            if match[2].startswith(f"{field}="):
                raise ValueError(f"{override}: give {option} instead")
    run = Run(
        workdir=args.workdir.rstrip("/"),
        init_from=args.init_from.rstrip("/"),
        coarse=args.coarse,
        fine=args.fine,
        data=args.data.rstrip("/"),
        overrides=tuple(overrides),
    )
    return replace(run, coarse=in_checkout(run.coarse), fine=in_checkout(run.fine))


def in_checkout(config: str) -> str:
    """A config file's path relative to the checkout, where the hosts look for it too.

    Raises:
        ValueError: it is not in the checkout, or not there.
    """
    path, colon, argument = config.partition(":")
    found = [p for p in (Path(path).resolve(), (ROOT / path).resolve()) if p.is_file()]
    inside = [p for p in found if p.is_relative_to(ROOT)]
    if not inside:
        what = "lies outside the checkout" if found else "does not exist"
        raise ValueError(f"config file {path} {what}; the hosts read it from the checkout's files")
    return str(inside[0].relative_to(ROOT)) + colon + argument


def check_name(name: str) -> None:
    """Raises ValueError unless all of gcloud, Kubernetes and Slurm take the name."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r}: give 1 to 40 lower-case letters, digits and hyphens, a letter first "
            "and no hyphen last"
        )


def check_in_bucket(run: Run) -> None:
    """Raises ValueError unless every folder is in a bucket, where all hosts of a slice see it."""
    folders = {"--workdir": run.workdir, "--init-from": run.init_from, "--data": run.data}
    for option, folder in folders.items():
        if folder and not BUCKET.fullmatch(folder):
            raise ValueError(
                f"{option} {folder}: the machines see no disk of yours; give gs://BUCKET/FOLDER"
            )


def check_shared(run: Run) -> None:
    """Raises ValueError unless every folder is a path that all nodes could share."""
    folders = {"--workdir": run.workdir, "--init-from": run.init_from, "--data": run.data}
    for option, folder in folders.items():
        if folder and not re.fullmatch(r"/\S+", folder):
            raise ValueError(
                f"{option} {folder}: give an absolute path, without spaces, that all nodes share"
            )

"""The command ``python3 -m launch LAUNCHER``, from the root of the checkout."""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from launch import gke, slurm, tpu_vm, xpk
from launch.checks import check_configs
from launch.runs import add_run_arguments, run_from

LAUNCHERS: dict[str, tuple[Any, type, str]] = {
    "tpu-vm": (tpu_vm, tpu_vm.TPUVM, "TPU VMs through queued resources, with gcloud"),
    "xpk": (xpk, xpk.XPK, "TPUs on Google Kubernetes Engine, with XPK"),
    "gke": (gke, gke.GKE, "TPUs on Google Kubernetes Engine, a JobSet with kubectl"),
    "slurm": (slurm, slurm.Slurm, "GPUs under Slurm, with sbatch"),
}
EPILOG = """--config.FIELD=VALUE sets a field of both phases' configs, --coarse.FIELD=VALUE and
--fine.FIELD=VALUE of one. The same command again goes on from the last checkpoint.
docs/launching.md tells the whole way."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print or run a launcher's script. Returns the exit status: the script's, 2 for a mistake."""
    args, rest = _parser().parse_known_args(argv)
    module, options, _ = LAUNCHERS[args.launcher]
    try:
        run = run_from(args, rest)
        given = {field.name: getattr(args, field.name) for field in dataclasses.fields(options)}
        asked = options(**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})
        script = module.render(run, asked)
        check_configs(run, asked.devices)
    except (ValueError, OSError, ImportError) as error:
        print(f"launch: error: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        print(script, end="")
        return 0
    return subprocess.run(["bash", "-c", script], check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m launch",
        description="Train both phases, coarse then fine, on rented machines.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    launchers = parser.add_subparsers(dest="launcher", metavar="LAUNCHER", required=True)
    for name, (module, _, text) in LAUNCHERS.items():
        launcher = launchers.add_parser(
            name, help=text, description=text, epilog=EPILOG, allow_abbrev=False
        )
        launcher.add_argument("--name", required=True, help="of the job, and of what is rented")
        add_run_arguments(launcher)
        module.add_arguments(launcher)
        launcher.add_argument(
            "--dry-run", action="store_true", help="print the script that would run, nothing else"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""What every process of a run does on its machine: the coarse phase, then the fine phase.

    python3 -m launch.train_phases --workdir=FOLDER --init-from=MODEL [--data=FOLDER] [...]

The trainer exits with 0 both when it is done and when a signal stopped it early, so the exit status
is made from what is there. A phase whose model is complete is skipped.

====  ==================================================================
0     both models are complete
75    stopped early, saved; start again to go on (EX_TEMPFAIL)
2     a mistake in the arguments or files; starting again will not help
1     a crash; also the trainer's 2 after minutes, when a file that could not be written, say,
      is no longer a mistake that comes back at once
else  the trainer's own, 128 + number if a signal killed it
====  ==================================================================

SIGTERM and SIGINT are passed on to the trainer. In a container this process is the first one, the
only one that is told.

Each phase starts a coordinator of its own, which must not meet the last one's: where the launcher
sets ``JAX_COORDINATOR_PORT``, the fine phase takes the next port. Programs are kept in
``WORKDIR/programs``, unless ``VIDEOBOOTH_CACHE`` says otherwise, so that machines that take the
place of lost ones find them.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
from etils import epath

from launch.runs import MODULE, Phase, Run, add_run_arguments, phases, run_from

STOPPED, MISTAKE, CRASHED = 75, 2, 1
ENDINGS = {
    STOPPED: "stopped before the end; start again to go on",
    MISTAKE: "a mistake, see above; starting again will not help",
}
PORT, PROGRAMS = "JAX_COORDINATOR_PORT", "VIDEOBOOTH_CACHE"


@dataclass(frozen=True)
class Times:
    """Seconds. ``pause``: between attempts. ``patience``: a network file system may show another
    node's files that much later. ``early``: a mistake ends the trainer within that time.
    """

    pause: float = 30.0
    patience: float = 60.0
    early: float = 300.0


class Signals:
    """Remembers a stop signal and passes it on to the child that runs."""

    def __init__(self) -> None:
        """Take over SIGTERM and SIGINT."""
        self.received = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: object) -> None:
        self.received.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end; returns its exit status, 128 + n for signal n."""
        self._child = subprocess.Popen(command, env=environment)
        if self.received.is_set():
            self._child.send_signal(signal.SIGTERM)
        status = self._child.wait()
        return status if status >= 0 else 128 - status


def train(run: Run, signals: Signals, times: Times) -> int:
    """Train what is not yet trained; returns the exit status, see above."""
    programs = f"{run.workdir}/programs"
    for index, phase in enumerate(phases(run)):
        if is_done(phase):
            _say(f"{phase.name}: {phase.model} is complete")
            continue
        if signals.received.is_set():
            status = STOPPED
        else:
            status = _train(phase, environment(index, programs), signals, times)
        if status:
            _say(f"{phase.name}: {ENDINGS.get(status, f'ended with status {status}')}")
            return status
    return 0


def _train(phase: Phase, around: Mapping[str, str], signals: Signals, times: Times) -> int:
    started = time.monotonic()
    status = signals.run(phase.command(), around)
    stopped = signals.received.is_set()
    if status and not stopped:
        late = time.monotonic() - started > times.early
        return CRASHED if late and status == MISTAKE else status
    return 0 if _wait_until_done(phase, 0.0 if stopped else times.patience) else STOPPED


def is_done(phase: Phase) -> bool:
    """Whether the phase's model directory is complete: its manifest is written last."""
    return epath.Path(phase.sealed).exists()


def _wait_until_done(phase: Phase, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not is_done(phase):
        if time.monotonic() > deadline:
            return False
        time.sleep(min(1.0, patience))
    return True


def environment(index: int, programs: str) -> dict[str, str]:
    """The environment of the phase with that index: a coordinator port of its own, and the folder
    ``programs`` if none is chosen.
    """
    port = os.environ.get(PORT)
    ours = {PORT: str(int(port) + index)} if port else {}
    return {PROGRAMS: programs} | os.environ | ours


def with_local_data(run: Run, folder: Path) -> Run:
    """The run with its data on this machine: a URL is copied into ``folder``, once.

    Raises:
        FileNotFoundError: there is nothing at the URL.
    """
    if "://" not in run.data:
        return run
    local = folder / hashlib.sha256(run.data.encode()).hexdigest()[:12]
    if not local.exists():
        partial = local.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _say(f"copying {run.data} to {local}")
        files, path = fsspec.url_to_fs(run.data)
        files.get(f"{path}/", f"{partial}/", recursive=True)
        partial.rename(local)
    return replace(run, data=str(local))


def main(argv: Sequence[str] | None = None, times: Times | None = None) -> int:
    """Train both phases, in up to ``--attempts`` attempts; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python3 -m {MODULE}", allow_abbrev=False)
    add_run_arguments(parser)
    parser.add_argument("--attempts", type=int, default=1, metavar="N", help="(default: 1)")
    args, rest = parser.parse_known_args(argv)
    signals, times = Signals(), times or Times()
    try:
        run = with_local_data(run_from(args, rest), Path(tempfile.gettempdir()) / "videobooth")
        for attempt in range(1, args.attempts + 1):
            status = train(run, signals, times)
            if status in (0, MISTAKE) or signals.received.is_set() or attempt == args.attempts:
                break
            _say(f"attempt {attempt} of {args.attempts} ended with status {status}; once more")
            signals.received.wait(times.pause)
    except (ValueError, FileNotFoundError) as error:
        _say(f"error: {error}")
        return MISTAKE
    return status


def _say(text: str) -> None:
    print(f"train_phases: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""What runs on the machines, for real, around a stand-in for the trainer that is preempted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import slurm
from launch.runs import Run, phases
from launch.train_phases import MISTAKE, STOPPED, Times, is_done, main, with_local_data

ROOT = Path(__file__).parents[2]

# Its starts are counted in its folder. Preempted, it stops as the trainer does: with status 0 and
# no model.
TRAINER = """
for word in "$@"; do
  case $word in
    --workdir=*) workdir=${word#--workdir=} ;;
    --config.init_from=*) init_from=${word#--config.init_from=} ;;
  esac
done
mkdir -p "$workdir"
printf '%s\\n' "$JAX_COORDINATOR_PORT $*" >> "$workdir/starts"
[ -d "$init_from" ] || exit 2
preempt() { echo "step $(wc -l < "$workdir/starts")" >> "$workdir/saved"; exit 0; }
trap preempt TERM
"""
WAIT_TO_BE_STOPPED = 'touch "$workdir/running"; while :; do sleep 0.05; done'
FINISH = 'mkdir "$workdir/model" && touch "$workdir/model/manifest.json"'


def preempted(times: int, stop: str = "kill -TERM $$") -> str:
    """A trainer that is preempted so many times in each phase, then finishes it."""
    return f"""{TRAINER}
if [ "$(wc -l < "$workdir/starts")" -le {times} ]; then {stop}; fi
{FINISH}"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "sd14").mkdir()
    return Run(workdir=f"{tmp_path}/run", init_from=f"{tmp_path}/sd14")


@pytest.fixture
def train(run, monkeypatch):
    """Run both phases in this process, without pauses; the signal handlers are put back."""
    monkeypatch.delenv("JAX_COORDINATOR_PORT", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield lambda *words, **times: main(
        (*run.arguments(), *words), Times(pause=0.0, patience=0.0, **times)
    )
    for number, handler in handlers.items():
        signal.signal(number, handler)


def lines(run: Run, name: str) -> list[list[str]]:
    files = (Path(phase.workdir) / name for phase in phases(run))
    return [f.read_text().splitlines() if f.exists() else [] for f in files]


def test_preempted_twice_in_each_phase_then_finished(run, train, programs):
    programs("videobooth", preempted(2))
    assert train("--attempts=10") == 0
    starts = lines(run, "starts")
    assert [len(phase) for phase in starts] == [3, 3]
    for phase, started in zip(phases(run), starts, strict=True):
        assert {line.strip() for line in started} == {" ".join(phase.command()[1:])}
        assert is_done(phase)
    assert lines(run, "saved") == [["step 1", "step 2"]] * 2


@pytest.mark.parametrize("chosen", ["", "/elsewhere"])
def test_programs_lie_where_the_next_machine_finds_them(run, train, programs, monkeypatch, chosen):
    programs("videobooth", f'{TRAINER}\necho "$VIDEOBOOTH_CACHE" >> "$workdir/cache"\n{FINISH}')
    monkeypatch.delenv("VIDEOBOOTH_CACHE", raising=False)
    if chosen:
        monkeypatch.setenv("VIDEOBOOTH_CACHE", chosen)
    assert train() == 0
    assert lines(run, "cache") == [[chosen or f"{run.workdir}/programs"]] * 2


def test_one_attempt_tells_stopped_from_done(run, train, programs):
    programs("videobooth", preempted(1))
    assert [train() for _ in range(4)] == [STOPPED, STOPPED, 0, 0]
    assert [len(phase) for phase in lines(run, "starts")] == [2, 2]


def test_attempts_come_to_an_end(run, train, programs):
    programs("videobooth", preempted(100))
    assert train("--attempts=3") == STOPPED
    assert [len(phase) for phase in lines(run, "starts")] == [3, 0]


@pytest.mark.parametrize(
    ("crash", "status"), [("exit 1", 1), ("kill -ABRT $$", 128 + signal.SIGABRT)]
)
def test_crashes_are_tried_again(run, train, programs, crash, status):
    programs("videobooth", preempted(1, stop=crash))
    assert train() == status
    assert train("--attempts=2") == 0
    assert [len(phase) for phase in lines(run, "starts")] == [2, 2]


def test_mistakes_are_not(run, train, programs, capsys):
    programs("videobooth", preempted(0))
    Path(run.init_from).rmdir()
    assert train("--attempts=5") == MISTAKE
    assert [len(phase) for phase in lines(run, "starts")] == [1, 0]
    assert train("--speed=3") == MISTAKE
    assert "--speed=3" in capsys.readouterr().err


def test_what_looks_like_a_mistake_but_comes_late_is_tried_again(run, train, programs):
    programs("videobooth", preempted(2, stop="sleep 0.1; exit 2"))
    assert train("--attempts=2", early=0.05) == 1
    assert train("--attempts=4", early=0.05) == 0
    assert [len(phase) for phase in lines(run, "starts")] == [3, 3]


def test_a_trainer_that_is_not_installed_is_a_mistake(train, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train("--attempts=5") == MISTAKE


def test_each_phase_has_its_own_coordinator(run, train, programs, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "8490")
    programs("videobooth", preempted(0))
    assert train() == 0
    assert [line[0].split()[0] for line in lines(run, "starts")] == ["8490", "8491"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def test_sigterm_reaches_the_trainer_and_the_next_start_goes_on(run, programs):
    programs("videobooth", preempted(1, stop=WAIT_TO_BE_STOPPED))
    command = [sys.executable, "-m", "launch.train_phases", *run.arguments(), "--attempts=9"]
    started = subprocess.Popen(command, cwd=ROOT)
    wait_for(Path(run.workdir) / "coarse" / "running")
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=20) == STOPPED
    assert lines(run, "saved") == [["step 1"], []]
    assert not is_done(phases(run)[0])

    started = subprocess.Popen(command, cwd=ROOT)
    wait_for(Path(run.workdir) / "fine" / "running")
    assert is_done(phases(run)[0])
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=20) == STOPPED
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


# As Slurm does: the step's processes get SIGTERM, all of them, while the trainer runs.
SRUN = """
while [ "${1#--}" != "$1" ]; do shift; done
setsid "$@" &
step=$!
until [ -e %(workdir)s/stop_me ] || ! kill -0 "$step" 2> /dev/null; do sleep 0.02; done
[ ! -e %(workdir)s/stop_me ] || { rm %(workdir)s/stop_me; kill -TERM -- "-$step"; }
wait "$step"
"""


def test_the_slurm_script_requeues_itself_until_both_models_are_there(run, programs):
    stop = f"touch {run.workdir}/stop_me; while :; do sleep 0.05; done"
    programs("videobooth", preempted(2, stop=stop))
    programs("srun", SRUN % {"workdir": run.workdir})
    programs("scontrol", f'echo "$*" >> {run.workdir}/requeued')
    script = slurm.batch_script(run, slurm.Slurm("vb", nodes=1, gpus_per_node=1))
    environment = os.environ | {"SLURM_JOB_ID": "4242"}
    statuses = []
    for _ in range(9):
        job = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, check=False, timeout=30
        )
        statuses.append(job.returncode)
        if job.returncode != STOPPED:
            break
    assert statuses == [STOPPED] * 4 + [0]
    assert (Path(run.workdir) / "requeued").read_text() == "requeue 4242\n" * 4
    assert [len(phase) for phase in lines(run, "starts")] == [3, 3]
    ports = [{line.split()[0] for line in phase} for phase in lines(run, "starts")]
    assert ports == [{"28484"}, {"28485"}]


def test_the_slurm_script_does_not_requeue_a_mistake(run, programs):
    Path(run.workdir).mkdir()
    Path(run.init_from).rmdir()
    programs("videobooth", preempted(0))
    programs("srun", SRUN % {"workdir": run.workdir})
    programs("scontrol", f"touch {run.workdir}/requeued")
    script = slurm.batch_script(run, slurm.Slurm("vb", nodes=1, gpus_per_node=1))
    environment = os.environ | {"SLURM_JOB_ID": "1"}
    job = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, check=False, timeout=30)
    assert job.returncode == MISTAKE
    assert not (Path(run.workdir) / "requeued").exists()


def test_data_behind_a_url_is_copied_once(tmp_path):
    latents = tmp_path / "latents"
    latents.mkdir()
    (latents / "manifest.json").write_text("{}")
    (latents / "latents.npy").write_bytes(b"123")
    run = Run(workdir="w", init_from="m", data=latents.as_uri())
    local = with_local_data(run, tmp_path / "disk")
    assert Path(local.data).parent == tmp_path / "disk"
    copied = {f.name: f.read_bytes() for f in Path(local.data).iterdir()}
    assert copied == {"manifest.json": b"{}", "latents.npy": b"123"}
    (latents / "latents.npy").unlink()
    assert with_local_data(run, tmp_path / "disk") == local
    assert (Path(local.data) / "latents.npy").exists()


def test_a_folder_stays_where_it_is(tmp_path):
    run = Run(workdir="w", init_from="m", data="/shared/latents")
    assert with_local_data(run, tmp_path / "disk") == run
    with pytest.raises(FileNotFoundError):
        with_local_data(Run("w", "m", data=(tmp_path / "no").as_uri()), tmp_path / "disk")

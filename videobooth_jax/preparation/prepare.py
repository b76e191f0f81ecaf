"""Inputs to a finished dataset, on one machine; what is done when a run is killed stays done."""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from videobooth_jax.data.clip_records import DATASET, VERSION, clip_features, decode_record
from videobooth_jax.preparation.clip import Outcome, prepare_clip
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.report import (
    CARD,
    REPORT,
    SHEET,
    Counts,
    Line,
    sample_numbers,
    write_card,
    write_report,
    write_sheet,
)
from videobooth_jax.preparation.shards import Split, write_checksums, write_metadata, write_split
from videobooth_jax.preparation.tools import Tools, check_tools
from videobooth_jax.preparation.work_folder import Plan, WorkFolder
from videobooth_jax.preparation.workers import Failed, run_pool

WORK, PLAN = ".preparing", "prepare.json"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """``folder`` of the dataset, what was counted, and whether it was there already."""

    folder: Path
    counts: Counts
    already: bool = False


def prepare(
    inputs: Sequence[ClipInput], out: str | Path, config: PrepareConfig, workers: int = 1
) -> Prepared:
    """Make ``out/videobooth_clips/1.0.0``, or find it made of the same inputs and configuration.

    Args:
        inputs: see `preparation.reading` and `preparation.published`.
        out: folder; an unfinished run in it goes on.
        config: what to keep and how.
        workers: number of processes; the dataset does not depend on it.

    Raises:
        ValueError: ``out`` holds something made of other inputs or another configuration, or no
            input can be used.
        ImportError: something needed is not installed.
        OSError: ``out`` cannot be written.
    """
    plan, folder, work = Plan.of(inputs, config), dataset_folder(out), WorkFolder(Path(out) / WORK)
    if finished(folder, plan):
        shutil.rmtree(work.path, ignore_errors=True)
        return Prepared(folder, read_counts(folder), already=True)
    clip_features()  # the extra that writes datasets, missed before any work
    check_tools(inputs, config)
    work.begin(plan)
    _make_clips(inputs, work, config, workers)
    return assemble(inputs, work, folder, plan, config)


def dataset_folder(out: str | Path) -> Path:
    """Where TFDS looks for the dataset."""
    return Path(out) / DATASET / VERSION


def finished(folder: Path, plan: Plan) -> bool:
    """Whether the dataset is there.

    Raises:
        ValueError: a dataset is there, but not of this plan.
    """
    if not folder.exists():
        return False
    differences = ["it was not made by videobooth prepare"]
    if (folder / PLAN).exists():
        differences = Plan.read(folder / PLAN).differences(plan)
    if differences:
        raise ValueError(
            f"{folder} holds another dataset: {'; '.join(differences)}. It was left as it is: "
            "choose another --out, or remove that folder to make it anew"
        )
    return True


def read_counts(folder: Path) -> Counts:
    """The counts of a finished dataset."""
    counts = Counts()
    with (folder / REPORT).open(encoding="utf-8") as file:
        for text in file:
            said = json.loads(text)
            counts.add(Line(*(said.get(f.name, "") for f in dataclasses.fields(Line))))
    return counts


def split_of(group: str, validation: float) -> str:
    """The split of a video: "validation" for that share of all groups, by their hash."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    return "validation" if place < validation else "train"


def _make_clips(
    inputs: Sequence[ClipInput], work: WorkFolder, config: PrepareConfig, workers: int
) -> None:
    """Bring every input to its outcome in the work folder."""
    left = work.missing(range(len(inputs)))
    make_work = functools.partial(_worker, config, work.path)
    tasks = ((number, (number, inputs[number])) for number in left)
    done = len(inputs) - len(left)
    with tqdm(total=len(inputs), initial=done, unit="clip", desc="prepare") as progress:
        aside = 0
        for number, result in run_pool(make_work, tasks, min(workers, len(left)), config.timeout):
            if isinstance(result, Failed):
                work.put(number, Outcome(result.reason, result.why))
            aside += result is not True
            progress.set_postfix_str(f"{aside} set aside", refresh=False)
            progress.update()


def _worker(config: PrepareConfig, path: Path) -> Callable[[tuple[int, ClipInput]], bool]:
    """In a worker: the function that makes one clip and says whether it was accepted."""
    work, tools = WorkFolder(path), Tools(config)

    def make(task: tuple[int, ClipInput]) -> bool:
        number, given = task
        outcome = prepare_clip(given, config, tools)
        work.put(number, outcome)
        return outcome.accepted

    return make


def assemble(
    inputs: Sequence[ClipInput], work: WorkFolder, folder: Path, plan: Plan, config: PrepareConfig
) -> Prepared:
    """Write the dataset of finished outcomes beside its place, move it there, tidy up."""
    numbers = range(len(inputs))
    splits = [split_of(given.group, config.validation) for given in inputs]
    heads = {number: work.head(number) for number in numbers}
    accepted = [number for number in numbers if heads[number].accepted]
    partial = fresh_folder(work.path)
    written = [
        write_split(partial, name, map(work.record, chosen), len(chosen), config.clips_per_shard)
        for name in ("train", "validation")
        if (chosen := [number for number in accepted if splits[number] == name])
    ]
    lines = (Line.of(inputs[n], heads[n], splits[n]) for n in numbers)
    samples = [work.record(accepted[place]) for place in sample_numbers(len(accepted))]
    counts = finish(partial, folder, written, lines, samples, plan)
    shutil.rmtree(work.path, ignore_errors=True)
    return Prepared(folder, counts)


def fresh_folder(work: Path) -> Path:
    """An empty folder for a dataset in the making."""
    partial = work / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(
    partial: Path,
    folder: Path,
    splits: Sequence[Split],
    lines: Iterable[Line],
    samples: Sequence[bytes],
    plan: Plan,
) -> Counts:
    """Add to the shards in ``partial`` whatever else belongs to a dataset; move it to ``folder``.

    Raises:
        ValueError: there are no shards, as no input was accepted; the report stays where it is.
    """
    counts = write_report(partial / REPORT, lines)
    if not counts.accepted:
        raise ValueError(f"no input can be used: {counts.summary()}; see {partial / REPORT}")
    write_metadata(partial, splits)
    write_sheet(partial / SHEET, [decode_record(record) for record in samples])
    stored = plan.to_json()
    (partial / PLAN).write_text(stored, encoding="utf-8")
    write_card(partial / CARD, counts, plan.config, json.loads(stored)["versions"])
    write_checksums(partial)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(folder)
    return counts

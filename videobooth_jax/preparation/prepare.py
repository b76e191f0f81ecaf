"""Inputs to a finished dataset, on one machine; what is done when a run is killed stays done."""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import av
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
from videobooth_jax.preparation.shards import (
    Split,
    shard_path,
    write_checksums,
    write_metadata,
    write_shard,
)
from videobooth_jax.preparation.tools import Tools, check_tools
from videobooth_jax.preparation.work_folder import Plan, WorkFolder, claimed, versions
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
        ValueError: ``out`` holds something made of other inputs or another configuration, another
            run is at work in it, or no input can be used.
        ImportError: something needed is not installed.
        OSError: ``out`` cannot be written.
    """
    plan, folder, work = Plan.of(inputs, config), dataset_folder(out), WorkFolder(Path(out) / WORK)
    if not finished(folder, plan):
        clip_features()  # the extra that writes datasets, missed before any work
        check_tools(inputs, config)
    with claimed(Path(out)):
        if finished(folder, plan):
            shutil.rmtree(work.path, ignore_errors=True)
            return Prepared(folder, read_counts(folder), already=True)
        work.begin(plan)
        _make_all(inputs, work, config, workers)
        return assemble(inputs, work, folder, plan, config)


def _make_all(
    inputs: Sequence[ClipInput], work: WorkFolder, config: PrepareConfig, workers: int
) -> None:
    """Bring what is left of the inputs to outcomes, and show how far that is."""
    left = work.missing(range(len(inputs)))
    made = make_clips([(n, inputs[n]) for n in left], work.path, config, min(workers, len(left)))
    done, aside = len(inputs) - len(left), 0
    with tqdm(made, total=len(inputs), initial=done, unit="clip", desc="prepare") as progress:
        for accepted in progress:
            aside += not accepted
            progress.set_postfix_str(f"{aside} set aside", refresh=False)


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


def make_clips(
    inputs: Sequence[tuple[int, ClipInput]], path: Path, config: PrepareConfig, workers: int
) -> Iterator[bool]:
    """Bring numbered inputs to their outcomes in a work folder; yields whether each was accepted.

    Whatever a clip does to its worker is an outcome, too. Raises as `run_pool`.
    """
    work, make_work = WorkFolder(path), functools.partial(_worker, config, path)
    tasks = ((number, (number, given)) for number, given in inputs)
    for number, result in run_pool(make_work, tasks, workers, config.timeout):
        if isinstance(result, Failed):
            work.put(number, Outcome(result.reason, result.why))
        yield result is True


def _worker(config: PrepareConfig, path: Path) -> Callable[[tuple[int, ClipInput]], bool]:
    """In a worker: the function that makes one clip and says whether it was accepted."""
    av.logging.set_level(av.logging.FATAL)  # what decoders murmur is in the outcomes
    work, tools = WorkFolder(path), Tools(config)

    def make(task: tuple[int, ClipInput]) -> bool:
        number, given = task
        outcome = prepare_clip(given, config, tools)
        work.put(number, outcome)
        return outcome.accepted

    return make


Shard = tuple[str, list[int]]
"""The file of a shard, and the numbers of the inputs that are in it."""


def assemble(
    inputs: Sequence[ClipInput],
    work: WorkFolder,
    folder: Path,
    plan: Plan,
    config: PrepareConfig,
    write: Callable[[Path, Sequence[Shard]], None] | None = None,
) -> Prepared:
    """Make the dataset of finished outcomes beside its place, move it there, tidy up.

    ``write(work folder, shards)`` writes the shards' files; by default one after the other.

    Raises:
        ValueError: no input was accepted; the report stays in the work folder.
    """
    heads = [work.head(number) for number in range(len(inputs))]
    names = [split_of(given.group, config.validation) for given in inputs]
    accepted = [number for number, head in enumerate(heads) if head.accepted]
    partial = work.path / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    counts = write_report(partial / REPORT, map(Line.of, inputs, heads, names))
    if not accepted:
        raise ValueError(f"no input can be used: {counts.summary()}; see {partial / REPORT}")
    splits = {
        name: _shards(partial, name, chosen, config.clips_per_shard)
        for name in sorted(set(names))
        if (chosen := [number for number in accepted if names[number] == name])
    }
    (write or write_shards)(work.path, [shard for shards in splits.values() for shard in shards])
    write_metadata(partial, [Split.of(name, shards) for name, shards in splits.items()])
    samples = [work.record(accepted[place]) for place in sample_numbers(len(accepted))]
    write_sheet(partial / SHEET, [decode_record(record) for record in samples])
    (partial / PLAN).write_text(plan.to_json(), encoding="utf-8")
    write_card(partial / CARD, counts, plan.config, versions())
    write_checksums(partial)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(folder)
    shutil.rmtree(work.path, ignore_errors=True)
    return Prepared(folder, counts)


def _shards(folder: Path, split: str, numbers: Sequence[int], per_shard: int) -> list[Shard]:
    starts = range(0, len(numbers), per_shard)
    return [
        (str(shard_path(folder, split, index, len(starts))), [*numbers[start : start + per_shard]])
        for index, start in enumerate(starts)
    ]


def write_shards(path: Path, shards: Iterable[Shard]) -> None:
    """Write shards of the outcomes in a work folder, each file whole or not at all."""
    work = WorkFolder(path)
    for name, numbers in shards:
        write_shard(Path(name), map(work.record, numbers))

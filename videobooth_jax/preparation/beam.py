"""Many machines by Apache Beam: the same function makes every clip, the same file for every shard.

Two pipelines, first all clips, then all shards. What they hand on are files in the work folder,
each written whole under its final name, so that an element that Beam runs twice changes nothing,
and a job that failed goes on where it was. All machines must see the videos and ``--out`` under the
same paths.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from videobooth_jax.data.clip_records import clip_features
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput, from_json, to_json
from videobooth_jax.preparation.prepare import (
    WORK,
    Prepared,
    Shard,
    assemble,
    dataset_folder,
    finished,
    make_clips,
    read_counts,
    write_shards,
)
from videobooth_jax.preparation.work_folder import Plan, WorkFolder, claimed, write_whole

BATCH = (8, 256)
"""Clips that one worker process is started for, at least and at most."""


def prepare_with_beam(
    inputs: Sequence[ClipInput], out: str | Path, config: PrepareConfig, flags: Sequence[str]
) -> Prepared:
    """As `preparation.prepare.prepare`, with the machines that Beam's ``flags`` name.

    Raises:
        ImportError: Beam is not installed.
        ValueError, OSError: as `prepare`.
    """
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise ImportError("--beam needs Apache Beam: pip install 'videobooth_jax[beam]'") from error
    plan, folder, work = Plan.of(inputs, config), dataset_folder(out), WorkFolder(Path(out) / WORK)
    with claimed(Path(out)):
        if finished(folder, plan):
            return Prepared(folder, read_counts(folder), already=True)
        clip_features()
        work.begin(plan)
        lines = (f"{n} {to_json(inputs[n])}" for n in work.missing(range(len(inputs))))
        _run(flags, work.path, "clips", lines, functools.partial(_clips, work.path, config))
        return assemble(inputs, work, folder, plan, config, functools.partial(_write, flags))


def _write(flags: Sequence[str], path: Path, shards: Sequence[Shard]) -> None:
    _run(flags, path, "shards", map(json.dumps, shards), functools.partial(_shards, path))


def _clips(path: Path, config: PrepareConfig, lines: Sequence[str]) -> Iterator[str]:
    """Make the clips of some lines, in a process of their own that may die of one."""
    numbers, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    inputs = list(zip(map(int, numbers), map(from_json, texts), strict=True))
    for accepted in make_clips(inputs, path, config, workers=1):
        yield "clips" if accepted else "set aside"


def _shards(path: Path, lines: Sequence[str]) -> Iterator[str]:
    write_shards(path, map(json.loads, lines))
    yield from ["shards"] * len(lines)


def _run(
    flags: Sequence[str],
    path: Path,
    name: str,
    lines: Iterable[str],
    work: Callable[[Sequence[str]], Iterator[str]],
) -> None:
    """Do ``work`` on batches of lines, wherever Beam likes, and count what it yields."""
    import apache_beam as beam
    from apache_beam.metrics import Metrics
    from apache_beam.options.pipeline_options import PipelineOptions

    def count(kind: str) -> Any:
        Metrics.counter("videobooth", kind).inc()
        return kind

    todo = path / f"{name}.txt"
    write_whole(todo, "".join(f"{line}\n" for line in lines))
    options = PipelineOptions(list(flags), save_main_session=False)
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "read" >> beam.io.ReadFromText(str(todo))
            | "spread" >> beam.Reshuffle()
            | "batch" >> beam.BatchElements(*(BATCH if name == "clips" else (1, 1)))
            | name >> beam.FlatMap(work)
            | "count" >> beam.Map(count)
        )

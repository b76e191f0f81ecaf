"""What is finished of a dataset in the making: one file a clip, so that a stopped run goes on.

``OUT/.preparing/`` holds ``plan.json``, what the clips are made of, and files ``clips/000/00042``,
a line of JSON and the record. It is gone when the dataset is there.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from videobooth_jax.outputs import written_whole
from videobooth_jax.preparation.clip import Outcome
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput, fingerprint

LIBRARIES = ("videobooth_jax", "av", "numpy", "pillow", "opencv-python-headless", "array_record")


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is there whole or not at all, also when the power goes."""
    with written_whole([path]) as (partial,), partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make a folder and be the only run in it; a run that is killed lets go.

    On shared file systems without locks of folders nothing keeps two runs apart.

    Raises:
        ValueError: another run is at work in it.
        OSError: it cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run is at work in {out}: wait until it ends, or choose another --out"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(folder)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a dataset is made of: ``config``, and places of inputs with their fingerprints."""

    config: dict[str, Any]
    inputs: dict[str, str]

    @classmethod
    def of(cls, inputs: Iterable[ClipInput], config: PrepareConfig) -> "Plan":
        """The plan of these inputs."""
        return cls(
            dataclasses.asdict(config), {given.place: fingerprint(given) for given in inputs}
        )

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({**dataclasses.asdict(self), "versions": versions()}, indent=1)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """A stored plan.

        Raises:
            ValueError: it is damaged.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(stored["config"], stored["inputs"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: remove its folder and begin again") from error

    def differences(self, other: "Plan") -> list[str]:
        """What is different in ``other``, for people."""
        found = [
            f"{name} was {self.config.get(name)} and is now {other.config.get(name)}"
            for name in sorted(self.config.keys() | other.config.keys())
            if self.config.get(name) != other.config.get(name)
        ]
        gone, new = (
            self.inputs.keys() - other.inputs.keys(),
            other.inputs.keys() - self.inputs.keys(),
        )
        changed = {
            place
            for place in self.inputs.keys() & other.inputs.keys()
            if self.inputs[place] != other.inputs[place]
        }
        for places, what in ((gone, "gone"), (new, "new"), (changed, "changed")):
            if places:
                first = ", ".join(sorted(places)[:3])
                found.append(f"inputs {what}: {len(places)} ({first}{', ...' * (len(places) > 3)})")
        if not found and list(self.inputs) != list(other.inputs):
            found.append("the inputs come in another order")
        return found


class WorkFolder:
    """The finished outcomes of a plan's inputs, by their numbers."""

    def __init__(self, path: Path):
        """Nothing is read or made yet."""
        self.path = path

    def begin(self, plan: Plan) -> None:
        """Make the folder, or find it as it was left.

        Raises:
            ValueError: it belongs to another plan.
        """
        stored = self.path / "plan.json"
        if not stored.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(stored, plan.to_json())
        elif differences := Plan.read(stored).differences(plan):
            raise ValueError(
                f"{self.path} holds an unfinished run of something else: {'; '.join(differences)}. "
                "Finish that run as it was begun, or remove the folder, or choose another --out"
            )

    def has(self, number: int) -> bool:
        """Whether that input is finished."""
        return self._file(number).exists()

    def put(self, number: int, outcome: Outcome) -> None:
        """Keep an outcome; a second one of the same input replaces the first."""
        head = {name: getattr(outcome, name) for name in ("reason", "why", "facts")}
        path = self._file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(head).encode() + b"\n" + outcome.record)

    def head(self, number: int) -> Outcome:
        """An outcome without its record."""
        with self._file(number).open("rb") as file:
            return Outcome(**json.loads(file.readline()))

    def record(self, number: int) -> bytes:
        """The record of an accepted input."""
        return self._file(number).read_bytes().split(b"\n", 1)[1]

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of the inputs that are not finished."""
        return [number for number in numbers if not self.has(number)]

    def _file(self, number: int) -> Path:
        return self.path / "clips" / f"{number // 1000:03d}" / f"{number:05d}"


def versions() -> dict[str, str]:
    """Of what a dataset's bytes may depend on."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"

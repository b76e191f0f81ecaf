"""A folder of stored outputs: its cases, their arrays and their parameter names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1


@lru_cache(maxsize=16)
def _archive(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class Case:
    """One entry of cases.json; `entry` is that entry as it stands."""

    folder: Path
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return self.entry["name"]

    @property
    def kind(self) -> str:
        return self.entry["kind"]

    @property
    def config(self) -> dict[str, Any]:
        return self.entry["config"]

    @property
    def options(self) -> dict[str, Any]:
        return self.entry["options"]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        return self.entry["outputs"]

    @property
    def precisions(self) -> tuple[str, ...]:
        """float32, and float64 where a sharper reference is stored."""
        sharp = any("f64" in spec for spec in self.outputs.values())
        return ("float32", "float64") if sharp else ("float32",)

    def array(self, key: str) -> np.ndarray:
        """A stored array by its name in the archive."""
        return _archive(self.folder / self.entry["npz"])[key]

    def inputs(self, dtype: str) -> dict[str, Any]:
        """Role -> array (or tuple of arrays): floating ones in `dtype`, whole numbers int32."""

        def read(name: str | list[str]) -> Any:
            if isinstance(name, list):
                return tuple(read(n) for n in name)
            array = self.array(name)
            kinds = {"f": dtype, "i": "int32"}
            return array.astype(kinds.get(array.dtype.kind, array.dtype))

        return {role: read(name) for role, name in self.entry["inputs"].items()}

    def reference(self, role: str) -> np.ndarray:
        """The stored float32 output of a role."""
        return self.array(self.outputs[role]["key"])

    def json(self, file: str) -> dict[str, Any]:
        """A parameter file of the folder."""
        return json.loads((self.folder / file).read_text())

    @cached_property
    def params(self) -> dict[str, Any]:
        """The case's parameter file."""
        return self.json(self.entry["params"])


def load_cases(folder: Path) -> list[Case]:
    """All cases of a folder, in order."""
    index = json.loads((folder / "cases.json").read_text())
    if index["schema"] != SCHEMA:
        raise ValueError(f"{folder}/cases.json has schema {index['schema']}, expected {SCHEMA}")
    return [Case(folder, entry) for entry in index["cases"]]

"""State dicts to parameter trees and back, in memory, by the tables of `name_map`; strict in both
directions.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from videobooth_jax.conversion.name_map import Rule, Table
from videobooth_jax.typing import Params

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Transform:
    """How one layout goes from PyTorch to Flax (``forward``) and back (``backward``); views where
    possible.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]
    torch_shape: Callable[[Shape], Shape]


LAYOUTS: dict[str, Transform] = {
    "same": Transform(lambda x: x, lambda x: x, lambda s: s),
    "linear": Transform(lambda x: x.T, lambda x: x.T, lambda s: s[::-1]),
    "conv": Transform(
        lambda x: x.transpose(2, 3, 1, 0),
        lambda x: x.transpose(3, 2, 0, 1),
        lambda s: (s[3], s[2], s[0], s[1]),
    ),
    "pointwise": Transform(
        lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None], lambda s: (s[1], s[0], 1, 1)
    ),
}


class WeightsMismatchError(ValueError):
    """Names or shapes that do not fit; the message lists them all.

    Attributes:
      missing: lines on parameters for which no weight was given.
      unused: lines on weights that no parameter takes.
      misshapen: lines on weights of another shape than the parameter's.
    """

    def __init__(self, missing: list[str], unused: list[str], misshapen: list[str]) -> None:
        self.missing, self.unused, self.misshapen = missing, unused, misshapen
        parts = {"missing": missing, "unused": unused, "misshapen": misshapen}
        counts = ", ".join(f"{len(lines)} {what}" for what, lines in parts.items())
        body = "".join(
            f"\n{what}:" + "".join(f"\n  {line}" for line in lines)
            for what, lines in parts.items()
            if lines
        )
        super().__init__(
            f"the weights do not fit the model ({counts}); check that both are of one size.{body}"
        )


@lru_cache(maxsize=4096)
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(template)))


def _translate(name: str, pairs: Iterable[tuple[str, str, str]]) -> tuple[str, str] | None:
    """The (translated name, layout) by the one (from, to, layout) template pair that matches
    ``name``.
    """
    found = [
        (to.format(**match.groupdict()), layout)
        for given, to, layout in pairs
        if (match := _pattern(given).fullmatch(name))
    ]
    if len(found) > 1:
        raise ValueError(f"the name table is ambiguous: {name} becomes any of {found}.")
    return found[0] if found else None


def flax_path(name: str, rules: Iterable[Rule]) -> tuple[str, str] | None:
    """(Flax path, layout) of a PyTorch name, or None where no rule matches."""
    return _translate(name, ((r.torch, r.flax, r.layout) for r in rules))


def torch_name(path: str, rules: Iterable[Rule]) -> tuple[str, str] | None:
    """(PyTorch name, layout) of a Flax path, or None where no rule matches."""
    return _translate(path, ((r.flax, r.torch, r.layout) for r in rules))


def canonical_names(names: Iterable[str], table: Table) -> dict[str, str]:
    """Canonical name -> the name given, with the table's aliases resolved and its ignored names
    left out.

    Raises:
      ValueError: two given names mean the same parameter.
    """
    found: dict[str, str] = {}
    for name in names:
        if any(_pattern(template).fullmatch(name) for template in table.ignored):
            continue
        renamed = _translate(name, ((given, to, "same") for given, to in table.aliases))
        canonical = renamed[0] if renamed else name
        if canonical in found:
            raise ValueError(f"{found[canonical]} and {name} both mean {canonical}; keep one.")
        found[canonical] = name
    return found


def to_flax(
    state_dict: Mapping[str, np.ndarray], abstract_params: Mapping[str, Any], table: Table
) -> Params:
    """The parameter tree that a PyTorch state dict describes.

    Args:
      state_dict: PyTorch name -> array. Shapes are looked at before anything is converted; arrays
        are then taken one by one, so a lazy mapping never has to hold all of them.
      abstract_params: nested dict of arrays or ShapeDtypeStructs: the paths, shapes and dtypes
        wanted.
      table: the correspondence.

    Returns:
      A nested dict of contiguous numpy arrays, in the wanted dtypes.

    Raises:
      WeightsMismatchError: names missing, unused or misshapen, all reported together.
      ValueError: the table is ambiguous.
    """
    wanted = flatten_dict(abstract_params, sep="/")
    given = canonical_names(state_dict, table)
    origin = {path: torch_name(path, table.rules) for path in wanted}
    _check(state_dict, given, wanted, origin, table)
    flat = {}
    for path, leaf in wanted.items():
        name, layout = origin[path] or ("", "")
        array = LAYOUTS[layout].forward(np.asarray(state_dict[given[name]]))
        flat[path] = np.asarray(array, dtype=leaf.dtype, order="C")
    return unflatten_dict(flat, sep="/")


def _check(
    state_dict: Mapping[str, np.ndarray],
    given: Mapping[str, str],
    wanted: Mapping[str, Any],
    origin: Mapping[str, tuple[str, str] | None],
    table: Table,
) -> None:
    missing, unused, misshapen = [], [], []
    taken = set()
    for path, leaf in wanted.items():
        if (source := origin[path]) is None:
            missing.append(f"flax {path} {tuple(leaf.shape)}: no rule names its PyTorch weight")
            continue
        name, layout = source
        taken.add(name)
        shape = LAYOUTS[layout].torch_shape(tuple(leaf.shape))
        sides = f"torch {name} {shape} -> flax {path} {tuple(leaf.shape)}"
        if name not in given:
            missing.append(sides)
        elif (actual := tuple(state_dict[given[name]].shape)) != shape:
            misshapen.append(f"{sides}: given {actual}")
    for name in sorted(given.keys() - taken):
        target = flax_path(name, table.rules)
        where = f"flax {target[0]}, which this model lacks" if target else "no rule knows this name"
        unused.append(f"torch {given[name]} {tuple(state_dict[given[name]].shape)}: {where}")
    if missing or unused or misshapen:
        raise WeightsMismatchError(missing, unused, misshapen)


def to_torch(params: Mapping[str, Any], table: Table) -> dict[str, np.ndarray]:
    """The exact inverse of `to_flax`: PyTorch name -> contiguous array in PyTorch's layout, dtypes
    unchanged.

    Raises:
      WeightsMismatchError: paths that no rule names, all reported together.
      ValueError: the table is ambiguous.
    """
    return {
        name: np.asarray(LAYOUTS[layout].backward(np.asarray(leaf)), order="C")
        for leaf, name, layout in _sources(params, table)
    }


def torch_shapes(abstract_params: Mapping[str, Any], table: Table) -> dict[str, Shape]:
    """PyTorch name -> shape of everything that `to_torch` would write for parameters of these
    shapes.

    Raises:
      WeightsMismatchError: paths that no rule names, all reported together.
      ValueError: the table is ambiguous.
    """
    return {
        name: LAYOUTS[layout].torch_shape(tuple(leaf.shape))
        for leaf, name, layout in _sources(abstract_params, table)
    }


def _sources(params: Mapping[str, Any], table: Table) -> list[tuple[Any, str, str]]:
    """(leaf, PyTorch name, layout) of every parameter."""
    flat = flatten_dict(params, sep="/")
    found = {path: torch_name(path, table.rules) for path in flat}
    lost = [f"flax {path} {tuple(flat[path].shape)}" for path in flat if not found[path]]
    if lost:
        raise WeightsMismatchError([], lost, [])
    return [(flat[path], *source) for path, source in found.items() if source]

"""The pipeline's programs out of a folder, so that the next process is sooner at its video."""

import functools
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import jax
from etils import epath

from videobooth_jax.checkpointing.traced_programs import (
    NotKeptError,
    TracedProgram,
    export_program,
    kept_program,
    surroundings,
)
from videobooth_jax.compilation_cache import traced_programs_folder
from videobooth_jax.pipeline.programs import Subject


def call(program: Any, static: tuple[Hashable, ...], *arrays: Any) -> Any:
    """``program(*static, *arrays)``, traced once for all processes that keep programs in the same
    folder. Spread over a mesh, or where nothing is kept, it is traced once in each.

    Args:
        program: a jitted function of `pipeline.programs`.
        static: its first arguments, whose repr tells them apart.
        arrays: the others, pytrees of arrays.
    """
    return bind(program, static, *arrays)()


def bind(program: Any, static: tuple[Hashable, ...], *first: Any) -> Callable[..., Any]:
    """`call` with the ``first`` arrays given, to be called with the rest: of the same kinds each
    time, since the program is looked up at the first call alone.
    """
    found: Callable[..., Any] | None = None

    def bound(*rest: Any) -> Any:
        nonlocal found
        arrays = (*first, *rest)
        found = found or _look_up(program, static, arrays)
        return found(*arrays)

    return bound


def _look_up(program: Any, static: tuple[Hashable, ...], arrays: Any) -> Callable[..., Any]:
    """The program as a function of arrays such as these."""
    plain = functools.partial(program, *static)
    folder = traced_programs_folder()
    leaves, tree = jax.tree.flatten(arrays)
    devices = {d for x in leaves if isinstance(x, jax.Array) for d in x.devices()}
    if folder is None or len(devices) > 1 or not jax.sharding.get_abstract_mesh().empty:
        return plain
    device = devices.pop() if devices else None
    kinds = tuple((x.shape, x.dtype) for x in leaves)
    found = _find(folder, program, static, tree, kinds, device, surroundings())
    return plain if found is None else lambda *arrays: _whole(found(jax.tree.leaves(arrays)))


@functools.cache
def _find(
    folder: epath.Path,
    program: Any,
    static: tuple[Hashable, ...],
    tree: Any,
    kinds: tuple[tuple[tuple[int, ...], Any], ...],
    device: jax.Device | None,
    _: tuple[tuple[str, str], ...],
) -> Callable[[list[Any]], Any] | None:
    """The program as a function of leaves alone, compiled for them on this or the default device;
    None, with a warning, if it cannot be kept.

    Compiled once: a jitted one would be again for its own results, which JAX takes for committed.
    """
    platform = jax.default_backend() if device is None else device.platform
    place = None if device is None else jax.sharding.SingleDeviceSharding(device)
    leaves = [jax.ShapeDtypeStruct(*kind, sharding=place) for kind in kinds]

    def of_leaves(leaves: list[Any]) -> Any:
        return _plain(program(*static, *jax.tree.unflatten(tree, leaves)))

    def trace() -> TracedProgram:
        return TracedProgram(export_program(of_leaves, [leaves], platform))

    made_of = [platform, repr(static), str(tree), repr(kinds)]
    try:
        kept = kept_program(folder, program.__name__, made_of, trace)
    except NotKeptError as error:
        warnings.warn(f"{program.__name__} is not kept for another time: {error}", stacklevel=3)
        return None
    return jax.jit(kept.exported.call).lower(leaves).compile()


def _plain(result: Any) -> Any:
    """A `Subject`, the one result of a type of our own, as a dictionary."""
    return dict(vars(result)) if isinstance(result, Subject) else result


def _whole(result: Any) -> Any:
    return Subject(**result) if isinstance(result, dict) else result

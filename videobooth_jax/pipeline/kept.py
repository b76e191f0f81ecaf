"""The pipeline's programs out of a folder, so that the next process is sooner at its video."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from etils import epath
from jax import export

from videobooth_jax.checkpointing.traced_programs import TracedProgram, kept_program
from videobooth_jax.compilation_cache import traced_programs_folder
from videobooth_jax.pipeline.programs import Conditioning, Subject

for _kind in (Subject, Conditioning):
    export.register_pytree_node_serialization(
        _kind,
        serialized_name=f"{_kind.__module__}.{_kind.__name__}",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
    )


def call(program: Any, static: tuple[Hashable, ...], *arrays: Any) -> Any:
    """``program(*static, *arrays)``, traced once for all processes that keep programs in the same
    folder. Spread over a mesh, or where nothing is kept, it is traced once in each.

    Args:
        program: a jitted function of `pipeline.programs`.
        static: its first arguments, whose repr tells them apart.
        arrays: the others, pytrees of arrays.
    """
    folder = traced_programs_folder()
    leaves, structure = jax.tree.flatten(arrays)
    spread = any(len(x.devices()) > 1 for x in leaves if isinstance(x, jax.Array))
    if folder is None or spread or not jax.sharding.get_abstract_mesh().empty:
        return program(*static, *arrays)
    kinds = tuple((x.shape, x.dtype) for x in leaves)
    return _kept(folder, program, static, structure, kinds)(*arrays)


@functools.cache
def _kept(
    folder: epath.Path,
    program: Any,
    static: tuple[Hashable, ...],
    structure: Any,
    kinds: tuple[tuple[tuple[int, ...], Any], ...],
) -> Callable[..., Any]:
    def bound(*arrays: Any) -> Any:
        return program(*static, *arrays)

    def trace() -> TracedProgram:
        leaves = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
        return TracedProgram(export.export(jax.jit(bound))(*jax.tree.unflatten(structure, leaves)))

    made_of = [jax.default_backend(), repr(static), str(structure), repr(kinds)]
    return jax.jit(kept_program(folder, program.__name__, made_of, trace).exported.call)

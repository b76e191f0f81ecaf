"""Trip counts, as compilers write them down and as they follow from a loop."""

import jax
import jax.numpy as jnp
import pytest
from programs import loop

from videobooth_jax.aot import hlo, loops


def counted(**parts):
    return loops.schedule(hlo.parse(loop(**parts)))


@pytest.mark.parametrize(("step", "end", "trips"), [(1, 6, 6), (2, 6, 3), (4, 6, 2), (1, 0, 0)])
def test_start_end_and_step_tell_the_trip_count(step, end, trips):
    found = counted(step=f"constant({step})", end=f"constant({end})")
    assert found.unknown_loops == ()
    assert [(run.computation.name, run.times) for run in found.runs] == [
        ("main", 1),
        ("body", trips),
    ]


def test_a_count_that_the_data_decide_is_unknown():
    found = counted(end="convert(%x.2)")
    assert found.unknown_loops == ("loop",)
    assert [run.times for run in found.runs] == [1, 1]


def test_nested_scans_of_a_real_program_multiply():
    def nested(x):
        def inner(c, _):
            return jnp.sin(c) @ c, None

        def outer(c, _):
            return jax.lax.scan(inner, c, None, length=3)[0], None

        return jax.lax.scan(outer, x, None, length=5)[0]

    compiled = jax.jit(nested).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile()
    found = loops.schedule(hlo.parse(compiled.as_text()))
    assert found.unknown_loops == ()
    assert {1, 5, 15} <= {run.times for run in found.runs}

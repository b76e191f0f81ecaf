"""What is sent is counted once, with its loop, at its true size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from programs import CHAIN, loop

from videobooth_jax.aot import hlo, loops
from videobooth_jax.aot.collectives import Collective, collectives, group_size


def counted(text, devices):
    return collectives(loops.schedule(hlo.parse(text)), devices)


def test_a_loop_multiplies():
    size = 8 * 128 * 2
    assert counted(loop(), 8) == [Collective("all-reduce", 4, 6, 6 * size, 6 * size * 2 * 3 // 4)]


def test_parts_of_one_collective_count_once_and_a_cut_sum_is_a_reduce_scatter():
    whole = 64 * 64 * 2
    assert counted(CHAIN, 4) == [
        Collective("all-gather", 4, 1, whole, whole * 3 // 4),
        Collective("reduce-scatter", 4, 1, whole // 4, whole * 3 // 4),
        Collective("collective-permute", 2, 1, whole, whole),
    ]


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", 4),
        ("replica_groups={}", 8),
    ],
)
def test_group_sizes_of_every_way_to_write_groups(groups, size):
    instruction = hlo.Instruction("a", "all-reduce", (), "", (), f", channel_id=1, {groups}, x=1")
    assert group_size(instruction, 8) == size


def test_a_real_program_with_every_kind():
    """Four devices along ``data``, two along ``model``; 64 floats on each."""
    mesh = Mesh(
        np.array(jax.devices()).reshape(4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )
    spec = PartitionSpec("data", "model")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    def talk(x):
        def once(x, _):
            x = jnp.sin(jax.lax.psum(x, "data"))
            x = jax.lax.all_to_all(x, "data", 0, 1, tiled=True).reshape(x.shape)
            x = jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)])
            x = jax.lax.psum_scatter(x, "model", tiled=True)
            return jax.lax.all_gather(jnp.sin(x), "model", tiled=True), None

        return jax.lax.scan(once, x, None, length=5)[0]

    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=NamedSharding(mesh, spec))
    size = 8 * 8 * 4
    assert counted(jax.jit(talk).lower(x).compile().as_text(), 8) == [
        Collective("all-reduce", 4, 5, 5 * size, 5 * size * 2 * 3 // 4),
        Collective("all-gather", 2, 5, 5 * size, 5 * size // 2),
        Collective("reduce-scatter", 2, 5, 5 * size // 2, 5 * size // 2),
        Collective("all-to-all", 4, 5, 5 * size, 5 * size * 3 // 4),
        Collective("collective-permute", 2, 5, 5 * size, 5 * size),
    ]

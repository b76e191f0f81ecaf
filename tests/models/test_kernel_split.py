"""A kernel on a mesh is the kernel on one device."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from videobooth_jax.models import attention_ops
from videobooth_jax.models.attention import first_and_previous
from videobooth_jax.models.attention_ops import attention_over_parts
from videobooth_jax.models.kernel_split import FRAMES, HEADS, ROWS, on_every_device
from videobooth_jax.models.pallas_attention import flash_attention_over_parts
from videobooth_jax.sharding import AXES, MeshSizes, known, make_mesh

MESH = MeshSizes(data=2, frames=2, tensor=2)


@pytest.fixture(autouse=True)
def interpreted_and_never_too_short(monkeypatch):
    kernel = functools.partial(flash_attention_over_parts, interpret=True)
    monkeypatch.setattr(attention_ops, "flash_attention_over_parts", kernel)
    monkeypatch.setattr(attention_ops, "KERNEL_SCORES", 0)


def clips(batch, frames, channels):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (batch, frames, 6, channels)) for key in keys]


def values_and_gradients(implementation, num_heads, query, key, value):
    def loss(query, key, value):
        parts = first_and_previous(key, value)
        out = attention_over_parts(query, parts, num_heads=num_heads, implementation=implementation)
        return jnp.sum(jnp.sin(out)), out

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(query, key, value)


def test_it_is_split_as_the_mesh_is():
    assert sorted((*ROWS, *FRAMES, *HEADS)) == sorted(AXES)


@pytest.mark.parametrize(
    ("batch", "frames", "num_heads", "shares"),
    [
        (2, 4, 4, (1, 2, 2)),
        (1, 1, 3, (1, 1, 3)),  # one sample, one frame and three heads cannot be split
        (8, 1, 1, (2, 1, 1)),  # the autoencoder's batch: frames of all clips, one head
    ],
)
def test_values_and_gradients_are_those_of_one_device(
    monkeypatch, batch, frames, num_heads, shares
):
    seen = []

    def kernel(query, parts):
        seen.append(query.shape)
        return flash_attention_over_parts(query, parts, interpret=True)

    given = clips(batch, frames, 12)
    want = values_and_gradients("xla", num_heads, *given)
    monkeypatch.setattr(attention_ops, "flash_attention_over_parts", kernel)
    mesh = make_mesh(MESH)
    function = functools.partial(values_and_gradients, "pallas", num_heads)
    placed = jax.device_put(given, jax.NamedSharding(mesh, jax.P()))
    got = jax.jit(known(mesh)(function))(*placed)
    rows, parts_of_frames, heads = shares
    assert seen[0] == (rows, parts_of_frames, 6, heads, 12 // num_heads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


def test_within_a_split_of_ones_own_it_is_called_as_it_is():
    mesh, rows = make_mesh(MeshSizes(data=8)), jax.P("data")
    attend = functools.partial(
        on_every_device, functools.partial(flash_attention_over_parts, interpret=True)
    )

    def of_one(query, key, value):
        return attend(query, [(key, value)])

    split = jax.shard_map(of_one, mesh=mesh, in_specs=(rows,) * 3, out_specs=rows, check_vma=False)
    given = [jax.random.normal(jax.random.key(i), (8, 2, 6, 2, 4)) for i in range(3)]
    np.testing.assert_allclose(jax.jit(split)(*given), of_one(*given), atol=1e-6)


FOREIGN = jax.sharding.AbstractMesh((8,), ("mine",))
EXPLICIT = jax.sharding.AbstractMesh((8, 1, 1, 1), AXES, axis_types=(AxisType.Explicit,) * 4)


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (lambda: known(make_mesh(MESH)), True),
        (contextlib.nullcontext, False),
        (lambda: jax.sharding.use_abstract_mesh(FOREIGN), False),
        (lambda: jax.sharding.use_abstract_mesh(EXPLICIT), False),
    ],
    ids=["known", "none", "foreign", "explicit"],
)
def test_auto_takes_the_kernel_for_long_sequences_once_the_mesh_is_known(monkeypatch, scope, told):
    monkeypatch.undo()
    shape = jax.ShapeDtypeStruct((8, 2, 4096, 16), jnp.bfloat16)

    def attend(*qkv):
        query, key, value = qkv
        parts = [(key, value)]
        return attention_over_parts(query, parts, num_heads=2, implementation="auto")

    with scope():
        traced = jax.jit(attend).trace(shape, shape, shape)
    for platform in ("tpu", "cuda"):
        lowered = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("tpu_custom_call" in lowered) == (told and platform == "tpu")

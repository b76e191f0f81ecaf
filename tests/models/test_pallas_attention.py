"""The TPU kernel, interpreted: values and gradients against the formula; and compiled, where libtpu
is installed.
"""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.models.attention_ops import IMPLEMENTATIONS
from videobooth_jax.models.pallas_attention import flash_attention, flash_attention_over_parts


def arrays(depth, queries, keys, key_frames, dtype):
    rng = np.random.default_rng(depth)
    shapes = [(1, 2, 2, depth, queries), *[(1, key_frames, 2, depth, keys)] * 2]
    scale = (depth**-0.5, 1, 1)
    return [
        jnp.asarray(s * rng.standard_normal(shape), dtype)
        for s, shape in zip(scale, shapes, strict=True)
    ]


def formula(query, key, value):
    """Both results, in float32 whatever comes in."""
    query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    key, value = (jnp.broadcast_to(x, (*query.shape[:2], *x.shape[2:])) for x in (key, value))
    scores = jnp.einsum("bfhdn,bfhdm->bfhnm", query, key)
    out = jnp.einsum("bfhnm,bfhdm->bfhdn", jax.nn.softmax(scores, axis=-1), value)
    return out, jax.nn.logsumexp(scores, axis=-1)[:, :, :, None]


def with_gradients(function, inputs):
    def loss(inputs):
        out, logsumexp = function(*inputs)
        both = jnp.sum(jnp.sin(out.astype(jnp.float32))) + jnp.sum(jnp.cos(logsumexp))
        return both, (out, logsumexp)

    (_, results), gradients = jax.value_and_grad(loss, has_aux=True)(inputs)
    return results, gradients


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("bfloat16", 8e-3)])
@pytest.mark.parametrize(
    ("depth", "queries", "keys", "key_frames"),
    [
        (40, 100, 300, 2),
        (80, 130, 77, 1),  # fewer keys than one block, shared by the frames
        (160, 128, 256, 2),  # nothing is padded
        (40, 520, 600, 1),  # several blocks of both
    ],
)
def test_values_and_gradients_are_those_of_the_formula(
    depth, queries, keys, key_frames, dtype, bound
):
    inputs = arrays(depth, queries, keys, key_frames, dtype)
    got = jax.jit(lambda *x: with_gradients(lambda *y: flash_attention(*y, True), x))(*inputs)
    want = jax.jit(lambda *x: with_gradients(formula, x))(*inputs)
    types = [dtype, "float32", *[dtype] * 3]
    for x, y, kind in zip(jax.tree.leaves(got), jax.tree.leaves(want), types, strict=True):
        assert x.dtype == kind
        error = np.asarray(x, np.float32) - np.asarray(y, np.float32)
        assert np.linalg.norm(error) < bound * np.linalg.norm(np.asarray(y, np.float32))


def test_parts_are_merged_into_one_softmax():
    rng = np.random.default_rng(2)

    def normal(frames, tokens):
        return jnp.asarray(rng.standard_normal((2, frames, tokens, 2, 8)), jnp.float32)

    query, parts = normal(3, 20), [(normal(f, n), normal(f, n)) for f, n in ((1, 9), (3, 11))]
    got = jax.jit(lambda *x: flash_attention_over_parts(*x, interpret=True))(query, parts)
    np.testing.assert_allclose(got, IMPLEMENTATIONS["xla"](query, parts), atol=2e-6)


COMPILE = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from videobooth_jax.models.attention import first_and_previous
from videobooth_jax.models.attention_ops import attention, attention_over_parts
from videobooth_jax.sharding import MeshSizes, known, make_mesh

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices

def compiled(name, dtype, sizes, shape, num_heads):
    mesh = make_mesh(sizes, devices)
    place = jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "frames", None, "tensor"))
    x = jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def loss(query, key, value):
        parts = first_and_previous(key, value)
        out = attention_over_parts(query, parts, num_heads=num_heads, implementation=name)
        return jnp.sum(jnp.sin(out.astype(jnp.float32)))

    return jax.jit(known(mesh)(jax.grad(loss, (0, 1, 2)))).lower(x, x, x).compile()

def temporaries(program):
    return program.memory_analysis().temp_size_in_bytes

alone, of_unet = MeshSizes(data=1), ((1, 1, 4096, 320), 8)
program = compiled("auto", jnp.bfloat16, alone, *of_unet)
assert "key_gradient_kernel" in program.as_text()
xla = compiled("xla", jnp.bfloat16, alone, *of_unet)
assert "gradient_kernel" not in xla.as_text()
print(temporaries(program), temporaries(xla))

# Every axis at once: one frame to the neighbour, frame 0's gradient and the loss to all.
sizes = MeshSizes(data=2, frames=2, tensor=2)
program = compiled("auto", jnp.bfloat16, sizes, (2, 4, 4096, 320), 8)
text = program.as_text()
assert "query_gradient_kernel" in text
assert "all-gather" not in text and "all-to-all" not in text

# Frames as the autoencoder sees them, a long batch of pictures, stay where they are.
mesh = make_mesh(MeshSizes(data=2, frames=4), devices)
place = jax.NamedSharding(mesh, jax.P(("data", "fsdp", "frames")))
pictures = jax.ShapeDtypeStruct((8, 4096, 128), jnp.bfloat16, sharding=place)
attend = known(mesh)(lambda *qkv: attention(*qkv, num_heads=1))
text = jax.jit(attend).lower(pictures, pictures, pictures).compile().as_text()
assert "forward_kernel" in text
assert "all-gather" not in text

# The autoencoder's one deep head, in float32.
compiled("auto", jnp.float32, alone, (1, 1, 4096, 512), 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_the_tpu_compiler_takes_it_and_keeps_no_scores():
    settings = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    command = [sys.executable, "-c", COMPILE]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})
    assert run.returncode == 0, run.stderr
    pallas, xla = map(int, run.stdout.split()[-2:])
    assert xla > 2**28
    assert pallas < 2**24

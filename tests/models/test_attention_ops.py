"""The attention implementations agree, and are softmax(Q Kᵀ / √d) V per head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from videobooth_jax.models import attention_ops
from videobooth_jax.models.attention import first_and_previous
from videobooth_jax.models.attention_ops import IMPLEMENTATIONS, attention, attention_over_parts

ANYWHERE = sorted(set(IMPLEMENTATIONS) - {"cudnn"})
"""What runs on every platform (``pallas`` with few scores is ``xla``)."""


def inputs(batch=2, queries=5, keys=7, channels=12):
    rng = np.random.default_rng(0)
    shapes = [(batch, queries, channels), (batch, keys, channels), (batch, keys, channels)]
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def by_hand(query, key, value, num_heads):
    out = np.empty_like(query)
    depth = query.shape[-1] // num_heads
    for b in range(len(query)):
        for head in range(num_heads):
            part = slice(head * depth, (head + 1) * depth)
            scores = query[b, :, part] @ key[b, :, part].T / np.sqrt(depth)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[b, :, part] = weights / weights.sum(axis=1, keepdims=True) @ value[b, :, part]
    return out


@pytest.mark.parametrize("implementation", ANYWHERE)
@pytest.mark.parametrize("num_heads", [1, 3, 4])
def test_matches_the_formula(implementation, num_heads):
    got = attention(*inputs(), num_heads=num_heads, implementation=implementation)
    np.testing.assert_allclose(got, by_hand(*inputs(), num_heads), atol=2e-6)


def several_parts():
    """Queries of three frames; keys of one frame for all, of each, and of one for all again."""
    rng = np.random.default_rng(1)

    def normal(frames, tokens):
        return rng.standard_normal((2, frames, tokens, 12)).astype(np.float32)

    parts = [(normal(f, n), normal(f, n)) for f, n in ((1, 5), (3, 7), (1, 2))]
    return normal(3, 6), parts


def per_frame(query, parts, num_heads):
    frames = range(query.shape[1])
    keys, values = (
        np.stack(
            [
                np.concatenate([x[:, f if x.shape[1] > 1 else 0] for x in arrays], axis=1)
                for f in frames
            ],
            axis=1,
        )
        for arrays in zip(*parts, strict=True)
    )
    outs = [by_hand(query[:, f], keys[:, f], values[:, f], num_heads) for f in frames]
    return np.stack(outs, axis=1)


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_one_softmax_runs_over_all_parts(implementation):
    query, parts = several_parts()
    got = attention_over_parts(query, parts, num_heads=3, implementation=implementation)
    np.testing.assert_allclose(got, per_frame(query, parts, 3), atol=2e-6)


@pytest.mark.parametrize("implementation", ["map", "blocks"])
def test_blocks_of_queries_change_nothing_and_may_be_uneven(implementation, monkeypatch):
    monkeypatch.setattr(attention_ops, "QUERIES_PER_BLOCK", 4)
    monkeypatch.setattr(attention_ops, "SCORES_IN_CACHE", 2 * 14 * 4)
    query, parts = several_parts()
    got = attention_over_parts(query, parts, num_heads=3, implementation=implementation)
    np.testing.assert_allclose(got, per_frame(query, parts, 3), atol=2e-6)


def gradients(implementation, dtype=jnp.float32):
    def loss(arguments):
        out = attention_over_parts(*arguments, num_heads=3, implementation=implementation)
        return jnp.sum(jnp.square(out.astype(jnp.float32)))

    query, parts = several_parts()
    cast = jax.tree.map(lambda x: jnp.asarray(x, dtype), (query / 4, parts))
    return jax.grad(loss)(cast)


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_implementations_share_their_gradient(implementation):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        gradients(implementation),
        gradients("xla"),
    )


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_bfloat16_keeps_its_dtype_and_its_digits(implementation):
    exact = attention(*inputs(), num_heads=3, implementation=implementation)
    half = (jnp.asarray(x, jnp.bfloat16) for x in inputs())
    got = attention(*half, num_heads=3, implementation=implementation)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), exact, atol=0.03)
    for half_gradient, gradient in zip(
        jax.tree.leaves(gradients(implementation, jnp.bfloat16)),
        jax.tree.leaves(gradients(implementation)),
        strict=True,
    ):
        assert half_gradient.dtype == jnp.bfloat16
        error = np.asarray(half_gradient, np.float32) - gradient
        assert np.linalg.norm(error) < 0.02 * np.linalg.norm(gradient)


@pytest.mark.parametrize("implementation", ["xla", "parts", "blocks"])
def test_frames_split_over_devices_pass_on_one_frame_each(implementation):
    """The first is shown to all, the last to the next device; no device sees the whole clip."""
    devices = np.array(jax.devices()[:4]).reshape(2, 2)
    mesh = jax.sharding.Mesh(devices, ("data", "frames"), axis_types=(AxisType.Auto,) * 2)
    place = jax.NamedSharding(mesh, jax.P("data", "frames"))
    clip = jax.ShapeDtypeStruct((2, 8, 6, 12), jnp.float32, sharding=place)

    def attend(query, key, value):
        parts = first_and_previous(key, value)
        return attention_over_parts(query, parts, num_heads=3, implementation=implementation)

    compiled = jax.jit(attend, out_shardings=place).lower(clip, clip, clip).compile().as_text()
    assert "collective-permute" in compiled
    assert "all-gather" not in compiled
    assert "all-to-all" not in compiled


@pytest.mark.parametrize(("platform", "mapped"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_auto_follows_the_platform_compiled_for_not_the_one_at_hand(platform, mapped):
    """64 x 128 scores: mapped on CPUs, one product elsewhere."""
    shapes = [jax.ShapeDtypeStruct((1, n, 8), jnp.float32) for n in (64, 128, 128)]
    traced = jax.jit(lambda *qkv: attention(*qkv, num_heads=2, implementation="auto")).trace(
        *shapes
    )
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("while" in lowered) == mapped


def test_gradients_of_a_mapped_attention_keep_no_scores():
    shapes = [jax.ShapeDtypeStruct((1, n, 16), jnp.float32) for n in (512, 1024, 1024)]

    def temporaries(implementation):
        def loss(*qkv):
            return jnp.sum(attention(*qkv, num_heads=4, implementation=implementation))

        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = 4 * 512 * 1024 * 4
    assert temporaries("xla") > scores
    assert temporaries("auto") == temporaries("map") < 1.5 * scores


@pytest.mark.parametrize(
    ("dtype", "kind", "message"),
    [
        ("float32", ValueError, "computes in bfloat16 or float16, and this model in float32"),
        ("bfloat16", RuntimeError, "cuDNN is not detected"),
    ],
)
def test_cudnn_says_what_it_lacks(dtype, kind, message):
    with pytest.raises(kind, match=message):
        attention(*(jnp.asarray(x, dtype) for x in inputs()), num_heads=3, implementation="cudnn")


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'flash' is unknown; use one of"):
        attention(*inputs(), num_heads=1, implementation="flash")

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_checks import TINY, random_array, random_params

from videobooth_jax.models.clip import (
    MLP,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    word_sources,
)
from videobooth_jax.models.contrastive_head import ContrastiveHead, end_positions

TEXT, VISION = TINY.text_encoder, TINY.vision_encoder
IDS = jnp.asarray([[1, 5, 6, 7, 31, 31], [1, 7, 9, 31, 31, 31]], jnp.int32)

sources = jax.jit(word_sources, static_argnums=2)


def sources_by_list_surgery(ids, placeholder, num_words):
    """The published procedure, one match after the other, on lists of row numbers."""
    subject = [token for token in placeholder if token >= 0]
    prompt = list(range(len(ids)))
    result = list(prompt)
    for start in (i for i, token in enumerate(ids) if subject and token == subject[0]):
        end = start + len(subject)
        room = len(ids) - start - num_words
        surplus = len(subject) - num_words
        tail = prompt[end:] + prompt[-surplus:] if surplus > 0 else prompt[end : end + max(room, 0)]
        if len(tail) == room:
            result[start + num_words :] = tail
        for k in range(num_words):
            if start + k < len(ids):
                result[start + k] = -(k + 1)
    return result


def one_row(ids, placeholder, num_words=2):
    row = sources(jnp.asarray([ids], jnp.int32), jnp.asarray([placeholder], jnp.int32), num_words)
    return row[0].tolist()


def test_words_replace_the_placeholder_and_the_rest_moves():
    assert one_row([1, 5, 9, 9, 9, 9], [5]) == [0, -1, -2, 2, 3, 4]
    assert one_row([1, 5, 6, 9, 9, 9], [5, 6]) == [0, -1, -2, 3, 4, 5]
    assert one_row([1, 5, 6, 7, 9, 9], [5, 6, 7]) == [0, -1, -2, 4, 5, 5]


def test_only_the_first_token_of_the_placeholder_is_compared():
    assert one_row([1, 5, 9, 9, 9, 9], [5, 6]) == [0, -1, -2, 3, 4, 5]
    assert one_row([1, 6, 9, 9, 9, 9], [5, 6]) == [0, 1, 2, 3, 4, 5]


def test_a_later_match_works_in_the_prompts_own_coordinates():
    assert one_row([1, 5, 9, 9, 5, 9, 9], [5]) == [0, -1, -2, 2, -1, -2, 5]
    assert one_row([1, 5, 5, 9, 9], [5]) == [0, -1, -1, -2, 3]


def test_words_are_cut_off_at_the_end():
    assert one_row([1, 9, 9, 5], [5]) == [0, 1, 2, -1]
    assert one_row([1, 9, 5, 6], [5, 6, 7], 1) == [0, 1, -1, 3]


def test_padding_is_not_a_placeholder():
    assert one_row([1, 5, 9, 9], [-1, -1]) == [0, 1, 2, 3]
    assert one_row([1, 5, 9, 9], [5, -1, -1]) == [0, -1, -2, 2]


@pytest.mark.parametrize("num_words", [1, 2, 5])
@pytest.mark.parametrize("longest", [1, 3, 7])
def test_sources_agree_with_list_surgery_on_random_prompts(num_words, longest):
    rng = np.random.default_rng(10 * num_words + longest)
    ids = rng.integers(0, 6, (400, 11)).astype(np.int32)
    lengths = rng.integers(0, longest + 1, 400)
    placeholder = rng.integers(0, 6, (400, longest)).astype(np.int32)
    placeholder[np.arange(longest)[None] >= lengths[:, None]] = -1
    expected = [
        sources_by_list_surgery(*row, num_words)
        for row in zip(ids.tolist(), placeholder.tolist(), strict=True)
    ]
    result = sources(jnp.asarray(ids), jnp.asarray(placeholder), num_words)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, expected)


@functools.cache
def text_params():
    return random_params(CLIPTextModel(TEXT), IDS)


@jax.jit
def text_states(ids, source=None, words=None):
    return CLIPTextModel(TEXT).apply({"params": text_params()}, ids, source, words)


def test_words_equal_to_the_subjects_own_embedding_change_nothing():
    table = text_params()["embeddings"]["token_embedding"]["embedding"]
    words = jnp.stack([table[6][None], table[7][None]])
    source = sources(IDS, jnp.asarray([[6], [7]], jnp.int32), 1)
    np.testing.assert_array_equal(text_states(IDS, source, words), text_states(IDS))


def test_words_reach_their_own_prompt_only_and_no_earlier_position():
    source = sources(IDS, jnp.asarray([[6], [9]], jnp.int32), 2)
    words = random_array(0, (2, 2, 8))
    changed = words.at[0, 1].multiply(-1.0)
    before, after = text_states(IDS, source, words), text_states(IDS, source, changed)
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_array_equal(before[0, :3], after[0, :3])
    assert (jnp.abs(before[0, 3:] - after[0, 3:]).max(axis=-1) > 1e-4).all()


def test_the_text_tower_is_causal():
    changed = IDS.at[:, 3].set(11)
    before, after = text_states(IDS), text_states(changed)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert (jnp.abs(before[:, 3:] - after[:, 3:]).max(axis=-1) > 1e-4).all()


def test_quick_gelu():
    x = random_array(0, (1, 3, 8))
    params = random_params(MLP(TEXT), x)
    p = jax.tree.map(np.asarray, params)
    h = np.asarray(x) @ p["fc1"]["kernel"] + p["fc1"]["bias"]
    expected = h / (1 + np.exp(-1.702 * h)) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    np.testing.assert_allclose(MLP(TEXT).apply({"params": params}, x), expected, atol=1e-5)


def test_image_tower_states_and_pooling():
    pictures = random_array(0, (2, 8, 8, 3))
    model = CLIPVisionModel(VISION)
    params = random_params(model, pictures)
    out = jax.jit(model.apply)({"params": params}, pictures)
    assert len(out.hidden_states) == 4
    np.testing.assert_array_equal(out.hidden_states[-1], out.last_hidden_state)

    def layer_norm(x, p):
        x = np.asarray(x, np.float64)
        unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return unit * np.asarray(p["scale"]) + np.asarray(p["bias"])

    pooled = layer_norm(out.last_hidden_state[:, 0], params["post_layernorm"])
    np.testing.assert_allclose(out.pooler_output, pooled, atol=1e-5)

    embeddings = params["embeddings"]
    patch = np.einsum(
        "hwc,hwcd->d", np.asarray(pictures)[1, 4:, :4], embeddings["patch_embedding"]["kernel"]
    )
    positions = np.asarray(embeddings["position_embedding"]["embedding"])
    third = layer_norm(patch + positions[3], params["pre_layrnorm"])
    np.testing.assert_allclose(out.hidden_states[0][1, 3], third, atol=1e-5)
    first = layer_norm(embeddings["class_embedding"] + positions[0], params["pre_layrnorm"])
    np.testing.assert_allclose(out.hidden_states[0][0, 0], first, atol=1e-5)


def test_bfloat16_under_strict_promotion():
    words = jax.ShapeDtypeStruct((2, 2, 8), jnp.float32)
    for dtype, param_dtype in (("bfloat16", "float32"), ("float32", "bfloat16")):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        text = CLIPTextModel(dataclasses.replace(TEXT, **dtypes))
        states, _ = jax.eval_shape(text.init_with_output, jax.random.key(0), IDS, IDS, words)
        vision = CLIPVisionModel(dataclasses.replace(VISION, **dtypes))
        pictures = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        out, _ = jax.eval_shape(vision.init_with_output, jax.random.key(0), pictures)
        assert {states.dtype, out.pooler_output.dtype} == {jnp.dtype(dtype)}


def test_what_does_not_fit_is_refused():
    params = {"params": text_params()}
    model = CLIPTextModel(TEXT)
    with pytest.raises(ValueError, match="12 positions but was given 13"):
        model.apply(params, jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(ValueError, match="both"):
        model.apply(params, IDS, IDS)
    with pytest.raises(ValueError, match="1 rows of image words for 2 prompts"):
        model.apply(params, IDS, IDS, jnp.zeros((1, 2, 8)))
    with pytest.raises(ValueError, match="8 x 8 x 3"):
        CLIPVisionModel(VISION).init(jax.random.key(0), jnp.zeros((1, 8, 9, 3)))
    with pytest.raises(ValueError, match="num_attention_heads=5"):
        CLIPTextConfig(hidden_size=8, num_attention_heads=5)
    with pytest.raises(ValueError, match="image_size=9"):
        CLIPVisionConfig(image_size=9, patch_size=4)


def test_contrastive_features_are_unit_vectors_read_at_the_end_token():
    assert end_positions(IDS).tolist() == [4, 3]
    head = ContrastiveHead(6)
    states, pooled = random_array(0, (2, 6, 8)), random_array(1, (2, 12))
    params = random_params(head, states, end_positions(IDS), pooled)
    params["logit_scale"] = jnp.float32(np.log(40.0))
    text, image, scale = head.apply({"params": params}, states, end_positions(IDS), pooled)
    np.testing.assert_allclose(jnp.linalg.norm(text, axis=1), 1, atol=1e-6)
    expected = np.asarray(pooled) @ np.asarray(params["visual_projection"]["kernel"])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_allclose(scale, 40, rtol=1e-6)
    elsewhere = states.at[:, :3].add(1.0)
    np.testing.assert_array_equal(
        text, head.apply({"params": params}, elsewhere, end_positions(IDS), method=head.text)
    )
    params["logit_scale"] = jnp.float32(9.0)
    assert float(head.apply({"params": params}, states, end_positions(IDS), pooled)[2]) == 100

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_checks import random_array, random_params

from videobooth_jax.models.image_projector import ImageProjector, ImageProjectorConfig

CONFIG = ImageProjectorConfig(input_dim=6, hidden_dim=10, output_dim=4, num_words=2)
FEATURES = tuple(random_array(seed, (3, 5, 6)) for seed in (0, 1))


def mapping(p, x):
    """Linear, norm, leaky ReLU, twice, then linear."""
    for linear, norm in (("0", "1"), ("3", "4")):
        x = x @ p[linear]["kernel"] + p[linear]["bias"]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * p[norm]["scale"] + p[norm]["bias"]
        x = np.where(x > 0, x, 0.01 * x)
    return x @ p["6"]["kernel"] + p["6"]["bias"]


def test_word_i_is_class_token_plus_mean_over_patches_of_features_i():
    model = ImageProjector(CONFIG)
    params = random_params(model, FEATURES)
    words = model.apply({"params": params}, FEATURES)
    assert words.shape == (3, 2, 4)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for i, features in enumerate(FEATURES):
        tokens = np.asarray(features, np.float64)
        patches = mapping(p[f"mapping_patch_{i}"], tokens[:, 1:]).mean(1)
        expected = mapping(p[f"mapping_{i}"], tokens[:, 0]) + patches
        np.testing.assert_allclose(words[:, i], expected, atol=1e-5)


def test_number_of_features_must_be_the_number_of_words():
    with pytest.raises(ValueError, match=r"makes 2 words .* got 1"):
        ImageProjector(CONFIG).init(jax.random.key(0), FEATURES[:1])


def test_released_size():
    features = (jax.ShapeDtypeStruct((1, 257, 1024), jnp.float32),) * 5
    model = ImageProjector(ImageProjectorConfig())
    params = jax.eval_shape(model.init, jax.random.key(0), features)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 28_904_960

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_checks import TINY, random_array
from tiny_model import random_params

import videobooth_jax
from videobooth_jax.checkpointing.model_directory import load_config
from videobooth_jax.models.autoencoder_kl import AutoencoderKL
from videobooth_jax.models.clip import CLIPVisionModel
from videobooth_jax.models.image_projector import ImageProjector
from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import (
    DiffusionSettings,
    VideoBooth,
    VideoBoothConfig,
    abstract_params,
    config_from_dict,
    config_to_dict,
    with_dtypes,
)

PARTS = {"unet", "vae", "text_encoder", "vision_encoder", "projector"}


@functools.cache
def params():
    return random_params(TINY)


def apply(*args, **options):
    return VideoBooth(TINY).apply({"params": params()}, *args, **options)


def test_subtrees():
    assert set(params()) == PARTS | {"contrastive_head"}
    assert set(abstract_params(dataclasses.replace(TINY, contrastive_dim=None))) == PARTS


def test_encoded_latents_are_scaled_in_mean_and_deviation():
    images = random_array(0, (2, 8, 8, 3))
    vae = AutoencoderKL(TINY.vae)
    mean, logvar = vae.apply({"params": params()["vae"]}, images, method=vae.encode)
    scaled_mean, scaled_logvar = apply(images, method="encode")
    np.testing.assert_allclose(scaled_mean, 0.25 * mean, atol=1e-6)
    np.testing.assert_allclose(jnp.exp(scaled_logvar / 2), 0.25 * jnp.exp(logvar / 2), rtol=1e-5)


def test_videos_are_coded_frame_by_frame():
    video = random_array(0, (2, 3, 8, 4, 3))
    mean, logvar = apply(video, method="encode")
    assert mean.shape == logvar.shape == (2, 3, 4, 2, 4)
    alone, _ = apply(video[1], method="encode")
    np.testing.assert_allclose(mean[1], alone, atol=1e-5)
    decoded = apply(mean, method="decode")
    assert decoded.shape == video.shape
    unscaled = AutoencoderKL(TINY.vae).apply(
        {"params": params()["vae"]}, mean[0] / 0.25, method="decode"
    )
    np.testing.assert_allclose(decoded[0], unscaled, atol=1e-5)


def test_words_come_from_the_configured_layers_in_order():
    pictures = random_array(0, (2, 8, 8, 3))
    vision = CLIPVisionModel(TINY.vision_encoder)
    out = vision.apply({"params": params()["vision_encoder"]}, pictures)
    features = (out.last_hidden_state, out.hidden_states[0], out.hidden_states[2])
    words = ImageProjector(TINY.projector).apply({"params": params()["projector"]}, features)
    np.testing.assert_allclose(apply(pictures, method="image_words"), words, atol=1e-5)
    kept = apply(pictures, method="vision_features")
    assert kept.shape == (len(pictures), 3, *out.last_hidden_state.shape[1:])
    np.testing.assert_allclose(apply(kept, method="feature_words"), words, atol=1e-5)


def test_denoise_with_an_exemplar():
    latents, exemplar = random_array(0, (2, 2, 4, 4, 4)), random_array(1, (2, 1, 4, 4, 4))
    states = random_array(2, (2, 3, 8))
    timesteps = jnp.asarray([3, 700], jnp.int32)
    kv = apply(exemplar, timesteps, states, method="exemplar_keys_values")
    with_exemplar = apply(latents, timesteps, states, exemplar=kv, method="denoise")
    without = apply(latents, timesteps, states, method="denoise")
    assert with_exemplar.shape == latents.shape
    assert float(jnp.abs(with_exemplar - without).max()) > 1e-3


def test_contrastive_features():
    ids = jnp.asarray([[1, 5, 31], [1, 31, 31]], jnp.int32)
    text, image, scale = apply(ids, random_array(0, (2, 8, 8, 3)), method="contrastive")
    assert text.shape == image.shape == (2, 6)
    assert scale.shape == ()
    model = VideoBooth(dataclasses.replace(TINY, contrastive_dim=None))
    with pytest.raises(ValueError, match="no contrastive head"):
        model.apply({"params": params()}, ids, random_array(0, (2, 8, 8, 3)), method="contrastive")


def test_dtypes_of_all_networks():
    config = with_dtypes(TINY, param_dtype="bfloat16")
    leaves = jax.tree.leaves(abstract_params(config))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}
    assert with_dtypes(config, "float32", "float32") == TINY
    low = VideoBooth(with_dtypes(TINY, dtype="bfloat16"))
    mean, _ = jax.eval_shape(
        lambda p, x: low.apply({"params": p}, x, method="encode"),
        params(),
        jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32),
    )
    assert mean.dtype == jnp.bfloat16


def test_latent_shape():
    assert TINY.latent_shape() == (2, 4, 4, 4)
    assert TINY.latent_shape(num_frames=5, width=12) == (5, 4, 6, 4)


def test_configuration_survives_json():
    text = json.dumps(config_to_dict(TINY))
    assert config_from_dict(json.loads(text)) == TINY


def changed(path, value):
    values = json.loads(json.dumps(config_to_dict(TINY)))
    *sections, key = path.split(".")
    section = functools.reduce(dict.__getitem__, sections, values)
    if value is None:
        del section[key]
    else:
        section[key] = value
    return values


def test_a_configuration_stored_before_a_field_existed_takes_its_default():
    values = config_to_dict(TINY)
    del values["unet"]["remat"]
    assert config_from_dict(values) == TINY


def test_the_shipped_model_configuration_loads():
    shipped = load_config(Path(videobooth_jax.__file__).parent / "assets" / "models" / "sprites")
    assert shipped.unet.remat == "none"
    assert shipped.unet.block_out_channels == SIZES["sprites"].unet.block_out_channels


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("unet.depth", 3, "unet .* unknown: depth"),
        ("vae.latent_channels", None, "vae .* missing: latent_channels"),
        ("nmae", "x", "the configuration .* unknown: nmae"),
        ("text_encoder", 3, "text_encoder must be a table"),
        ("width", "256", "width must be of type int, not '256'"),
        ("width", True, "width must be of type int, not True"),
        ("unet.block_out_channels", 8, r"unet\.block_out_channels must be a list"),
        ("vision_layers", [0, 1.5, 2], r"vision_layers\[1\] must be of type int"),
        ("diffusion.exemplar_mode", "twice", "exemplar_mode is 'twice'; .*'replicated', 'single'"),
        ("vision_layers", [0, 1, 9], r"vision_layers \[9\] do not exist"),
        ("vision_layers", [0, 1], "num_words is 3 but the number of vision_layers is 2"),
        ("unet.cross_attention_dim", 16, "hidden_size is 8 but unet.cross_attention_dim is 16"),
        ("height", 9, "9 x 8"),
    ],
)
def test_wrong_configurations_are_refused_by_name(path, value, message):
    with pytest.raises(ValueError, match=message):
        config_from_dict(changed(path, value))


def test_diffusion_options_are_checked_when_made():
    with pytest.raises(ValueError, match="'epsilon', 'x0', 'v'"):
        DiffusionSettings(prediction_type="noise")
    with pytest.raises(ValueError, match="zero_terminal_snr"):
        DiffusionSettings(zero_terminal_snr=True)
    assert isinstance(TINY, VideoBoothConfig)

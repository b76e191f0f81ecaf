"""The figures in docs/quirks.md: what each choice changes, on a model with random weights.

Each is the root mean square of the change over that of the published choice.
"""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_model import TOKENIZER_FILE, picture, random_params, tiny_config

from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.diffusion.gaussian import noise_exemplar
from videobooth_jax.diffusion.guidance import guide
from videobooth_jax.models.clip import word_sources
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.pipeline.requests import read_texts, schedule_of
from videobooth_jax.training import losses
from videobooth_jax.training.config import ObjectiveConfig
from videobooth_jax.training.train_step import training_schedule

CONFIG = tiny_config(placeholder="sdksd")
PROMPT = "a panda moving left over a meadow"
TABLE = (Path(__file__).parents[1] / "docs" / "quirks.md").read_text(encoding="utf-8")


@functools.cache
def apply():
    return losses.bound(VideoBooth(CONFIG), random_params(CONFIG))


def change(published, other):
    published, other = np.asarray(published), np.asarray(other)
    return np.sqrt(np.mean((other - published) ** 2) / np.mean(published**2))


def latents(seed=0, frames=3):
    return jax.random.normal(jax.random.key(seed), (1, frames, 8, 8, 4))


@functools.cache
def states(text="a panda"):
    ids = Tokenizer.from_file(TOKENIZER_FILE).encode([text])
    return apply()(ids, method="text_states")


TIMES = jnp.array([600], jnp.int32)


def predict(exemplar=None, text=PROMPT):
    return apply()(latents(), TIMES, states(text), exemplar=exemplar, method="denoise")


def shown(copies, shared=False, timesteps=TIMES, seed=1):
    """Keys and values of a noised exemplar."""
    key = jax.random.split(jax.random.key(seed), 1)
    clean = latents(2, 1)[:, 0]
    noised = noise_exemplar(schedule_of(CONFIG), clean, timesteps, key, copies, shared)
    return apply()(noised, timesteps, states("None"), method="exemplar_keys_values")


def clean_exemplar():
    zero = jnp.zeros_like(TIMES)
    return apply()(latents(2, 1), zero, states("None"), method="exemplar_keys_values")


def guided_channels():
    told, untold = predict(), predict(text="None")
    return change(guide(told, untold, jnp.float32(4), 3), guide(told, untold, jnp.float32(4), None))


def one_copy():
    return change(predict(shown(3)), predict(shown(1)))


def one_copy_of_shared_noise():
    return change(predict(shown(3, shared=True)), predict(shown(1, shared=True)))


def unconditional_pass_with_exemplar():
    return change(predict(text="None"), predict(shown(3), text="None"))


def placeholder():
    tokenizer = Tokenizer.from_file(TOKENIZER_FILE)
    words = apply()(clip_image(), method="image_words")

    def told(config):
        texts = read_texts(config, tokenizer, (PROMPT,), ("panda",))
        source = word_sources(texts.ids, texts.placeholder, words.shape[1])
        return apply()(texts.ids, source, words, method="text_states")

    own = dataclasses.replace(CONFIG.diffusion, placeholder=None)
    return change(told(CONFIG), told(dataclasses.replace(CONFIG, diffusion=own)))


def pixels():
    image = Image.fromarray(picture()).convert("RGB").resize((16, 16))
    return np.asarray(image, np.float32)


def clip_image():
    return pixels()[None] / 255


def loss(dropped="zeros", respacing="250", drop=False):
    tokenizer = Tokenizer.from_file(TOKENIZER_FILE)
    texts = read_texts(CONFIG, tokenizer, (PROMPT,), ("panda",))
    batch = {
        "latents": latents(3),
        "exemplar_latents": latents(2, 1),
        "zero_exemplar": encoded(np.zeros((1, 1, 16, 16, 3), np.float32))[0],
        "clip_image": clip_image(),
        "ids": texts.ids,
        "placeholder": texts.placeholder,
        "null_ids": tokenizer.encode(["None"]),
    }
    draws = losses.Draws(jnp.array([150]), latents(4), latents(5, 1), jnp.array([drop]))
    objective = ObjectiveConfig(dropped_exemplar=dropped, embedding_l1_weight=0.0)
    schedule = training_schedule(CONFIG.diffusion, respacing)
    if not respacing:  # the same share of the way through 1000 steps
        draws = dataclasses.replace(draws, indices=draws.indices * 4)
    model = VideoBooth(CONFIG)
    return losses.diffusion_loss(model, objective, schedule, random_params(CONFIG), batch, draws)[0]


def encoded(images):
    return apply()(images, method="encode")


def sampled_posterior():
    mean, logvar = encoded(pixels()[None, None] / 127.5 - 1)
    noise = jax.random.normal(jax.random.key(6), mean.shape)
    return change(mean + jnp.exp(0.5 * logvar) * noise, mean)


MEASURES = {
    "guided channels": guided_channels,
    "one copy, own noise": one_copy,
    "one copy, shared noise": one_copy_of_shared_noise,
    "unconditional pass": unconditional_pass_with_exemplar,
    "placeholder": placeholder,
    "respacing": lambda: change(loss(), loss(respacing="")),
    "dropped exemplar": lambda: change(loss(drop=True), loss("none", drop=True)),
    "posterior": sampled_posterior,
    "exemplar timestep": lambda: change(predict(shown(1)), predict(clean_exemplar())),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_the_documented_difference_is_what_is_measured(name):
    figure = re.search(rf"{re.escape(name)}: (\S+) %", TABLE)
    assert figure, f"docs/quirks.md has no figure for {name!r}"
    np.testing.assert_allclose(100 * MEASURES[name](), float(figure[1]), rtol=0.05, atol=5e-3)


if __name__ == "__main__":
    for name, measure in MEASURES.items():
        print(f"{name}: {100 * measure():.3g} %")

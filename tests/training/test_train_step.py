"""The step: batches in parts give the gradients of the whole, bad steps change nothing, only what
is trained is kept thrice, and buffers are used again.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from test_config import load
from tiny_model import random_params
from tiny_run import run_config, run_model

from videobooth_jax.data.image_prompt import clip_input, vae_input
from videobooth_jax.models.videobooth import with_dtypes
from videobooth_jax.sharding import MeshSizes, make_mesh
from videobooth_jax.training import train_step
from videobooth_jax.training.config import from_config_dict
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.losses import pixels_as_floats
from videobooth_jax.training.optimizer import make_optimizer
from videobooth_jax.training.phases import split
from videobooth_jax.training.state import create_state
from videobooth_jax.training.train_step import check_accumulation, make_loss, make_train_step

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = 4


def gradients(config, counts, dtype="float64"):
    """Loss, metrics and gradient by path, with the batch in so many parts, for each count."""
    params = jax.tree.map(lambda x: x.astype(dtype), random_params(config.model))
    trained, frozen = split(params, config.trainable)
    state = dataclasses.replace(stand_in.fresh_state(), trained=trained, frozen=frozen)
    batch = pixels_as_floats(next(open_training_data(config.data, config.model)))
    batch = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in batch.items()}
    loss = make_loss(config)

    @partial(jax.jit, static_argnums=2)
    def evaluate(state, batch, count):
        draws = loss.draw(batch, state.key)
        value, metrics, gradient = train_step._gradients(loss, state, batch, draws, count)
        return {"loss": value} | metrics, flatten_dict(gradient, sep="/")

    return [evaluate(state, batch, count) for count in counts]


@pytest.mark.parametrize(
    ("task", "trainable"),
    [
        pytest.param("diffusion", ("projector", "text_kv", "frame_kv"), marks=pytest.mark.slow),
        ("autoencoder", ("vae",)),
    ],
)
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(task, trainable):
    """On the draws of the whole: noise, timesteps, dropped rows and the posterior's samples."""
    model = with_dtypes(run_model(exemplar_timestep="same"), "float64", "float64")
    overrides = {
        "data.batch_size": ROWS,
        "objective.drop_probability": 0.5,
        "objective.dropped_exemplar": "zeros",
        "objective.embedding_l1_weight": 0.5,
    }
    with jax.enable_x64(True):
        config = run_config("", model, task=task, trainable=trainable, **overrides)
        (metrics, whole), (metrics_of_parts, parts) = gradients(config, (1, 2))
        for path, value in whole.items():
            np.testing.assert_allclose(parts[path], value, rtol=1e-9, atol=1e-12, err_msg=path)
        for name in set(metrics) - {"psnr"}:  # a mean of logarithms
            np.testing.assert_allclose(metrics_of_parts[name], metrics[name], rtol=1e-9)


def test_pictures_are_made_floats_as_for_sampling_and_floats_are_left_alone():
    levels = np.arange(256 * 3, dtype=np.uint16).reshape(1, 16, 16, 3).astype(np.uint8)
    batch = {"video": levels[None], "vae_image": levels, "clip_image": levels, "ids": levels[0]}
    made = pixels_as_floats(batch)
    np.testing.assert_allclose(made["video"][0], vae_input(levels), atol=2e-7)
    np.testing.assert_allclose(made["vae_image"], vae_input(levels), atol=2e-7)
    np.testing.assert_allclose(made["clip_image"], clip_input(levels), atol=1e-6)
    kinds = {made[name].dtype.name for name in ("video", "vae_image", "clip_image")}
    assert kinds == {"float32"}
    assert made["ids"] is batch["ids"]
    assert all(pixels_as_floats(made)[name] is made[name] for name in made)


def test_parts_of_a_batch_that_is_spread_stay_where_they_are():
    rows = NamedSharding(make_mesh(MeshSizes(data=2)), PartitionSpec("data"))
    whole = jax.device_put(np.arange(8.0), rows)
    parts = jax.jit(lambda x: train_step._split_rows(x, 8, 2)[0][0])(whole)
    np.testing.assert_array_equal(parts, [[0, 2, 4, 6], [1, 3, 5, 7]])
    assert parts.sharding.spec == PartitionSpec(None, "data")


def test_batches_that_cannot_be_split_are_refused():
    config = run_config("", accumulate_steps=3, **{"data.batch_size": 8})
    with pytest.raises(ValueError, match="cannot be split evenly into 3 parts over 1 devices"):
        check_accumulation(config, 1)
    config = dataclasses.replace(config, accumulate_steps=2, task="clip")
    with pytest.raises(ValueError, match="the clip task compares all rows"):
        check_accumulation(config, 2)
    with pytest.raises(ValueError, match="accumulate_steps=0"):
        check_accumulation(dataclasses.replace(config, accumulate_steps=0), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_no_number_changes_nothing_but_the_count(value):
    step = jax.jit(make_train_step(stand_in.LOSS, stand_in.OPTIMIZER, 0.9))
    batch = next(stand_in.Numbers())
    before, _ = step(stand_in.fresh_state(), batch)
    batch["x"][1, 2] = value
    after, metrics = step(before, batch)
    assert (int(before.step), int(after.step), float(metrics["nonfinite"])) == (1, 2, 1.0)
    for name in ("trained", "opt_state", "ema", "frozen"):
        old, new = (jax.tree.leaves(getattr(state, name)) for state in (before, after))
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    good = next(stand_in.Numbers())
    moved, metrics = step(after, good)
    assert float(metrics["nonfinite"]) == 0.0
    assert not np.array_equal(moved.trained["a"], after.trained["a"])


def test_frozen_weights_have_no_gradient_moment_or_average_and_may_be_halves():
    config = run_config("", frozen_dtype="bfloat16")
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = jax.eval_shape(
        lambda params: create_state(
            params, config.trainable, optimizer, jax.random.key(0), config.frozen_dtype
        ),
        random_params(config.model),
    )
    trained, frozen = (flatten_dict(tree, sep="/") for tree in (state.trained, state.frozen))
    assert {leaf.dtype.name for leaf in frozen.values()} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in trained.values()} == {"float32"}
    assert flatten_dict(state.ema, sep="/") == trained
    moments = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sorted(moments) == sorted(2 * [leaf.shape for leaf in trained.values()])
    assert not trained.keys() & frozen.keys()
    loss = make_loss(config)
    batch = next(open_training_data(config.data, config.model))
    gradients = jax.eval_shape(
        lambda state: train_step._gradients(loss, state, batch, loss.draw(batch, state.key), 1)[2],
        state,
    )
    assert flatten_dict(gradients, sep="/") == trained


def test_the_old_state_is_given_up_for_the_new():
    step = jax.jit(make_train_step(stand_in.LOSS, stand_in.OPTIMIZER, 0.9), donate_argnums=0)
    state = jax.tree.map(jnp.copy, stand_in.fresh_state())
    step(state, next(stand_in.Numbers()))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.trained, state.opt_state)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.ema, state.frozen)))


@pytest.mark.parametrize("name", ["videobooth_coarse", "videobooth_fine"])
def test_full_size_computes_in_bfloat16_on_float32_masters(name):
    config = from_config_dict(load(CONFIGS / f"{name}.py"))
    networks = ("unet", "text_encoder", "vision_encoder", "projector")
    assert {getattr(config.model, network).dtype for network in networks} == {"bfloat16"}
    assert {getattr(config.model, network).param_dtype for network in networks} == {"float32"}
    assert config.model.vae.dtype == "float32"
    assert config.frozen_dtype == "bfloat16"
    assert config.model.num_frames == config.data.num_frames == 16


@pytest.mark.slow
def test_a_loss_in_bfloat16_is_that_of_float32_within_its_digits():
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = run_model()
        networks = {
            n: dataclasses.replace(getattr(model, n), dtype=dtype)
            for n in ("unet", "text_encoder", "vision_encoder", "projector")
        }
        config = run_config("", dataclasses.replace(model, **networks))
        batch = next(open_training_data(config.data, config.model))
        loss = make_loss(config)
        params = random_params(config.model)
        evaluate = jax.jit(lambda p, b, k, loss=loss: loss.evaluate(p, b, loss.draw(b, k))[0])
        losses[dtype] = evaluate(params, batch, jax.random.key(0))
    assert losses["bfloat16"].dtype == jnp.float32
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=2e-2)

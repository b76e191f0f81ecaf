"""Where states and batches live."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from tiny_run import run_config, run_model

from videobooth_jax.models.videobooth import abstract_params
from videobooth_jax.sharding import (
    MeshSizes,
    check_batch,
    check_frames,
    make_mesh,
    place_batch,
    process_rows,
    state_shardings,
)
from videobooth_jax.training.state import create_state


def test_rows_and_frames_are_split_and_the_rest_is_whole():
    mesh = make_mesh(MeshSizes(data=2, fsdp=2, frames=2))
    batch = {
        "latents": np.zeros((4, 2, 3)),
        "ids": np.zeros((4, 7)),
        "null_ids": np.zeros((1, 7)),
    }
    placed = place_batch(mesh, batch, 4)
    assert placed["latents"].sharding.spec == P(("data", "fsdp"), "frames")
    assert placed["ids"].sharding.spec == P(("data", "fsdp"))
    assert placed["null_ids"].sharding.is_fully_replicated
    assert {shard.data.shape for shard in placed["latents"].addressable_shards} == {(1, 1, 3)}


def test_one_process_supplies_all_rows():
    assert process_rows(make_mesh(MeshSizes(data=2, fsdp=2, tensor=2)), 8) == range(8)


@pytest.mark.parametrize(
    ("batch_size", "frames", "message"),
    [(6, 2, "a batch of 6 cannot be split evenly over 4"), (4, 3, "3 frames cannot be split")],
)
def test_batches_that_cannot_be_split_are_refused(batch_size, frames, message):
    mesh = make_mesh(MeshSizes(data=2, fsdp=2, frames=2))
    with pytest.raises(ValueError, match=message):
        check_batch(mesh, batch_size, frames)


def test_frames_are_split_only_of_one_clip_at_a_time():
    mesh = make_mesh(MeshSizes(data=2, frames=2))
    check_frames(mesh, 2)
    check_frames(make_mesh(MeshSizes(data=2)), 8)
    with pytest.raises(ValueError, match="4 clips at once"):
        check_frames(mesh, 4)


def test_moments_and_averages_lie_where_their_parameter_does():
    mesh = make_mesh(MeshSizes(data=1, fsdp=2, tensor=2))
    config = run_config("", model=run_model())
    state = jax.eval_shape(
        lambda params, key: create_state(params, config.trainable, optax.adamw(1e-3), key),
        abstract_params(config.model),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    shardings = state_shardings(mesh, state)
    kernel = "unet/down_blocks_0/attentions_0/transformer_blocks_0/attn1/to_k_new/kernel"

    def at(tree):
        for part in kernel.split("/"):
            tree = tree[part]
        return tree.spec

    moments = shardings.opt_state[0]
    for tree in (shardings.trained, shardings.ema, moments.mu, moments.nu):
        assert at(tree) == P("fsdp", "tensor")
    assert shardings.step.spec == shardings.key.spec == moments.count.spec == P()


def test_a_batch_of_one_row_keeps_shared_arrays_apart():
    mesh = make_mesh(MeshSizes(data=1))
    placed = place_batch(mesh, {"ids": jnp.zeros((1, 3)), "null_ids": jnp.zeros((1, 3))}, 1)
    assert placed["ids"].shape == placed["null_ids"].shape == (1, 3)

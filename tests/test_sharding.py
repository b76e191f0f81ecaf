"""A batch split over devices trains as on one."""

import json

import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_run import run_config, write_start

from videobooth_jax import sharding
from videobooth_jax.training import loop


def test_a_mesh_of_all_or_some_devices():
    assert sharding.make_mesh(-1).shape == {"data": 8}
    assert sharding.make_mesh(2).shape == {"data": 2}
    with pytest.raises(ValueError, match="there are 8 devices"):
        sharding.make_mesh(9)


def test_rows_are_split_and_the_rest_is_whole():
    mesh = sharding.make_mesh(4)
    batch = {"latents": np.zeros((4, 3)), "null_ids": np.zeros((1, 7))}
    placed = sharding.place_batch(mesh, batch, 4)
    assert placed["latents"].sharding.spec == PartitionSpec("data")
    assert placed["null_ids"].sharding.is_fully_replicated
    assert {shard.data.shape for shard in placed["latents"].addressable_shards} == {(1, 3)}


def test_a_batch_that_cannot_be_split_is_refused(tmp_path):
    config = run_config(write_start(tmp_path / "start"), **{"mesh.data": 4})
    with pytest.raises(ValueError, match="a batch of 2 cannot be split evenly over 4 devices"):
        loop.train(config, tmp_path / "run")


@pytest.mark.slow
def test_two_devices_make_the_losses_of_one(tmp_path):
    start = write_start(tmp_path / "start")
    losses = {}
    for devices in (1, 2):
        config = run_config(start, **{"mesh.data": devices, "objective.respacing": ""})
        loop.train(config, tmp_path / f"run{devices}")
        lines = (tmp_path / f"run{devices}" / "metrics.jsonl").read_text().splitlines()
        losses[devices] = [json.loads(line) for line in lines]
    for one, two in zip(losses[1], losses[2], strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)

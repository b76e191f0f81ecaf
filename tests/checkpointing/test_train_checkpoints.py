"""Train checkpoints: bit-exact, in the background, and robust to damage."""

import dataclasses
import errno
import logging
import resource
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoint_checks import assert_same, flip_a_bit, largest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videobooth_jax.checkpointing import CheckpointError, SaveError, TrainCheckpoints, manifest


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    key: jax.Array


def make_state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)},
        "b": jnp.asarray(rng.standard_normal(5), jnp.bfloat16),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-4))
    key = jax.random.key(seed, impl="rbg")
    return State(jnp.asarray(seed, jnp.int32), params, optimizer.init(params), key)


class TestTrainCheckpoints:
    @pytest.mark.parametrize("position", [b"\x00\xffraw", "text", {"index": 12, "epoch": [1]}])
    def test_round_trip_is_bit_exact(self, tmp_path, position):
        state = make_state(3)
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(7, state, position)
            restored, found = checkpoints.restore(make_state(0))
        assert found == position
        assert_same(restored, state)
        assert jnp.array_equal(jax.random.bits(restored.key), jax.random.bits(state.key))

    def test_abstract_state_will_do(self, tmp_path):
        state = make_state(3)
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(7, state, "")
            assert_same(checkpoints.restore(jax.eval_shape(make_state))[0], state)

    def test_donating_after_save_is_safe(self, tmp_path):
        negate = jax.jit(lambda x: jax.tree.map(jnp.negative, x), donate_argnums=0)
        state = {str(i): jnp.full((500, 500), float(i)) for i in range(8)}
        expected = jax.tree.map(lambda x: np.array(x), state)
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state, "")
            state = negate(negate(negate(state)))
            jax.block_until_ready(state)
            restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
        assert_same(jax.tree.map(np.asarray, restored), expected)

    def test_sharded_state_returns_where_it_was(self, tmp_path):
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        split = NamedSharding(mesh, PartitionSpec("data"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        state = {
            "w": jax.device_put(jnp.arange(16.0), split),
            "key": jax.device_put(jax.random.key(1), everywhere),
            "anywhere": jnp.ones(3),
        }
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state, "")
            restored, _ = checkpoints.restore(state)
        assert_same(restored, state)
        assert restored["w"].sharding == split
        assert restored["key"].sharding == everywhere
        assert not restored["anywhere"].committed

    def test_keeps_the_newest(self, tmp_path):
        with TrainCheckpoints(tmp_path, keep=2) as checkpoints:
            assert checkpoints.latest_step() is None
            for step in (5, 10, 15, 20):
                checkpoints.save(step, make_state(step), str(step))
            checkpoints.wait()
            assert checkpoints.steps() == (15, 20)
            assert checkpoints.latest_step() == 20
            state, position = checkpoints.restore(make_state(), step=15)
        assert position == "15"
        assert int(state.step) == 15

    def save_two(self, folder):
        with TrainCheckpoints(folder) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, make_state(step), str(step))
        return folder / "00000002"

    @pytest.mark.parametrize("damage", ["truncate", "flip", "lose"])
    def test_damaged_newest_is_named_and_skipped(self, tmp_path, caplog, damage):
        file = largest(self.save_two(tmp_path) / "state")
        {
            "truncate": lambda: file.write_bytes(file.read_bytes()[:-3]),
            "flip": lambda: flip_a_bit(file),
            "lose": file.unlink,
        }[damage]()
        with TrainCheckpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
            state, position = checkpoints.restore(make_state())
            assert position == "1"
            assert_same(state, make_state(1))
            assert "checkpoint 2 is damaged" in caplog.text
            assert file.name in caplog.text
            with pytest.raises(CheckpointError, match="00000002"):
                checkpoints.restore(make_state(), step=2)
            checkpoints.save(2, make_state(9), "again")
            assert_same(checkpoints.restore(make_state())[0], make_state(9))

    def test_unfinished_newest_is_named_and_skipped(self, tmp_path, caplog):
        newest = self.save_two(tmp_path)
        (newest / "manifest.json").unlink()
        newest.rename(newest.with_name("00000003"))
        with TrainCheckpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
            assert checkpoints.latest_step() == 1
            assert checkpoints.restore(make_state())[1] == "1"
            assert "00000003 was interrupted" in caplog.text
            checkpoints.save(4, make_state(), "")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001", "00000004"]

    def test_nothing_usable(self, tmp_path):
        with (
            TrainCheckpoints(tmp_path) as checkpoints,
            pytest.raises(CheckpointError, match="no usable checkpoint"),
        ):
            checkpoints.restore(make_state())

    def test_state_of_another_run(self, tmp_path):
        self.save_two(tmp_path)
        other = dataclasses.replace(make_state(), params={"a": {"kernel": jnp.zeros((4, 4))}})
        with TrainCheckpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError) as error:
            checkpoints.restore(other)
        assert "params/b" in str(error.value)
        assert "params/a/kernel is (4, 3), expected (4, 4)" in str(error.value)

    def test_unwritable_place(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"checkpoints cannot be written to .*file"):
            TrainCheckpoints(tmp_path / "file")
        with pytest.raises(ValueError, match="keep=0"):
            TrainCheckpoints(tmp_path / "c", keep=0)

    @pytest.mark.parametrize(("mode", "best"), [("min", 10), ("max", 20)])
    def test_the_best_outlives_the_newest(self, tmp_path, mode, best):
        scores = {5: 2.0, 10: 1.0, 15: None, 20: 3.0, 25: 1.0, 30: 2.5, 35: None}
        with TrainCheckpoints(tmp_path, keep=2, keep_best=1, best_mode=mode) as checkpoints:
            for step, score in scores.items():
                checkpoints.save(step, make_state(step), str(step), score)
            checkpoints.wait()
            assert checkpoints.steps() == (best, 30, 35)
            assert checkpoints.best_step() == best
            assert_same(checkpoints.restore(make_state(), step=best)[0], make_state(best))

    def test_a_best_that_is_damaged_has_no_score(self, tmp_path):
        with TrainCheckpoints(tmp_path, keep=2, keep_best=1) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, make_state(step), "", float(step))
            checkpoints.wait()
            (tmp_path / "00000001" / "manifest.json").write_text("{")
            assert checkpoints.best_step() == 2

    def test_a_full_disk_is_told_and_leaves_the_last_good_one(self, tmp_path):
        noise = np.random.default_rng(0).standard_normal((200, 200))
        state = {"w": jnp.asarray(noise, jnp.float32)}
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state, "good")
            checkpoints.wait()
            try:  # Python ignores the signal; writing beyond 64 KiB gives EFBIG
                resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
                checkpoints.save(2, state, "too large")
                with pytest.raises(SaveError, match=r"step 2 .* File too large; the one of step 1"):
                    checkpoints.wait()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert [p.name for p in tmp_path.iterdir()] == ["00000001"]
            restored, position = checkpoints.restore(state)
            assert position == "good"
            assert_same(restored, state)
            checkpoints.save(3, state, "room again")
            checkpoints.wait()
            assert checkpoints.steps() == (1, 3)

    def test_a_failed_save_is_heard_without_waiting_for_the_next(self, tmp_path, monkeypatch):
        def no_space(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(manifest, "seal", no_space)
        with TrainCheckpoints(tmp_path) as checkpoints:
            checkpoints.poll()
            checkpoints.save(1, make_state(), "")
            while not checkpoints._pending.done():
                time.sleep(0.01)
            with pytest.raises(SaveError, match=r"No space left on device; there is none before"):
                checkpoints.poll()
        assert list(tmp_path.iterdir()) == []

    def test_failed_background_save_is_not_silent(self, tmp_path, monkeypatch):
        checkpoints = TrainCheckpoints(tmp_path)

        def no_space(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(manifest, "seal", no_space)
        checkpoints.save(1, make_state(), "")
        with pytest.raises(OSError, match="No space"):
            checkpoints.close()

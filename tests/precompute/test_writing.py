"""Latents written once are what the networks give, in shards that appear whole; training takes
them where they fit."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_clips import damage, record, write_dataset
from tiny_model import TOKENIZER_FILE, random_like
from tiny_run import run_config, run_model, write_start

from videobooth_jax.checkpointing import load_model, save_model
from videobooth_jax.data.image_prompt import clip_input
from videobooth_jax.data.latents import MANIFEST, LatentsSource, shard_name
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.precompute.fingerprints import fingerprint, fingerprints
from videobooth_jax.precompute.writing import PrecomputeConfig, precompute
from videobooth_jax.training.data import open_training_data
from videobooth_jax.training.losses import encode_pixels, pixels_as_floats
from videobooth_jax.training.train_step import make_loss

SMALL = {"num_frames": 2, "window": 9, "shard_size": 4, "batch_size": 2, "vision_features": True}
PARITY = {"exemplar_timestep": "same", "exemplar_mode": "replicated"}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model", **PARITY)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("clips") / "made", [record(i) for i in range(5)])


@pytest.fixture(scope="module")
def asked(dataset):
    return PrecomputeConfig("clips", str(dataset), augment="fine", variants=2, **SMALL)


@pytest.fixture(scope="module")
def written(start, asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("precompute") / "latents"
    assert precompute(start, out, asked) == 0
    return out


def rows(folder, features=True):
    source = LatentsSource(folder, 2, features)
    return [source[i] for i in range(len(source))]


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def config_of(start, folder, **overrides):
    values = {"data.source": "latents", "data.path": str(folder)}
    return run_config(start, run_model(**PARITY), **values | overrides)


def opened(config):
    return open_training_data(config.data, config.model, None, config.init_from)


def pixel_batch(start, asked, count):
    """The first rows as pixels, from the same draws: a run's stream without shuffling."""
    config = run_config(
        start,
        run_model(**PARITY),
        **{
            "data.source": "clips",
            "data.path": asked.path,
            "data.augment": asked.augment,
            "data.window": asked.window,
            "data.batch_size": count,
        },
    )
    return config, opened(config)


def test_the_folder_holds_what_was_asked(written, asked):
    manifest = json.loads((written / MANIFEST).read_text())
    assert (manifest["count"], manifest["shards"]) == (10, 3)
    source = LatentsSource(written, 2, True)
    assert len(source) == 10
    shapes = {name: values.shape for name, values in source[9].items()}
    assert shapes == {
        "latents": (2, 8, 8, 4),
        "latents_deviation": (2, 8, 8, 4),
        "exemplar_latents": (1, 8, 8, 4),
        "exemplar_latents_deviation": (1, 8, 8, 4),
        "ids": (32,),
        "placeholder": (12,),
        "vision_features": (2, 5, 8),
    }
    assert LatentsSource(written, 1)[0]["latents"].shape == (1, 8, 8, 4)
    assert LatentsSource(written, 1)[0]["clip_image"].shape == (16, 16, 3)
    assert not list(written.glob(".*"))


def test_variants_are_draws_of_their_own(written):
    made = rows(written)
    assert np.array_equal(made[1]["ids"], made[6]["ids"])
    assert not np.array_equal(made[1]["exemplar_latents"], made[6]["exemplar_latents"])


def test_rows_are_what_the_networks_give(written, start, asked):
    config, params = load_model(start)
    apply = VideoBooth(config).apply
    stored = rows(written, features=False)[3]
    feature = rows(written)[3]["vision_features"]
    shown = jnp.asarray(clip_input(stored["clip_image"][None]))
    expected = apply({"params": params}, shown, method="vision_features")[0]
    np.testing.assert_allclose(feature, expected, rtol=2e-3, atol=2e-3)  # both were rounded
    zeros = np.zeros((1, 16, 16, 3), np.float32)
    mean, logvar = apply({"params": params}, zeros, method="encode")
    kept = LatentsSource(written, 2).zeros()
    bound = {"rtol": 2**-10, "atol": 1e-6}  # float16 keeps 11 bits
    np.testing.assert_allclose(kept["zero_exemplar"][0], mean, **bound)
    deviation = np.exp(0.5 * logvar)
    np.testing.assert_allclose(kept["zero_exemplar_deviation"][0], deviation, **bound)


def as_stored(model, params, batch):
    """A batch of pixels as `precompute` would store it, in float32."""
    apply, batch = VideoBooth(model).apply, pixels_as_floats(batch)
    out = {n: batch[n] for n in ("ids", "placeholder", "null_ids")}
    pictures = {
        "latents": batch["video"],
        "exemplar_latents": batch["vae_image"][:, None],
        "zero_exemplar": jnp.zeros((1, 1, *batch["vae_image"].shape[1:])),
    }
    for name, pixels in pictures.items():
        mean, logvar = apply({"params": params}, pixels, method="encode")
        out |= {name: mean, f"{name}_deviation": jnp.exp(0.5 * logvar)}
    features = apply({"params": params}, batch["clip_image"], method="vision_features")
    return out | {"vision_features": features}


@pytest.mark.slow
@pytest.mark.parametrize("sample_posterior", [True, False])
def test_the_loss_of_stored_features_is_that_of_pixels(start, asked, sample_posterior):
    config, data = pixel_batch(start, asked, 4)
    objective = dataclasses.replace(
        config.objective,
        sample_posterior=sample_posterior,
        dropped_exemplar="zeros",
        drop_probability=0.5,
    )
    config = dataclasses.replace(config, objective=objective)
    loss, params = make_loss(config), load_model(start)[1]
    pixels = jax.tree.map(jnp.asarray, next(data))
    stored = as_stored(config.model, params, pixels)
    rounded = {
        n: x.astype(jnp.float16).astype(jnp.float32) if x.dtype == jnp.float32 else x
        for n, x in stored.items()
    }

    @jax.jit
    def evaluate(batch):
        return loss.evaluate(params, batch, loss.draw(batch, jax.random.key(1)))[0]

    exact, from_stored, from_rounded = map(evaluate, (pixels, stored, rounded))
    np.testing.assert_allclose(from_stored, exact, rtol=1e-5)
    # float16 keeps 11 bits: each value is off by at most 2^-11 of itself, and the loss, a mean of
    # squares of differences of such values, by a few times that
    np.testing.assert_allclose(from_rounded, exact, rtol=4 * 2**-11)
    assert from_rounded != exact


def test_sampling_takes_the_deviation_beside_the_latents(written, start):
    config = config_of(start, written)
    batch = next(opened(config))
    noise = {n: np.ones((1, 1, 1, 1, 1), np.float32) for n in ("latents", "zero_exemplar")}
    drawn = encode_pixels(VideoBooth(config.model), {}, batch, noise)
    assert np.array_equal(drawn["latents"], batch["latents"] + batch["latents_deviation"])
    assert np.array_equal(drawn["exemplar_latents"], batch["exemplar_latents"])


def test_a_stopped_run_goes_on_and_parts_make_the_same_folder(written, start, asked, tmp_path):
    out = tmp_path / "latents"
    assert precompute(start, out, asked, (2, 2)) == 2
    with pytest.raises(FileNotFoundError, match="all parts of it"):
        LatentsSource(out, 2)
    first = out / shard_name(1, 3) / "latents.npy"
    before = first.stat().st_mtime_ns
    (out / f".{shard_name(0, 3)}.partial").mkdir()  # left by a run that was killed
    assert precompute(start, out, asked, (1, 2)) == 0
    assert first.stat().st_mtime_ns == before
    assert_same(rows(out), rows(written))
    shutil.rmtree(out / shard_name(0, 3))
    assert precompute(start, out, dataclasses.replace(asked, batch_size=4)) == 0
    assert first.stat().st_mtime_ns == before
    assert not list(out.glob(".*"))


def test_of_two_runs_at_one_part_the_first_ends_and_nothing_is_mixed(
    written, start, asked, tmp_path, monkeypatch
):
    out = tmp_path / "latents"

    def second_run(descriptor: int):
        monkeypatch.undo()
        assert precompute(start, out, asked) == 0

    monkeypatch.setattr(os, "fsync", second_run)
    with pytest.raises(FileExistsError, match="another run is making"):
        precompute(start, out, asked)
    assert_same(rows(out), rows(written))
    assert not list(out.glob(".*"))


def test_a_finished_folder_is_left_as_it_is(written, start, asked):
    before = (written / MANIFEST).read_text()
    assert precompute(start, written, asked) == 0
    assert (written / MANIFEST).read_text() == before


def test_other_settings_do_not_go_into_a_begun_folder(written, start, asked):
    other = dataclasses.replace(asked, variants=3)
    with pytest.raises(FileExistsError, match=r"other settings \(variants, count, shards\)"):
        precompute(start, written, other)


def test_a_folder_of_something_else_is_left_alone(start, asked, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another"):
        precompute(start, tmp_path, asked)


def test_a_damaged_clip_is_replaced(start, asked, dataset, tmp_path, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    damage(copy, 0, 400)
    one = dataclasses.replace(asked, path=str(copy), variants=1, count=2)
    assert precompute(start, tmp_path / "out", one) == 0
    made = rows(tmp_path / "out")
    assert np.array_equal(made[0]["ids"], made[1]["ids"])
    assert "the next one is shown" in caplog.text


def test_sprites_can_be_stored_too(start, tmp_path):
    asked = PrecomputeConfig(count=3, **SMALL)
    assert precompute(start, tmp_path / "out", asked) == 0
    assert len(rows(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shard_size": 5}, "do not hold whole batches"),
        ({"variants": 0}, "variants must be at least 1"),
        ({"count": 0}, "count must be at least 1"),
        ({"count": -3}, "count must be at least 1"),
        ({"worker_count": -1}, "worker_count must be at least 0"),
        ({"augment": "most"}, "choose one of none, coarse, fine"),
    ],
)
def test_what_cannot_be_made_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PrecomputeConfig(**SMALL | values)


@pytest.mark.parametrize("part", [(0, 2), (3, 2)])
def test_parts_that_do_not_exist_are_refused(start, asked, tmp_path, part):
    with pytest.raises(ValueError, match="give i/n"):
        precompute(start, tmp_path / "out", asked, part)


def test_training_reads_them_and_goes_on_at_a_saved_position(written, start):
    config = config_of(start, written, **{"data.vision_features": True})
    data = opened(config)
    next(data)
    position, expected = data.position(), next(data)
    data = opened(config)
    data.set_position(position)
    again = next(data)
    assert all(np.array_equal(again[name], expected[name]) for name in expected)


def test_folders_can_be_mixed(written, start, asked, tmp_path):
    few = dataclasses.replace(asked, variants=1, count=1, seed=9)
    assert precompute(start, tmp_path / "few", few) == 0
    config = config_of(start, "", **{"data.paths": (str(written), str(tmp_path / "few"))})
    data = opened(config)
    lone = rows(tmp_path / "few")[0]["latents"]
    seen = np.concatenate([next(data)["latents"] for _ in range(11)])  # 22 rows of 10 : 1
    assert sum(np.array_equal(one, lone) for one in seen) == 2


def changed(start, path, network):
    config, params = load_model(start)
    params = {**params, network: random_like(params[network], seed=1)}
    save_model(path, config, params, tokenizer_file=TOKENIZER_FILE)
    return path


@pytest.mark.parametrize(
    ("network", "features", "fits"),
    [
        ("vae", False, False),
        ("vision_encoder", True, False),
        ("vision_encoder", False, True),
        ("projector", True, True),
    ],
)
def test_latents_of_other_weights_are_refused(written, start, tmp_path, network, features, fits):
    other = changed(start, tmp_path / "other", network)
    config = config_of(other, written, **{"data.vision_features": features})
    if fits:
        next(opened(config))
        return
    with pytest.raises(ValueError, match=f"made with another {network} than"):
        opened(config)


def test_weights_kept_in_bfloat16_are_the_same_weights(start, tmp_path):
    config, params = load_model(start)
    save_model(tmp_path / "half", config, params, tokenizer_file=TOKENIZER_FILE, dtype="bfloat16")
    assert fingerprints(tmp_path / "half") == fingerprints(start)


def test_a_fingerprint_sees_every_weight_and_setting(start):
    config, params = load_model(start)
    whole = fingerprint(params["vae"], config.vae)
    computing = dataclasses.replace(config.vae, dtype="bfloat16")
    assert fingerprint(params["vae"], computing) == whole
    scaled = dataclasses.replace(config.vae, scaling_factor=0.5)
    assert fingerprint(params["vae"], scaled) != whole
    kernel = params["vae"]["decoder"]["conv_out"]["bias"]
    params["vae"]["decoder"]["conv_out"]["bias"] = kernel.at[-1].add(0.1)
    assert fingerprint(params["vae"], config.vae) != whole


def test_stored_latents_cannot_be_augmented(written, start):
    with pytest.raises(ValueError, match="give --augment to precompute"):
        opened(config_of(start, written, **{"data.augment": "fine"}))


def test_features_that_were_not_stored_are_asked_for(start, asked, tmp_path):
    plain = dataclasses.replace(asked, vision_features=False, count=1)
    assert precompute(start, tmp_path / "out", plain) == 0
    with pytest.raises(ValueError, match="--vision-features"):
        LatentsSource(tmp_path / "out", 2, vision_features=True)


def test_too_many_frames_are_refused(written):
    with pytest.raises(ValueError, match="stores 2 frames"):
        LatentsSource(written, num_frames=3)


def test_folders_of_the_format_before_are_refused(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"count": 3, "autoencoder": "0"}))
    with pytest.raises(ValueError, match="run precompute again"):
        LatentsSource(tmp_path, num_frames=1)

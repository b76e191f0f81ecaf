"""A pipeline whose programs are kept makes the same videos, and traces nothing a second time."""

import jax
import numpy as np
import pytest
from etils import epath
from flax.core import freeze
from tiny_model import picture, tiny_pipeline

from videobooth_jax.models.unet_3d import UNet3D
from videobooth_jax.pipeline import VideoBoothPipeline, kept
from videobooth_jax.sharding import known, make_mesh
from videobooth_jax.sharding.mesh import MeshSizes


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(exemplar_timestep="zero", exemplar_mode="single", guided_channels=None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Programs are kept here from now on."""
    folder = epath.Path(tmp_path / "traced")
    monkeypatch.setattr(kept, "traced_programs_folder", lambda: folder)
    yield folder
    kept._find.cache_clear()


def another_process(monkeypatch):
    """Nothing is left in memory, and the network cannot be traced."""
    kept._find.cache_clear()
    jax.clear_caches()

    def refuse(*_, **__):
        raise AssertionError("this was traced before")

    monkeypatch.setattr(UNet3D, "__call__", refuse)


def ask(pipeline, **options):
    return pipeline("a panda", picture(), "panda", seed=3, **options).frames


def names(folder):
    return sorted(file.name.rpartition("-")[0] for file in folder.iterdir())


def test_the_same_video_and_no_second_trace(pipeline, monkeypatch, folder):
    monkeypatch.setattr(kept, "traced_programs_folder", lambda: None)
    plain = ask(pipeline)
    monkeypatch.setattr(kept, "traced_programs_folder", lambda: folder)
    first = ask(pipeline), ask(pipeline, progress=lambda *step: None)
    np.testing.assert_array_equal(first[0], plain)
    assert names(folder) == ["decode", "denoise", "make_videos", "read_prompts", "read_subject"]
    another_process(monkeypatch)
    np.testing.assert_array_equal(ask(pipeline), first[0])
    np.testing.assert_array_equal(ask(pipeline, progress=lambda *step: None), first[1])
    with pytest.raises(AssertionError, match="traced before"):
        ask(pipeline, num_inference_steps=2)  # another plan is another program


def test_features_of_a_subject_go_through(pipeline, monkeypatch, folder):
    features = pipeline.exemplar_features(picture())
    first = pipeline("a panda", subject="panda", exemplar=features, seed=3).frames
    another_process(monkeypatch)
    again = pipeline.exemplar_features(picture())
    assert jax.tree.structure(again) == jax.tree.structure(features)
    jax.tree.map(np.testing.assert_array_equal, again, features)
    second = pipeline("a panda", subject="panda", exemplar=again, seed=3).frames
    np.testing.assert_array_equal(first, second)


def test_what_knows_a_mesh_or_lies_on_one_is_not_kept(folder):
    double = jax.jit(lambda factor, x: factor * x, static_argnums=0)
    mesh = make_mesh(MeshSizes(data=2), jax.devices()[:2])
    split = jax.device_put(np.arange(4.0), jax.NamedSharding(mesh, jax.P("data")))
    np.testing.assert_array_equal(kept.call(double, (2.0,), split), [0.0, 2.0, 4.0, 6.0])
    with known(mesh):
        kept.call(double, (2.0,), np.arange(4.0))
    assert not folder.exists()
    kept.call(double, (2.0,), np.arange(4.0))
    assert folder.exists()


def test_other_shapes_types_settings_and_devices_are_other_programs(folder):
    product = jax.jit(lambda scale, x: scale * (x @ x), static_argnums=0)

    def ask(x, scale=2.0):
        np.testing.assert_allclose(kept.call(product, (scale,), x), scale * (x @ x))
        return len(list(folder.iterdir()))

    one = np.ones((4, 4), np.float32)
    assert [ask(one), ask(one), ask(one[:2, :2]), ask(one.astype(np.float16))] == [1, 1, 2, 3]
    assert ask(one, 3.0) == 4
    with jax.default_matmul_precision("highest"):
        assert ask(one) == 5
    assert ask(one) == 5
    assert ask(jax.device_put(one, jax.devices()[3])) == 5  # the same text for another device


def test_what_cannot_be_kept_is_called_as_it_is(folder):
    @jax.jit
    def told(x):
        return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((), np.float32), x)

    with pytest.warns(UserWarning, match="told is not kept for another time"):
        assert kept.call(told, (), np.float32(3)) == 3
    assert kept.call(told, (), np.float32(4)) == 4  # said once


def test_weights_may_be_any_tree(pipeline, folder):
    other = VideoBoothPipeline(pipeline.config, freeze(pipeline.params), pipeline.tokenizer)
    np.testing.assert_array_equal(ask(other), ask(pipeline))

"""What the pipeline makes: the same videos however they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import picture, tiny_pipeline

from videobooth_jax.diffusion.gaussian import noise_exemplar
from videobooth_jax.models.videobooth import VideoBooth
from videobooth_jax.pipeline import programs
from videobooth_jax.pipeline.requests import schedule_of

PROMPTS = ["a panda moving left over a meadow", "a panda going up over the sea", "a panda"]


def same(a, b):
    """Equal up to the order of sums: at most one of 255 levels apart."""
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def differ(a, b):
    assert np.abs(a.astype(int) - b.astype(int)).mean() > 1


@pytest.fixture(scope="module")
def clean():
    """The exemplar shown clean, one copy: what the sprites model does."""
    return tiny_pipeline(exemplar_timestep="zero", exemplar_mode="single", guided_channels=None)


@pytest.fixture(scope="module")
def published():
    """The exemplar noised with the video, a copy per frame, sampled with noise."""
    return tiny_pipeline(sampler="ddpm", placeholder="sdksd")


@pytest.fixture(scope="module")
def three(clean):
    return clean(PROMPTS, picture(), "panda", seed=5, batch_size=2)


def test_output(three):
    assert (three.frames.shape, three.frames.dtype) == ((3, 3, 16, 16, 3), np.uint8)
    assert three.prompts == tuple(PROMPTS)
    assert three.subjects == ("panda",) * 3
    differ(three.frames[0], three.frames[1])


def test_a_video_depends_on_seed_and_its_place_not_on_the_batch(clean, three):
    same(clean(PROMPTS[:1], picture(), "panda", seed=5).frames, three.frames[:1])
    same(clean(PROMPTS[:2], picture(), "panda", seed=5, batch_size=1).frames, three.frames[:2])
    repeated = clean(PROMPTS[0], picture(), "panda", seed=5, count=2, batch_size=1)
    same(repeated.frames[:1], three.frames[:1])
    differ(repeated.frames[0], repeated.frames[1])
    differ(clean(PROMPTS[:1], picture(), "panda", seed=6).frames, three.frames[:1])


def test_one_prompt_with_many_subjects(clean, three):
    many = clean(PROMPTS[0], [picture(), picture(60)], "panda", seed=5)
    same(many.frames[:1], three.frames[:1])
    alone = clean([PROMPTS[0]] * 2, picture(60), "panda", seed=5, batch_size=1)
    same(many.frames[1:], alone.frames[1:])
    differ(many.frames[1:], clean([PROMPTS[0]] * 2, picture(), "panda", seed=5).frames[1:])


def test_features_made_once_give_the_same_videos(clean, three):
    features = clean.exemplar_features(picture())
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(features.features)} == {(1, 1)}
    again = clean(PROMPTS, subject="panda", exemplar=features, seed=5, batch_size=2)
    np.testing.assert_array_equal(again.frames, three.frames)


def test_step_by_step_is_the_same_as_in_one_program(clean, three):
    calls = []
    stepped = clean(
        PROMPTS, picture(), "panda", seed=5, batch_size=2, progress=lambda *c: calls.append(c)
    )
    same(stepped.frames, three.frames)
    assert calls == [(i, 6) for i in range(1, 7)]


def test_a_bar_for_people(clean, capsys):
    clean(PROMPTS[0], picture(), "panda", batch_size=2, count=2, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_the_picture_does_what_injection_says(clean):
    def make(injection, red):
        output = clean(PROMPTS[0], picture(red), "panda", seed=5, injection=injection)
        return output.frames

    for injection in ("text", "coarse"):
        red, other = make(injection, 200), make(injection, 60)
        if injection == "text":
            np.testing.assert_array_equal(red, other)
        else:
            differ(red, other)
        differ(red, make("fine", 200))


@pytest.mark.slow
def test_published_behaviour_scan_and_steps(published):
    whole = published(PROMPTS[0], picture(), "panda", seed=5)
    stepped = published(PROMPTS[0], picture(), "panda", seed=5, progress=lambda *_: None)
    same(whole.frames, stepped.frames)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["replicated", "single"])
def test_features_are_those_of_the_noised_exemplar_at_every_step(mode):
    pipe = tiny_pipeline(sampler="ddpm", exemplar_mode=mode)
    features = pipe.exemplar_features(picture(), seed=7)
    timesteps = np.asarray(features.timesteps)
    assert (np.diff(timesteps) < 0).all()
    assert len(timesteps) == 3
    key = programs.video_keys(np.uint32(7), np.zeros(1, np.uint32))
    model, copies = VideoBooth(pipe.config), {"replicated": 3, "single": 1}[mode]
    exemplar = jax.jit(
        lambda latents, t, key: model.apply(
            {"params": pipe.params},
            noise_exemplar(schedule_of(pipe.config), latents, t, key, copies),
            t,
            features.null_states,
            method="exemplar_keys_values",
        )
    )
    for step, timestep in enumerate(timesteps):
        step_key = jax.vmap(lambda k, step=step: jax.random.fold_in(k, step))(key)
        expected = exemplar(features.latents, jnp.full(1, timestep), step_key)
        for ours, theirs in zip(
            jax.tree.leaves(features.features), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(ours[step], theirs, atol=1e-5)
    one, other = (pipe(prompt, subject="panda", exemplar=features).frames for prompt in PROMPTS[:2])
    differ(one, other)


def test_features_of_other_steps_or_sizes_are_refused(published, clean):
    features = clean.exemplar_features(picture())
    with pytest.raises(ValueError, match="made for other steps or another size"):
        published(PROMPTS[0], subject="panda", exemplar=features)
    with pytest.raises(ValueError, match="made for other steps or another size"):
        clean(PROMPTS[0], subject="panda", exemplar=features, height=32, width=32)
    with pytest.raises(ValueError, match="either a picture"):
        clean(PROMPTS[0], picture(), "panda", exemplar=features)


def test_no_guidance_is_guidance_of_one(clean):
    """Scale 1 runs one branch; a scale next to it runs both, and must give nearly the same."""
    one, near = (
        clean(PROMPTS[0], picture(), "panda", guidance_scale=scale).frames for scale in (1, 1.0001)
    )
    same(one, near)


def test_other_lengths_and_sizes(clean):
    output = clean(PROMPTS[0], picture(), "panda", num_frames=2, height=8, width=24)
    assert output.frames.shape == (1, 2, 8, 24, 3)


def test_save(three, tmp_path):
    paths = three.save(tmp_path / "panda.gif")
    assert [path.name for path in paths] == ["panda_0.gif", "panda_1.gif", "panda_2.gif"]
    with pytest.raises(FileExistsError):
        three.save(tmp_path / "panda.gif")
    assert three.save(tmp_path / "panda.gif", overwrite=True, scale=1) == paths

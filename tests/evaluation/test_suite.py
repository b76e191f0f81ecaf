"""The sprites suite: balanced, deterministic, right on true videos, and honest about wrong ones."""

import dataclasses
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_model import tiny_pipeline

from videobooth_jax.data.sprites import SpritesSource
from videobooth_jax.evaluation import report, suite
from videobooth_jax.evaluation.suite import run_sprites_suite
from videobooth_jax.models.sizes import SIZES

CONFIG = SIZES["sprites"]


class Puppet:
    """Stands in for a pipeline: answers with the world's own videos, changed by `spoil`."""

    def __init__(self, spoil=lambda videos: videos, seed=0):
        self.config, self.spoil, self.calls = CONFIG, spoil, []
        self.source = SpritesSource(suite.sprites_world(CONFIG, "test", seed))

    def __call__(self, prompt, image, subject, **options):
        self.calls.append({"prompt": prompt, "image": image, "subject": subject, **options})
        videos = np.stack([self.source[i]["video"] for i in range(len(prompt))])
        return SimpleNamespace(frames=self.spoil(videos))


def test_true_videos_are_right_and_the_pipeline_is_not_called():
    puppet = Puppet()
    result = run_sprites_suite(puppet, videos=4, injection="truth")
    assert not puppet.calls
    assert result.sampling == {}
    assert {name: share.right for name, share in result.shares.items()} == {
        "identity": 4,
        "motion": 4,
        "background": 4,
    }


def test_a_generator_of_true_videos_gets_the_same_figures_as_the_truth():
    made, true = (run_sprites_suite(Puppet(), videos=2, injection=i) for i in ("fine", "truth"))
    assert made.rows == true.rows


def test_the_pipeline_is_asked_once_with_the_examples_own_words_and_pictures():
    puppet = Puppet()
    result = run_sprites_suite(
        puppet, videos=3, injection="coarse", seed=0, batch_size=2, num_inference_steps=7
    )
    (call,) = puppet.calls
    assert call["prompt"] == [puppet.source[i]["prompt"] for i in range(3)]
    np.testing.assert_array_equal(call["image"][2], puppet.source[2]["image_prompt"])
    assert (call["injection"], call["seed"], call["batch_size"]) == ("coarse", 0, 2)
    assert result.sampling == {
        "sampler": CONFIG.diffusion.sampler,
        "num_inference_steps": 7,
        "guidance_scale": CONFIG.diffusion.guidance_scale,
    }


def test_what_is_wrong_is_counted_and_named():
    backwards = run_sprites_suite(Puppet(lambda videos: videos[:, ::-1]), videos=4)
    assert backwards.shares["motion"].right == 0
    assert backwards.shares["identity"].right == backwards.shares["background"].right == 4
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for row in backwards.rows:
        assert row.wrong() == ["motion"]
        assert row.seen["motion"] == opposite[row.asked["motion"]]


def test_examples_are_balanced():
    source = SpritesSource(suite.sprites_world(CONFIG, "test", 0))
    examples = [source[i] for i in range(240)]
    for name in ("style", "motion", "background"):
        counts = Counter(example[name] for example in examples)
        assert len(counts) == 4
        assert max(counts.values()) - min(counts.values()) <= 8
    assert set(Counter(example["noun"] for example in examples).values()) == {3}


def test_another_seed_draws_other_videos_of_the_same_things():
    one, other = (
        run_sprites_suite(Puppet(), videos=2, injection="truth", seed=seed) for seed in (0, 1)
    )
    assert [row.asked for row in one.rows] == [row.asked for row in other.rows]
    assert one.rows[0].distances != other.rows[0].distances


def test_files_hold_everything_and_show_the_first_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "SHOWN", 3)
    result = run_sprites_suite(Puppet(), videos=4, out=tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"result.json", "videos.png"}
    read = json.loads((tmp_path / "report" / "result.json").read_text())
    assert read == json.loads(json.dumps(dataclasses.asdict(result)))
    assert len(read["rows"]) == 4
    assert read["shares"]["identity"]["total"] == 4
    assert read["world"]["split"] == "test"
    with Image.open(tmp_path / "report" / "videos.png") as sheet:
        width, height = sheet.size
    assert 2 * 64 < height < 2 * 96
    assert 2 * 9 * 64 < width < 2 * 9 * 96


def test_the_sheet_shows_pixels_as_they_are():
    pictures = np.full((3, 8, 8, 3), 10, np.uint8)
    frames = np.full((3, 2, 8, 8, 3), 200, np.uint8)
    sheet = np.asarray(report.contact_sheet(pictures, frames, ["a", "b", "c"]))
    assert (sheet == 10).all(-1).sum() >= 3 * 64 * 64
    assert (sheet == 200).all(-1).sum() >= 3 * 2 * 64 * 64


def test_a_failed_write_leaves_no_half_written_file(tmp_path, monkeypatch):
    result = run_sprites_suite(Puppet(), videos=1, injection="truth")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(OSError, match="full"):
        report.save_report(tmp_path, result, picture, picture[:, None])
    assert not list(tmp_path.iterdir())


def test_intervals_hold_the_share():
    share = report.Share.of(180, 240)
    assert 0.69 < share.low < share.share == 0.75 < share.high < 0.81
    assert "75.0%" in str(share)
    assert report.Share.of(240, 240).high == pytest.approx(1.0)


def test_the_summary_names_every_measure():
    text = run_sprites_suite(Puppet(), videos=1, injection="truth").summary()
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        "identity",
        "motion",
        "background",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"injection": "magic"}, "fine, coarse, text, truth"),
        ({"videos": 0}, "between 1 and"),
        ({"split": "tests"}, "tests"),
        ({"sampler": "euler"}, "euler"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(options, words, tmp_path):
    puppet = Puppet()
    with pytest.raises(ValueError, match=words):
        run_sprites_suite(puppet, out=tmp_path / "report", **options)
    assert not puppet.calls
    assert not (tmp_path / "report").exists()


@pytest.mark.slow(reason="compiles a sampling loop twice")
def test_a_random_model_is_judged_the_same_on_any_batch_split():
    options = {"videos": 3, "num_inference_steps": 2}
    one, other = (run_sprites_suite(tiny_pipeline(), batch_size=b, **options) for b in (2, 3))
    assert [row.seen for row in one.rows] == [row.seen for row in other.rows]
    assert one.shares["motion"].right < 3

"""`videobooth segment` as people run it."""

import subprocess
import sys

import numpy as np
import pytest
from photos import overlap, scene
from PIL import Image


@pytest.fixture(scope="module")
def panda():
    return scene("panda", "noto", "meadow", np.random.default_rng(3), 128)


@pytest.fixture
def run(tmp_path, panda):
    Image.fromarray(panda.picture).save(tmp_path / "photo.png")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-m", "videobooth_jax.cli", "segment", "photo.png"]
        return subprocess.run(
            [*start, "--subject=panda", *words], cwd=tmp_path, capture_output=True, text=True
        )

    return command


def test_a_box_becomes_a_cut_out_and_a_picture_to_judge_it_by(run, panda, tmp_path):
    words = ["--box=" + ",".join(map(str, panda.box)), "--out=cat.png"]
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    first, *files = done.stdout.splitlines()
    assert files == ["cat.png", "cat_overlay.png"]
    assert first.startswith("panda: method box, box ")
    assert first.endswith("% of the picture")
    box = [int(corner) for corner in first.split(", box ")[1].split(", ")[0].split(",")]
    with Image.open(tmp_path / "cat.png") as image:
        assert image.mode == "RGBA"
        assert image.size == (box[2] - box[0], box[3] - box[1])
        shown = np.zeros_like(panda.mask)
        shown[box[1] : box[3], box[0] : box[2]] = np.asarray(image)[..., 3] > 0
    assert overlap(shown, panda.mask) > 0.9
    with Image.open(tmp_path / "cat_overlay.png") as image:
        assert image.size == (128, 128)

    before = (tmp_path / "cat.png").read_bytes()
    again = run(*words)
    assert again.returncode == 2
    assert "already exists" in again.stderr
    assert run(*words, "--overwrite").returncode == 0
    assert (tmp_path / "cat.png").read_bytes() == before


def test_a_box_of_words_is_told(run):
    done = run("--box=1,2,3,x", "--out=cat.png")
    assert done.returncode == 2
    assert "argument --box: invalid numbers value: '1,2,3,x'" in done.stderr


def test_a_plain_photo_warns(run):
    done = run("--out=cat.png")
    assert done.returncode == 0
    assert "method none" in done.stdout
    assert done.stderr.startswith("videobooth: warning: nothing tells what")


def test_mistakes_are_a_sentence_and_leave_nothing(run, tmp_path):
    (tmp_path / "cat_overlay.png").write_bytes(b"")
    for words, message in (
        (["--out=cat.jpg"], "name a .png"),
        (["--out=cat.png"], "cat_overlay.png already exists"),
        (["--out=dog.png", "--box=0,0,400,4"], "does not lie inside"),
        (["--out=dog.png", "--detector=x/y", "--point=3,3"], "--detector is for --segment auto"),
    ):
        done = run(*words)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat_overlay.png", "photo.png"]

"""GroundingDINO and SAM through the same door, as tiny random models; none of their weights can
be told apart from noise, so what is tested is the path: boxes, masks, scores, refusals."""

import sys

import numpy as np
import pytest

from videobooth_jax.segmentation import WordSegmenter, segment, words

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import tiny_segmenters

    path = tmp_path_factory.mktemp("segmenters")
    detector = tiny_segmenters.save_detector(path / "detector")
    return detector, tiny_segmenters.save_outliner(path / "outliner")


@pytest.fixture(scope="module")
def models(folders):
    return WordSegmenter.load(*folders)


def test_a_word_becomes_a_mask_and_a_score(models):
    found = segment(PICTURE, models, subject="cat")
    assert found.method == "auto"
    assert 0.25 <= found.score <= 1
    assert found.mask.shape == (60, 90)
    assert found.mask.any()
    again = segment(PICTURE, models, subject="Cat. ")
    assert np.array_equal(again.mask, found.mask)
    assert again.score == found.score


def test_the_best_of_all_boxes_is_taken(models):
    import torch

    box, score = models._best_box(PICTURE, "cat")
    inputs = models.detector_processor(images=PICTURE, text="cat.", return_tensors="pt")
    with torch.inference_mode():
        outputs = models.detector(**inputs)
    scores = outputs.logits.sigmoid().amax(-1)[0]
    x, y, w, h = outputs.pred_boxes[0, int(scores.argmax())].tolist()
    expected = [(x - w / 2) * 90, (y - h / 2) * 60, (x + w / 2) * 90, (y + h / 2) * 60]
    assert score == pytest.approx(float(scores.max()))
    np.testing.assert_allclose(box, np.clip(expected, 0, [90, 60, 90, 60]), atol=1e-3)


def test_the_box_reaches_the_outliner_in_the_pictures_pixels(models, monkeypatch):
    seen = {}
    real = models.outliner.forward

    def forward(**inputs):
        seen.update(inputs)
        return real(**inputs)

    monkeypatch.setattr(models.outliner, "forward", forward)
    mask = models._outline(PICTURE, [9.0, 6.0, 45.0, 30.0])
    assert mask.shape == (60, 90)
    longest = models.outliner_processor.image_processor.size["longest_edge"]
    scale = longest / 90
    np.testing.assert_allclose(
        seen["input_boxes"].numpy()[0, 0], np.array([9, 6, 45, 30]) * scale, rtol=0.02
    )


def test_nothing_found_names_the_word_and_the_score(models, monkeypatch):
    monkeypatch.setattr(words, "THRESHOLD", 1.1)
    with pytest.raises(ValueError, match=r"no 'red panda' was found.*scores [01]\.\d\d and 1.1"):
        segment(PICTURE, models, subject="Red panda")
    with pytest.raises(ValueError, match="needs a subject"):
        segment(PICTURE, models)


def test_boxes_that_outline_nothing_are_said(models, monkeypatch):
    monkeypatch.setattr(
        WordSegmenter, "_outline", lambda self, pixels, box: np.zeros((60, 90), bool)
    )
    with pytest.raises(ValueError, match=r"'cat' was found at .* but no outline"):
        segment(PICTURE, models, subject="cat")


def test_weights_that_are_not_there(folders, tmp_path):
    detector, outliner = folders
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        WordSegmenter.load(tmp_path / "nowhere", outliner)
    with pytest.raises(ValueError, match=r"the segmenter .* cannot be read.*--box.*--mask"):
        WordSegmenter.load(detector, tmp_path)


def test_pickles_are_never_loaded(folders, tmp_path):
    import shutil

    import torch

    detector, outliner = folders
    copy = tmp_path / "copy"
    shutil.copytree(outliner, copy)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot be read.*model\.safetensors"):
        WordSegmenter.load(detector, copy)


def test_without_the_libraries_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"videobooth_jax\[segment\].*--box.*--mask"):
        WordSegmenter.load()

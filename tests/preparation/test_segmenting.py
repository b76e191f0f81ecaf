"""The door to segmentation: boxes and words become masks."""

import numpy as np
import pytest
from made_videos import BOX, moving

from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.tools import Tools

segmentation = pytest.importorskip("videobooth_jax.segmentation")
SQUARE = np.zeros((48, 64), bool)
SQUARE[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True


def test_a_box_becomes_a_mask():
    pytest.importorskip("cv2")
    found = Tools(PrepareConfig()).by_box(moving(1)[0], (20.0, 10.5, 48.0, 38.0))
    assert (found.mask & SQUARE).sum() / (found.mask | SQUARE).sum() > 0.9
    assert np.abs(np.subtract(found.box, BOX)).max() <= 1
    assert found.score is None


def test_words_go_through_models_that_are_loaded_once(monkeypatch):
    loaded = []

    class Red(segmentation.WordSegmenter):
        def find(self, pixels, subject):
            if subject != "square":
                raise ValueError("nothing is found")
            return pixels[..., 0] > 180, 0.75

    def load(detector, segmenter):
        loaded.append((detector, segmenter))
        return Red(None, None, None, None, "cpu")

    monkeypatch.setattr(segmentation.WordSegmenter, "load", load)
    tools = Tools(PrepareConfig(detector="d", segmenter="s"))
    for picture in moving(2):
        found = tools.by_words(picture, "square")
        assert found.score == 0.75
        assert found.mask.sum() == SQUARE.sum()
    assert found.box == (28, 16, 44, 32)
    assert loaded == [("d", "s")]
    with pytest.raises(ValueError, match="nothing is found"):
        tools.by_words(moving(1)[0], "circle")

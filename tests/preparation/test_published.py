"""The published dataset's layout."""

import json
from pathlib import Path

import pytest
from published_layout import write_published

from videobooth_jax.preparation.clip import prepare_clip
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.published import read_published
from videobooth_jax.preparation.tools import Tools


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, Path]:
    write_published(tmp_path / "masks", tmp_path / "videos", 5)
    return tmp_path / "masks", tmp_path / "videos"


def outcome(given: ClipInput):
    return prepare_clip(given, PrepareConfig(), Tools(PrepareConfig()))


def test_every_subject_but_the_background_is_a_clip(layout):
    found = read_published(*layout)
    assert len(found) == 6
    several = [given for given in found if given.group == "1000"]
    assert [given.id for given in several] == ["left-1000-1", "left-1000-2"]
    assert several[0].extra == {"class": "left", "logit": 0.75}
    for given in found:
        made = outcome(given)
        assert made.accepted, made.why
        assert made.facts["method"] == "mask"


def test_what_is_missing_is_set_aside(layout):
    masks, videos = layout
    found = read_published(masks, videos)
    (videos / found[0].video).unlink()
    (masks / found[1].mask).unlink()
    assert [outcome(given).reason for given in found[:2]] == ["missing_file", "missing_file"]
    folder = masks / Path(found[-1].mask).parent
    for text, reason in (
        ("[", "bad_row"),
        ("{}", "no_subject"),
        ('[{"value": 0, "label": "background"}]', "no_subject"),
        ('[{"value": "../1", "label": "cat", "box": [1, 2, 3, 4]}]', "bad_row"),
        ('[{"value": 1, "label": "cat"}]', "bad_box"),
    ):
        (folder / "mask.json").write_text(text)
        refused = [given for given in read_published(masks, videos) if given.refused]
        assert [given.refused[0] for given in refused] == [reason]
    entry = {"value": 1, "label": "zebra", "logit": 1, "box": [1, 2, 30, 40]}
    (folder / "mask.json").write_text(json.dumps([entry, entry]))
    one, two = read_published(masks, videos)[-2:]
    assert outcome(one).reason == "subject_not_in_caption"
    assert two.refused[0] == "duplicate_id"
    (folder / "mask.json").unlink()
    assert read_published(masks, videos)[-1].refused[0] == "missing_file"


def test_names_in_a_table_cannot_leave_their_folder(layout):
    masks, videos = layout
    (masks / "left.csv").write_text("videoid,page_dir,name\n../../x,0,a cat\n,0,a cat\n")
    found = [given for given in read_published(masks, videos) if given.place.startswith("left")]
    assert [given.refused[0] for given in found] == ["bad_id", "bad_id"]


def test_wrong_folders_are_errors_before_any_work(layout, tmp_path: Path):
    masks, videos = layout
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_published(masks, tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no table CLASS\.csv"):
        read_published(videos, videos)
    (masks / "left.csv").write_text("id,name\n")
    with pytest.raises(ValueError, match="no column videoid and no column page_dir"):
        read_published(masks, videos)


def test_text_that_is_no_utf_8_is_set_aside(layout):
    masks, videos = layout
    rows = b"videoid,page_dir,name\n1000,000000_000000,a caf\xe9\n1001,000000_000000,a medal\n"
    (masks / "left.csv").write_bytes(rows)
    entry = {"value": 1, "label": "medal", "logit": "\ud800", "box": [1, 2, 30, 40]}
    (masks / "left" / "1001" / "mask.json").write_text(json.dumps([entry]))
    found = [given for given in read_published(masks, videos) if given.place.startswith("left")]
    assert [given.refused[0] for given in found] == ["bad_row", "bad_row"]

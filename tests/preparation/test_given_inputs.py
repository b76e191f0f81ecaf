"""Folders and tables as inputs: nothing is lost, nothing leaves its folder."""

import json
import os
from pathlib import Path

import pytest

from videobooth_jax.preparation.inputs import (
    ClipInput,
    SetAside,
    existing,
    fingerprint,
    from_json,
    inside,
    plain_id,
    read_box,
    to_json,
)
from videobooth_jax.preparation.reading import read_inputs


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reasons(inputs: list[ClipInput]) -> list[str]:
    return [given.refused[0] if given.refused else "" for given in inputs]


def test_a_table_says_all_that_is_known_of_a_clip(tmp_path: Path):
    path = table(
        tmp_path / "clips.csv",
        "video,caption,id,subject,mask,box,mask_frame,license,source,camera\n"
        'a/b.mp4,"a café,  by the\nsea",one,café,m.png,"1,2, 3.5 4",7,CC0,me,Leica\n'
        "c.mp4,a sea,,,,,,,,\n",
    )
    first, second = read_inputs(path)
    assert first == ClipInput(
        place="clips.csv line 2",
        id="one",
        video="a/b.mp4",
        video_root=str(tmp_path),
        caption="a café, by the sea",
        subjects=("café",),
        mask="m.png",
        mask_root=str(tmp_path),
        box=(1, 2, 3.5, 4),
        mask_frame=7,
        licence="CC0",
        source="me",
        group="one",
        extra={"camera": "Leica"},
    )
    assert (second.id, second.subjects, second.box, second.place) == (
        "c",
        (),
        None,
        "clips.csv line 4",
    )
    assert from_json(to_json(first)) == first


def test_json_lines_say_the_same(tmp_path: Path):
    rows = [
        {"video": "a.mp4", "caption": "a cat", "subject": ["dog", "cat"], "box": [1, 2, 3, 4]},
        {"video": "b.mp4", "caption": "a cat", "id": 7, "shot": {"lens": 35}},
    ]
    path = table(tmp_path / "clips.jsonl", "\ufeff" + "\n\n".join(map(json.dumps, rows)))
    first, second = read_inputs(path)
    assert (first.subjects, first.box, first.id) == (("dog", "cat"), (1, 2, 3, 4), "a")
    assert (second.id, second.extra, second.place) == (
        "7",
        {"shot": {"lens": 35}},
        "clips.jsonl line 3",
    )


def test_bad_rows_are_set_aside_and_the_others_stay(tmp_path: Path):
    path = table(
        tmp_path / "clips.csv",
        b"video,caption,id,subject,box,mask_frame\n"
        b"a.mp4,a cat,good,,,\n"
        b"b.mp4,un caf\xe9,latin,,,\n"
        b"c.mp4,a cat\n"
        b",a cat,novideo,,,\n"
        b"d.mp4,,nocaption,,,\n"
        b"e.mp4,a cat,../up,,,\n"
        b"f.mp4,a cat,a/b,,,\n"
        b"g.mp4,a cat,nul\0,,,\n"
        b"h.mp4,a cat,good,,,\n"
        b"i.mp4,a cat,box,,1 2 3,\n"
        b"j.mp4,a cat,frame,,,-1\n",
    )
    found = read_inputs(path)
    assert " ".join(reasons(found)) == (
        " bad_row bad_row bad_row no_caption bad_id bad_id bad_id duplicate_id bad_box bad_row"
    )
    assert "clips.csv line 2 has the id 'good'" in found[8].refused[1]
    assert [given.place.split()[-1] for given in found] == [str(n) for n in range(2, 13)]
    lines = table(tmp_path / "l.jsonl", '{"video": "a.mp4", "caption": "b"}\n{"video": \n[1]\n')
    assert reasons(read_inputs(lines)) == ["", "bad_row", "bad_row"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "video;caption\na;b\n", "no column video and no column caption"),
        ("t.csv", "file,caption\na,b\n", "no column video; its columns are file, caption"),
        ("t.csv", "video,caption,video\n", "a column twice"),
        ("t.csv", "video,licence,caption,license\n", "a column twice"),
        ("t.csv", "", "no column video"),
        ("t.csv", "video,caption\n", "does not hold a row"),
        ("t.csv", "video,caption\n".encode("utf-16"), "is not UTF-8"),
        ("t.csv", "video,caption\n".encode("utf-16-le"), "is not UTF-8"),
        ("t.jsonl", '{"caption": "a"}\n', "'video'"),
        ("t.txt", "video", "no folder and no table"),
    ],
)
def test_a_wrong_table_is_an_error_before_any_work(tmp_path: Path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_inputs(table(tmp_path / name, text))


def test_a_missing_table_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder and no table"):
        read_inputs(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="does not hold a video"):
        read_inputs(tmp_path)


def test_a_folder_is_videos_and_their_side_files(tmp_path: Path):
    root = tmp_path / "videos"
    for name in ("a.mp4", "b.MOV", "sub/a.webm", "c.mp4", "d.mp4", "e.mp4", "c.mkv", ".hidden.mp4"):
        table(root / name, "") if (root / name).parent.exists() else None
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        table(root / name, "")
    table(root / "a.txt", "\ufeffa cat\n sleeps\n")
    table(root / "a.mask.png", "")
    table(root / "sub/a.json", '{"caption": "a dog", "mask": "m.png", "box": [1, 2, 3, 4]}')
    table(root / "c.txt", b"caf\xe9")
    table(root / "d.json", "{")
    table(root / "e.txt", "a cat".encode("utf-16"))
    table(root / "lonely.txt", "a cat")
    found = {given.place: given for given in read_inputs(root)}
    assert (found["a.mp4"].caption, found["a.mp4"].mask) == ("a cat sleeps", "a.mask.png")
    assert (found["sub/a.webm"].id, found["sub/a.webm"].mask) == ("sub__a", "sub/m.png")
    said = {place: given.refused[0] if given.refused else "" for place, given in found.items()}
    assert said == {
        "a.mp4": "",
        "b.MOV": "no_caption",
        "c.mkv": "bad_row",
        "c.mp4": "bad_row",
        "d.mp4": "bad_row",
        "e.mp4": "bad_row",
        "lonely.txt": "missing_file",
        "sub/a.webm": "",
    }
    assert str(tmp_path) not in str([given.refused for given in found.values()])


def test_paths_stay_in_their_folder(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    table(tmp_path / "secret.mp4", "x")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "up").symlink_to(tmp_path)
    table(root / "fine.mp4", "x")
    assert existing(root, "./fine.mp4") == (root / "fine.mp4").resolve()
    outside = ("../secret.mp4", str(tmp_path / "secret.mp4"), "link.mp4", "up/secret.mp4")
    for name in (*outside, "a/../../secret.mp4", "nul\0", "", "..\\secret.mp4", "a\nb"):
        with pytest.raises(SetAside) as found:
            inside(root, name)
        assert found.value.reason == "outside_folder"
    for name in ("gone.mp4", "loop.mp4", ".", "x" * 300):
        with pytest.raises(SetAside) as found:
            existing(root, name)
        assert found.value.reason == "missing_file"
    (root / "link.txt").symlink_to(tmp_path / "secret.mp4")
    table(root / "link2.mp4", "x")
    (root / "link2.txt").symlink_to(tmp_path / "secret.mp4")
    said = {given.place: given.refused[0] for given in read_inputs(root) if given.refused}
    assert said["link.mp4"] == said["link2.mp4"] == "outside_folder"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "a" * 201, "\u202ea"])
def test_ids_are_plain_names(name):
    with pytest.raises(SetAside):
        plain_id(name)
    assert plain_id("Katze 1.ü-x") == "Katze 1.ü-x"


@pytest.mark.parametrize(
    "value", ["1,2,3", "1,2,3,x", [1, 2, 3, None], 5, "1 2 3 inf", "nan 1 2 3"]
)
def test_boxes_are_four_numbers(value):
    with pytest.raises(SetAside):
        read_box(value)
    assert read_box("[1, 2; 3\t4]") == read_box((1, 2, 3, 4)) == (1, 2, 3, 4)


def test_a_fingerprint_follows_the_files_but_not_their_folder(tmp_path: Path):
    given = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        path = table(tmp_path / name / "a.mp4", "one")
        os.utime(path, (1, 1))
        given.append(ClipInput("p", "a", video="a.mp4", video_root=str(tmp_path / name)))
    assert fingerprint(given[0]) == fingerprint(given[1])
    before = fingerprint(given[0])
    table(tmp_path / "here" / "a.mp4", "other")
    assert fingerprint(given[0]) != before


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('"mask_frame": 1e999', "bad_row"),
        ('"mask_frame": 1' + "0" * 400, "bad_row"),
        ('"box": [1' + "0" * 400 + ", 2, 3, 4]", "bad_box"),
        ('"video": "."', "bad_id"),
        ('"video": "/"', "bad_id"),
        (r'"subject": ["\ud800", "cat"]', "bad_row"),
        (r'"lens": {"name": ["\ud800"]}', "bad_row"),
        (r'"\ud800": 1', "bad_row"),
    ],
)
def test_no_row_ends_a_run(tmp_path: Path, said: str, reason: str):
    fine, odd = '{"video": "a.mp4", "caption": "a cat"', '{"video": "b.mp4", "caption": "a cat"'
    path = table(tmp_path / "clips.jsonl", f"{fine}}}\n{odd}, {said}}}\n")
    assert reasons(read_inputs(path)) == ["", reason]


def test_no_name_in_a_folder_ends_a_run_or_is_passed_over(tmp_path: Path):
    root = tmp_path / "videos"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "outer").mkdir()
    for folder in (root, root / "inner", tmp_path / "outer"):
        table(folder / "a.mp4", "")
        table(folder / "a.json", '{"caption": "a cat", "mask": ""}')
    table(root / os.fsdecode(b"\xff.mp4"), "")
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "outer").symlink_to(tmp_path / "outer")
    (root / "again").symlink_to(root / "inner")
    found = {given.place: given for given in read_inputs(root)}
    assert {place: given.refused and given.refused[0] for place, given in found.items()} == {
        "a.mp4": None,
        "inner/a.mp4": None,
        "loop.mp4": "missing_file",
        "outer": "outside_folder",
        "\\udcff.mp4": "outside_folder",
    }
    assert found["inner/a.mp4"].mask == ""
    assert str(tmp_path) not in found["loop.mp4"].refused[1]
    str([given.place for given in found.values()]).encode()

"""What a newcomer does, through the commands only: videos and a photo in, a video out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videobooth_jax.data.videos import Video

ROOT = Path(__file__).parents[1]
LAYOUT = ROOT / "tests" / "preparation" / "published_layout.py"
SPRITES = ROOT / "videobooth_jax" / "assets" / "models" / "sprites"
SHORT = (
    "--config.steps=3",
    "--config.log_every=1",
    "--config.data.batch_size=2",
    "--config.mesh.data=1",
)


def run(*words, script=("-m", "videobooth_jax.cli")) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, (*script, *words))], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_from_videos_and_a_photo_to_a_video(tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    run(source, "--count=4", "--side=96", script=(LAYOUT,))
    (source / "videos" / "000000_000000" / "1001.mp4").write_bytes(b"no video")
    said = run(
        *("prepare", "--published", source / "masks", "--video-root", source / "videos"),
        *("--resolution=48", "--workers=2", "--out", data),
    )
    assert said.startswith("4 clips, 1 set aside (")  # clip 0 has two subjects, 1001 is damaged

    coarse, fine = tmp_path / "coarse", tmp_path / "fine"
    for phase, workdir, start in (("coarse", coarse, SPRITES), ("fine", fine, coarse / "model")):
        run(
            *("train", f"--config=configs/clips_{phase}.py", f"--workdir={workdir}", *SHORT),
            *(f"--config.data.path={data}", f"--config.init_from={start}"),
        )
        assert len(losses(workdir)) == 3
        assert np.isfinite(losses(workdir)).all()

    with Video(source / "videos" / "000000_000000" / "1000.mp4") as video:
        Image.fromarray(video.read([0])[0]).save(tmp_path / "photo.png")
    mask = json.loads(next((source / "masks").glob("*/1000/mask.json")).read_text())[1]
    corners = ",".join(str(np.clip(corner, 0, 96)) for corner in mask["box"])
    subject = mask["label"]
    cut = tmp_path / "cut.png"
    run("segment", tmp_path / "photo.png", "--subject", subject, "--box", corners, "--out", cut)
    assert (tmp_path / "cut_overlay.png").exists()
    out = tmp_path / "out.mp4"
    run(
        *("generate", "--model", fine / "model", "--image", cut, "--subject", subject, "--steps=2"),
        *("--prompt", f"a {subject} moving left over a meadow", "--out", out),
    )
    with Video(out) as video:
        frames = video.read(range(8))
    assert frames.std() > 10
    assert video.info.num_frames == 8

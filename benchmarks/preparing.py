"""What `videobooth prepare` costs and loses: `python benchmarks/preparing.py VIDEO...`

For each video a line of JSON: seconds of CPU time for one clip with a given mask (the middle of the
picture), the rate of what is stored, kbit/s, and its PSNR from the scaled original, dB.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videobooth_jax.data.clip_records import clip_features, decode_record
from videobooth_jax.data.videos import Video
from videobooth_jax.preparation.clip import prepare_clip
from videobooth_jax.preparation.config import PrepareConfig
from videobooth_jax.preparation.inputs import ClipInput
from videobooth_jax.preparation.tools import Tools

EVERY = 7
"""Frames that are compared."""


def measure(path: Path, folder: Path) -> dict:
    with Video(path) as video:
        height, width = video.info.height, video.info.width
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, 3 * width // 8 : -3 * width // 8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    given = ClipInput(
        path.name,
        path.stem,
        video=path.name,
        video_root=str(path.parent),
        caption="something",
        subjects=("something",),
        mask="mask.png",
        mask_root=str(folder),
    )
    config = PrepareConfig(min_motion=0, max_frozen_share=1)
    start = time.process_time()
    outcome = prepare_clip(given, config, Tools(config))
    seconds = time.process_time() - start
    if not outcome.accepted:
        return {"video": path.name, "reason": outcome.reason, "why": outcome.why}
    clip = decode_record(outcome.record)
    places = range(0, clip.num_frames, EVERY)
    with Video(clip.video) as stored, Video(path) as source:
        shown, size = stored.read(places).astype(float), (clip.height, clip.width)
        error = np.mean((shown - source.read(places, size)) ** 2)
    length = clip.num_frames / clip.frames_per_second
    return {
        "video": path.name,
        "size": [height, width],
        "stored_size": [*size],
        "frames": clip.num_frames,
        "cpu_seconds": round(seconds, 2),
        "kbit_per_second": round(8 * len(clip.video) / length / 1000),
        "psnr_db": round(float(10 * np.log10(255**2 / error)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    args = parser.parse_args()
    av.logging.set_level(av.logging.FATAL)
    clip_features()  # imports, which are no clip's
    with tempfile.TemporaryDirectory() as folder:
        for path in args.videos:
            print(json.dumps(measure(path.resolve(), Path(folder))), flush=True)


if __name__ == "__main__":
    main()

"""The published dataset's layout, of sprites: tables, mask.json, masks and videos.

`python tests/preparation/published_layout.py FOLDER` writes one to try `videobooth prepare` on.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from made_videos import write_video
from PIL import Image

from videobooth_jax.data import sprite_art
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource, content, video_poses


def sprite_clip(index: int, side: int, frames: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """Frames uint8 (frames side side 3), the first one's mask bool (side side), and the example."""
    config = SpritesConfig(resolution=side, num_frames=frames)
    example = SpritesSource(config)[index]
    noun, style, motion, _ = content(config, index)
    rng = np.random.default_rng((config.seed, 0, index))  # as the source draws its first pose
    pose = video_poses(config, motion, rng)[0]
    alpha = sprite_art.draw(sprite_art.design(noun.key, style), pose, side)[..., 3]
    return example["video"], alpha > 0.5, dict(example)


def write_published(
    root: Path, video_root: Path, count: int, side: int = 64, frames: int = 20
) -> None:
    """Render ``count`` sprites; the classes are their motions, clip 0 has a second subject.

    Every mask.json starts with ``background``; subjects have values from 1, as published.
    """
    tables: dict[str, list[dict[str, str]]] = {}
    for index in range(count):
        video, mask, example = sprite_clip(index, side, frames)
        name, kind, page = (
            f"{1000 + index}",
            example["motion"],
            f"{index // 4:06d}_{index // 4:06d}",
        )
        write_video(video_root / page / f"{name}.mp4", video)
        row = {"videoid": name, "contentUrl": f"{name}.mp4", "duration": "PT00H00M01S"}
        tables.setdefault(kind, []).append(row | {"page_dir": page, "name": example["prompt"]})
        folder = root / kind / name
        folder.mkdir(parents=True)
        entries: list[dict] = [{"value": 0, "label": "background"}]
        _add_entry(folder, entries, example["subject"], mask)
        if index == 0:
            _add_entry(folder, entries, example["background"], ~mask)
        (folder / "mask.json").write_text(json.dumps(entries))
    for kind, rows in tables.items():
        with (root / f"{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _add_entry(folder: Path, entries: list[dict], label: str, mask: np.ndarray) -> None:
    value = len(entries)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [float(columns[0]), float(rows[0]), columns[-1] + 1.25, rows[-1] + 1.25]
    entries.append({"value": value, "label": label, "logit": 0.75, "box": box})
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"mask_{value}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="gets the folders masks and videos")
    parser.add_argument("--count", type=int, default=12, help="of videos (default: 12)")
    parser.add_argument("--side", type=int, default=128, help="of a frame, px (default: 128)")
    args = parser.parse_args()
    write_published(args.folder / "masks", args.folder / "videos", args.count, args.side, 32)

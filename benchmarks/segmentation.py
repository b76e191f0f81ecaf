"""How well a box or a click alone tells the subject of a photo: IoU with a true mask, and seconds.

    python3 benchmarks/segmentation.py photo.jpg --box 3,19,222,163 --truth mask.png
    python3 benchmarks/segmentation.py photo.jpg --point 120,80 --truth mask.png --grow 0.04

Prints one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from videobooth_jax.data.image_prompt import open_picture, read_mask
from videobooth_jax.segmentation import segment


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def grown(box: list[float], share: float, width: int, height: int) -> list[float]:
    """The box made larger by a share of its sides all around, as people draw boxes."""
    left, top, right, bottom = box
    x, y = share * (right - left), share * (bottom - top)
    return [max(0, left - x), max(0, top - y), min(width, right + x), min(height, bottom + y)]


def least_seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture")
    parser.add_argument("--truth", required=True, help="mask of the subject")
    parser.add_argument("--box", type=numbers, help="x1,y1,x2,y2")
    parser.add_argument("--point", type=numbers, help="x,y")
    parser.add_argument("--grow", type=float, default=0.0, help="the box, by this share of a side")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    size = open_picture(args.picture).size
    truth = read_mask(args.truth, size)
    box = grown(args.box, args.grow, *size) if args.box else None
    point = tuple(args.point) if args.point else None

    def run() -> np.ndarray:
        return segment(args.picture, "box", box=box, point=point).mask

    found = run()
    report = {
        "picture": args.picture,
        "size": size,
        "box": box,
        "point": point,
        "iou": round(float((found & truth).sum() / (found | truth).sum()), 4),
        "seconds": round(least_seconds(run, args.repeats), 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

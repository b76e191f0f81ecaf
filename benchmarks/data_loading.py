"""How fast clips reach the model, as JSON.

    python benchmarks/data_loading.py make FILE.mp4           # a file of WebVid's kind
    python benchmarks/data_loading.py read FILE.mp4 ...       # clips a second of one core's time
    python benchmarks/data_loading.py train [--rows 16]       # seconds of a step, share of waiting

``make`` writes 150 frames of 596 x 336 px, sprites over moving noise, H.264 as x264 chooses.
``read`` takes 16 frames over 64 from random places to 256 x 256 px: by `Video.read`, by decord, and
by PyAV with everything decoded, converted and resized; all by turns, from the same places, each on
one thread. Then the same files as a prepared dataset, augmented and collated, and stored latents of
full size. Seconds are those that the process computes, so other work on the machine counts little.
``train`` times steps of the fine phase at the sprites' size from pixels, from latents and from
latents with features, by turns; then it trains on a prepared dataset of sprites read by one worker
process, and reports what share of the steps' time the device waited; these are seconds of the
clock. ``read`` needs the extra ``data``; decord is left out where it is not installed.
"""

import argparse
import dataclasses
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from videobooth_jax.data.batches import BatchConfig, collate
from videobooth_jax.data.clip_examples import ClipExamples, ClipView
from videobooth_jax.data.clip_records import DATASET, VERSION, ClipRecord, encode_record
from videobooth_jax.data.clip_window import clip_window
from videobooth_jax.data.clips import ClipsSource
from videobooth_jax.data.latents import FORMAT_VERSION, STORED, LatentsSource, shard_name
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.stream import batched, in_order
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.data.videos import Video

FRAMES, SPAN, SIDE = 16, 64, 256
Reader = Callable[[str, np.ndarray], np.ndarray]


def encode(frames: np.ndarray, file: Any, rate: int) -> None:
    """Frames uint8 (f h w 3) as H.264 in an MP4."""
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def make(file: str) -> None:
    count, height, width = 150, 336, 596
    sprites = SpritesSource(SpritesConfig(resolution=64, num_frames=count))[3]["video"]
    noise = np.random.default_rng(0).integers(0, 60, (height, width + count, 3), dtype=np.uint8)
    large = (np.asarray(Image.fromarray(f).resize((width, height))) for f in sprites)
    shown = [frame // 4 * 3 + noise[:, i : i + width] for i, frame in enumerate(large)]
    encode(np.stack(shown), file, 30)


def by_ours(file: str, places: np.ndarray) -> np.ndarray:
    with Video(file) as video:
        return video.read(places, (SIDE, SIDE))


def covering(height: int, width: int) -> tuple[int, int]:
    scale = SIDE / min(height, width)
    return round(scale * height), round(scale * width)


def middle(frames: np.ndarray) -> np.ndarray:
    top, left = ((n - SIDE) // 2 for n in frames.shape[1:3])
    return frames[:, top : top + SIDE, left : left + SIDE]


def by_decord(file: str, places: np.ndarray, height: int, width: int) -> np.ndarray:
    """``height`` and ``width`` to scale to, which decord has to be told before it opens a file."""
    import decord

    reader = decord.VideoReader(file, width=width, height=height, num_threads=1)
    return middle(reader.get_batch(places.tolist()).asnumpy())


def by_decoding_all(file: str, places: np.ndarray) -> np.ndarray:
    with av.open(file) as container:
        container.streams.video[0].thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    height, width = covering(*frames[0].shape[:2])
    resized = [np.asarray(Image.fromarray(frame).resize((width, height))) for frame in frames]
    return middle(np.stack(resized)[places])


def rates(seconds: list[float]) -> dict[str, float]:
    per_second = [1 / s for s in seconds]
    return {"median": statistics.median(per_second), "min": min(per_second), "max": max(per_second)}


def compare(file: str, rounds: int) -> dict[str, Any]:
    """Clips a second of every reader, by turns; all from the same places of a file."""
    readers: dict[str, Reader] = {"ours": by_ours, "decode_all": by_decoding_all}
    rng = np.random.default_rng(0)
    with Video(file) as video:
        info = video.info
    try:
        import decord  # noqa: F401

        height, width = covering(info.height, info.width)
        readers["decord"] = partial(by_decord, height=height, width=width)
    except ImportError:
        print("decord is not installed", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(rounds + 1):
        places = clip_window(info.num_frames, FRAMES, SPAN, rng)
        for name, read in readers.items():
            start = time.process_time()
            shape = read(file, places).shape
            assert shape == (FRAMES, SIDE, SIDE, 3), (name, shape)
            if turn:  # the first one warms the file up
                seconds[name].append(time.process_time() - start)
    about = {"frames": info.num_frames, "height": info.height, "width": info.width}
    keys = int(info.keyframes.sum())
    found = {name: rates(taken) for name, taken in seconds.items()}
    return {**about, "codec": info.codec, "keyframes": keys, "clips_per_second": found}


def write_dataset(folder: Path, records: list[ClipRecord]) -> Path:
    from array_record.python.array_record_module import ArrayRecordWriter

    inner = folder / DATASET / VERSION
    inner.mkdir(parents=True)
    writer = ArrayRecordWriter(
        str(inner / f"{DATASET}-train.array_record-00000-of-00001"), "group_size:1"
    )
    for one in records:
        writer.write(encode_record(one))
    writer.close()
    split = {"name": "train", "shardLengths": [str(len(records))]}
    (inner / "dataset_info.json").write_text(json.dumps({"splits": [split]}))
    return folder


def clip(index: int, video: bytes, picture: np.ndarray, caption: str, subject: str) -> ClipRecord:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    with Video(video) as opened:
        info = opened.info
    size = (info.num_frames, info.height, info.width)
    return ClipRecord(
        str(index), caption, subject, video, file.getvalue(), 0, *size, 25.0, facts="{}"
    )


def from_shards(files: list[str], rounds: int) -> dict[str, float]:
    """Clips a second out of a prepared dataset of these files, augmented, as batches of one."""
    picture = np.full((200, 160, 4), 255, np.uint8)
    picture[..., :3] = np.random.default_rng(0).integers(0, 255, (200, 160, 3))
    tokenizer = Tokenizer.from_file(_assets() / "sprites_tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        records = [
            clip(i, Path(file).read_bytes(), picture, "a dog runs", "dog")
            for i, file in enumerate(files)
        ]
        source = ClipsSource(write_dataset(Path(folder), records))
        shape = BatchConfig(1, read_ahead=0, clip_size=224, vae_size=SIDE)
        view = ClipView(FRAMES, SIDE, SIDE, SPAN, AUGMENTS["fine"])
        draw = ClipExamples(source, view, tokenizer, shape.subject_length)
        stream = batched(
            in_order(range(len(source)), shape, draw),
            shape,
            partial(collate, tokenizer=tokenizer, config=shape),
        )
        return rates(timed(lambda: next(stream), rounds * len(files)))


def from_latents(rounds: int, features: bool) -> dict[str, float]:
    """Examples a second out of a folder of full-size latents, random ones."""
    latents, rows = (32, 32, 4), 64
    shapes = {
        "latents": (FRAMES, *latents),
        "exemplar_latents": latents,
        "clip_image": (224, 224, 3),
        "vision_features": (5, 257, 1024),
        "ids": (77,),
        "placeholder": (12,),
    }
    with tempfile.TemporaryDirectory() as name:
        shard = Path(name) / shard_name(0, 1)
        shard.mkdir()
        for array in {*STORED, "vision_features"}:
            shape = shapes[array.removesuffix("_deviation")]
            kind = np.uint8 if array == "clip_image" else np.float16
            np.save(shard / f"{array}.npy", np.ones((rows, *shape), kind))
        manifest = {
            "format_version": FORMAT_VERSION,
            "count": rows,
            "shards": 1,
            "shard_size": rows,
            "num_frames": FRAMES,
            "vision_features": True,
        }
        (Path(name) / "manifest.json").write_text(json.dumps(manifest))
        source = LatentsSource(name, FRAMES, features)
        places = itertools.cycle(np.random.default_rng(0).permutation(rows).tolist())
        return rates(timed(lambda: source[next(places)], 8 * rounds))


def timed(act: Callable[[], Any], times: int) -> list[float]:
    """Seconds computed in each call, after one that is not counted."""
    act()
    marks = [time.process_time()]
    for _ in range(times):
        act()
        marks.append(time.process_time())
    return np.diff(marks).tolist()


def step_seconds(rows: int, rounds: int) -> dict[str, float]:
    """Median seconds of a fine step at the sprites' size on one resident batch, by source."""
    import jax

    from videobooth_jax.training.program import abstract_batch, initial_state, train_program

    steps = {}
    for name in ("pixels", "latents", "latents and features"):
        config = _run(rows)
        data = dataclasses.replace(
            config.data,
            source="sprites" if name == "pixels" else "latents",
            vision_features="features" in name,
        )
        config = dataclasses.replace(config, data=data)
        mesh = _mesh()
        program = train_program(config, mesh)
        batch = {
            n: jax.device_put(np.ones(s.shape, s.dtype), s.sharding)
            for n, s in abstract_batch(config, mesh).items()
        }
        steps[name] = [program.step, initial_state(program), batch, []]
    for turn in range(rounds + 1):
        for name, (step, state, batch, seconds) in steps.items():
            start = time.perf_counter()
            steps[name][1], metrics = step(state, batch)
            jax.block_until_ready(metrics)
            if turn:  # the first one compiles
                seconds.append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, (*_, seconds) in steps.items()}


def waiting(rows: int, steps: int) -> dict[str, Any]:
    """A run on a prepared dataset of sprites, read by one worker: seconds of a step, and the share
    of them that the device waited for data."""
    from videobooth_jax.training.loop import train

    sprites = SpritesSource(SpritesConfig(resolution=64, num_frames=64))
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for i in range(32):
            example, file = sprites[i], io.BytesIO()
            encode(example["video"], file, 10)
            words = (example["image_prompt"], example["prompt"], example["subject"])
            records.append(clip(i, file.getvalue(), *words))
        write_dataset(Path(folder) / "clips", records)
        config = _run(rows)
        path = str(Path(folder) / "clips")
        data = dataclasses.replace(
            config.data, source="clips", path=path, worker_count=1, augment="fine"
        )
        config = dataclasses.replace(
            config, data=data, steps=steps, log_every=steps // 2, checkpoint_every=steps
        )
        train(config, Path(folder) / "run")
        lines = (Path(folder) / "run" / "speed.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    return {name: last[name] for name in ("step", "step_seconds", "data_wait_share")}


def _assets() -> Path:
    import videobooth_jax

    return Path(videobooth_jax.__file__).parent / "assets"


def _mesh() -> Any:
    from videobooth_jax.sharding import MeshSizes, make_mesh

    return make_mesh(MeshSizes())


def _run(rows: int) -> Any:
    """The fine phase from the shipped weights, published objective, ``rows`` clips a step."""
    from videobooth_jax.training.config import default_config, from_config_dict

    config = default_config("sprites")
    config.name = "data_loading"
    config.trainable = ("projector", "text_kv", "frame_kv")
    config.init_from = str(_assets() / "models" / "sprites")
    config.data.batch_size, config.data.num_frames = rows, 8
    return from_config_dict(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "read", "train"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rounds", type=int, default=10, help="of everything timed")
    parser.add_argument("--rows", type=int, default=16, help="clips of a training step")
    parser.add_argument("--steps", type=int, default=20, help="of the run that is watched")
    args = parser.parse_args()
    if args.what == "make":
        make(*args.files)
        return
    report: dict[str, Any] = {}
    if args.what == "read":
        report["files"] = {Path(f).name: compare(f, args.rounds) for f in args.files}
        report["shards"] = from_shards(args.files, args.rounds)
        report["latents"] = from_latents(args.rounds, features=False)
        report["latents and features"] = from_latents(args.rounds, features=True)
    else:
        report["step_seconds"] = step_seconds(args.rows, args.rounds)
        report["run"] = waiting(args.rows, args.steps)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

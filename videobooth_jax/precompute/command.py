"""The arguments of `videobooth precompute`, and what they start."""

import argparse


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be said on the command line."""
    add = command.add_argument
    add("--model", required=True, metavar="FOLDER", help="model directory with the networks")
    add("--out", required=True, metavar="FOLDER", help="folder to write, or to go on with")
    add("--clips", metavar="FOLDER", help="dataset from videobooth prepare (default: sprites)")
    add("--split", default="train", help="train (default), of clips also train[:95%%] and so on")
    add("--frames", type=int, default=8, metavar="N", help="frames per clip (default: 8)")
    add("--window", type=int, default=64, metavar="N", help="that they spread over (default: 64)")
    add("--augment", default="none", help="of image prompts: none (default), coarse, fine")
    add("--variants", type=int, default=1, metavar="N", help="draws of each clip (default: 1)")
    add("--count", type=int, metavar="N", help="how many clips (default: all; 8192 sprites)")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--vision-features", action="store_true", help="store the image tower's work, too; large")
    add("--shard-size", type=int, default=1024, metavar="N", help="examples (default: 1024)")
    add("--batch-size", type=int, default=8, metavar="N", help="encoded at once (default: 8)")
    add("--workers", type=int, default=0, metavar="N", help="processes that read (default: 0)")
    add("--part", type=_part, default=(1, 1), metavar="I/N", help="make the Ith of N parts only")


def run(args: argparse.Namespace) -> None:
    """Do what was asked and say what was made."""
    from videobooth_jax.compilation_cache import enable_compilation_cache
    from videobooth_jax.precompute.writing import PrecomputeConfig, precompute

    enable_compilation_cache()
    config = PrecomputeConfig(
        source="clips" if args.clips else "sprites",
        path=args.clips or "",
        split=args.split,
        num_frames=args.frames,
        window=args.window,
        augment=args.augment,
        variants=args.variants,
        count=args.count,
        seed=args.seed,
        vision_features=args.vision_features,
        shard_size=args.shard_size,
        batch_size=args.batch_size,
        worker_count=args.workers,
    )
    missing = precompute(args.model, args.out, config, args.part)
    state = "finished" if not missing else f"{missing} shards are missing: run the other parts"
    print(f"latents: {args.out}, {state}")


def _part(text: str) -> tuple[int, int]:
    """Of "2/8": (2, 8)."""
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: give I/N, such as 2/8") from None
    return index, count

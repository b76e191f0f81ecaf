"""Pack the artwork of the sprite world into the package.

    python launch/build_sprite_assets.py ARTWORK [--out ASSETS]

ARTWORK holds one folder per style with one transparent picture per noun (``<style>/<noun>.webp``)
and ``nouns.json``, whose ``categories`` map every noun to its category. Written are

- ``sprites/<style>.webp``: an atlas, row-major tiles of 48 px in the order of
  ``sprites/nouns.json``. The longer side of every subject fills its tile; colours keep 6 bits and
  transparency 4, which at twice the drawn size nobody sees;
- ``sprites/nouns.json``: per noun its words, its phrase (with article) and its split;
- ``sprites_tokenizer.json``: byte-pair encoding in CLIP's scheme, learned on the captions of the
  train nouns. One that is there already is kept, because trained weights know its ids.

Nouns are left out by rule, before any model has seen them: a design that covers less than a fifth
of its square, or two designs that can hardly be told apart at 20 px. Held-out nouns (validation,
test) are drawn evenly from the categories among nouns of at most two words that have no lookalike
elsewhere. The same artwork gives the same bytes.
"""

import argparse
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from videobooth_jax.data.sprite_art import STYLES
from videobooth_jax.data.sprite_world import BACKGROUNDS, MOTIONS, TEMPLATES, caption
from videobooth_jax.data.tokenizer import Tokenizer, train_tokenizer

TILE, COLUMNS = 48, 26
DRAWN = 20  # px at which designs are compared: the subject's size in the smallest world
MIN_COVERAGE = 0.2  # of the square around the subject
MIN_DIFFERENCE = 0.07  # root mean square over the subject's pixels, colours in 0..1
HELD_OUT = {"validation": 40, "test": 80}
TEST_ALWAYS = ("dog", "panda", "penguin", "rocket", "sailboat", "tiger")
SEED = 0

WORDS = {
    "cooking": "fried egg",
    "e-mail": "e-mail",
    "locked": "locked padlock",
    "mans-shoe": "man's shoe",
    "t-rex": "t-rex",
    "t-shirt": "t-shirt",
    "unlocked": "unlocked padlock",
    "womans-boot": "woman's boot",
    "womans-clothes": "woman's clothes",
    "womans-hat": "woman's hat",
    "womans-sandal": "woman's sandal",
    "x-ray": "x-ray",
    "yo-yo": "yo-yo",
}
AN = ("hourglass", "x-ray")  # against their first letter
A = ("euro", "one-piece", "unicorn")
NO_ARTICLE = frozenset(
    """
    admission-tickets american-football bacon badminton ballet-shoes beans blueberries
    bookmark-tabs books bowling bread briefs broccoli bubbles butter canned-food
    card-index-dividers chains cherries chopsticks clinking-beer-mugs clinking-glasses
    control-knobs cooked-rice coral cricket-game crossed-swords curry-rice custard dna
    field-hockey film-frames fireworks fork-and-knife fork-and-knife-with-plate garlic
    ginger-root glasses gloves goggles grapes green-salad hammer-and-pick hammer-and-wrench
    houses ice ice-cream ice-hockey japanese-dolls jeans lacrosse linked-paperclips luggage
    maracas mate money-with-wings musical-notes nesting-dolls oden paw-prints peanuts
    performing-arts ping-pong pouring-liquid prayer-beads sake salt scissors shaved-ice
    shopping-bags shorts skis soap socks soft-ice-cream sparkles sunglasses sushi tennis
    womans-clothes wood yarn
    """.split()  # noqa: SIM905 - a table to read
)


def tile(path: Path) -> Image.Image:
    """One design, cut to its visible box and drawn with its longer side filling a square tile,
    RGBA."""
    art = Image.open(path).convert("RGBA")
    art = art.crop(art.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
    scale = TILE / max(art.size)
    size = (max(1, round(art.width * scale)), max(1, round(art.height * scale)))
    art = art.convert("RGBa").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    square = Image.new("RGBA", (TILE, TILE))
    square.paste(art, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return Image.fromarray(coarsen(np.asarray(square)))


def coarsen(rgba: np.ndarray) -> np.ndarray:
    """Round colours to multiples of 4 and alpha to multiples of 17, so that the lossless atlas
    packs well."""
    colour = np.minimum((rgba[..., :3].astype(int) + 2) // 4 * 4, 255)
    alpha = (rgba[..., 3:].astype(int) + 8) // 17 * 17
    return np.where(alpha > 0, np.concatenate([colour, alpha], -1), 0).astype(np.uint8)


def drawn(square: Image.Image, size: int) -> np.ndarray:
    """The design at ``size`` px in the middle of a clear canvas, premultiplied, 0..1."""
    small = np.asarray(square.convert("RGBa").resize((size, size), Image.Resampling.BOX))
    margin = DRAWN + 8 - size
    pad = (margin // 2, margin - margin // 2)
    return np.pad(small.astype(np.float32) / 255, (pad, pad, (0, 0)))


def difference(one: np.ndarray, others: np.ndarray) -> float:
    """Smallest difference between a drawn design and other drawings (k, h, w, 4), on grey, per
    pixel that either covers."""
    colour = (one - others)[..., :3] - 0.5 * (one - others)[..., 3:]
    covered = np.maximum(one[..., 3], others[..., 3]).sum((1, 2))
    return float(np.sqrt((colour**2).sum((1, 2, 3)) / (3 * covered)).min())


def closest_designs(squares: list[Image.Image]) -> float:
    """Smallest difference between any two designs of a noun over small changes of size and
    place."""
    moved = [
        np.stack(
            [
                np.roll(drawn(square, DRAWN + grow), (dy, dx), (0, 1))
                for grow in (-2, -1, 0, 1, 2)
                for dy, dx in itertools.product((-2, -1, 0, 1, 2), repeat=2)
            ]
        )
        for square in squares
    ]
    pairs = itertools.permutations(range(len(squares)), 2)
    return min(difference(drawn(squares[i], DRAWN), moved[j]) for i, j in pairs)


def coverage(squares: list[Image.Image]) -> float:
    """Share of the tile that the thinnest of a noun's designs covers."""
    return min(float(np.asarray(square)[..., 3].mean()) / 255 for square in squares)


def lookalikes(art: dict[str, list[Image.Image]]) -> set[str]:
    """Nouns that some other noun hardly differs from in some style: unfit to be held out."""
    nouns, found = list(art), set()
    for style in range(len(STYLES)):
        small = np.stack([drawn(art[noun][style], DRAWN) for noun in nouns])
        for i, noun in enumerate(nouns):
            if difference(small[i], np.delete(small, i, 0)) < MIN_DIFFERENCE:
                found.add(noun)
    return found


def relatives(nouns: Iterable[str]) -> set[str]:
    """Nouns that share a word with another (a green book, a blue book)."""
    count = Counter(word for noun in nouns for word in noun.split("-"))
    return {noun for noun in nouns if any(count[word] > 1 for word in noun.split("-"))}


def splits(art: dict[str, list[Image.Image]], categories: dict[str, str]) -> dict[str, str]:
    """Noun -> split. Held-out nouns come evenly from the categories, in a seeded order."""
    novel = set(art) - lookalikes(art)
    if clash := sorted(set(TEST_ALWAYS) - novel):
        raise ValueError(f"these nouns are left out or have lookalikes: {clash}")
    free = {noun for noun in novel - relatives(art) if noun.count("-") < 2}
    order = np.random.default_rng(SEED).permutation(sorted(free - set(TEST_ALWAYS))).tolist()
    split = dict.fromkeys(art, "train") | dict.fromkeys(TEST_ALWAYS, "test")
    for name, count in HELD_OUT.items():
        while (have := list(split.values()).count(name)) < count:
            share = {
                c: sum(categories[n] == c for n in art) for c in sorted(set(categories.values()))
            }
            held = {c: sum(categories[n] == c and split[n] == name for n in art) for c in share}
            needy = max(share, key=lambda c: (have + 1) * share[c] / len(art) - held[c])
            noun = next(n for n in order if categories[n] == needy and split[n] == "train")
            split[noun] = name
    return split


def words(noun: str) -> str:
    """The noun as a caption writes it."""
    return WORDS.get(noun, noun.replace("-", " "))


def phrase(noun: str) -> str:
    """The noun with its article, if it takes one."""
    if noun in NO_ARTICLE:
        return words(noun)
    vowel = noun.startswith(("a", "e", "i", "o", "u")) and not noun.startswith(A)
    return f"{'an' if vowel or noun.startswith(AN) else 'a'} {words(noun)}"


def atlas(squares: list[Image.Image]) -> Image.Image:
    """All designs of one style in one picture, row-major."""
    rows = -(-len(squares) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * TILE, rows * TILE))
    for i, square in enumerate(squares):
        sheet.paste(square, (i % COLUMNS * TILE, i // COLUMNS * TILE))
    return sheet


def learn_tokenizer(train: list[str]) -> Tokenizer:
    """Byte pairs from every caption of the train nouns."""
    parts = itertools.product(train, MOTIONS, BACKGROUNDS, TEMPLATES)
    captions = [caption(phrase(n), motion, place, form) for n, motion, place, form in parts]
    return train_tokenizer(captions, vocab_size=1024, positions=32)


def main() -> None:
    """Read the artwork, apply the rules, write the assets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("artwork", type=Path, help="folder with <style>/<noun>.webp and nouns.json")
    default = Path(__file__).parents[1] / "videobooth_jax" / "assets"
    parser.add_argument("--out", type=Path, default=default, help="the package's assets folder")
    args = parser.parse_args()

    categories = json.loads((args.artwork / "nouns.json").read_text())["categories"]
    art = {n: [tile(args.artwork / s / f"{n}.webp") for s in STYLES] for n in sorted(categories)}
    thin = {n for n in art if coverage(art[n]) < MIN_COVERAGE}
    alike = {n for n in art if n not in thin and closest_designs(art[n]) < MIN_DIFFERENCE}
    art = {n: squares for n, squares in art.items() if n not in thin | alike}
    split = splits(art, categories)

    folder = args.out / "sprites"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for i, style in enumerate(STYLES):
        sheet = atlas([squares[i] for squares in art.values()])
        sheet.save(folder / f"{style}.webp", lossless=True, quality=100, method=6)
    table = {
        "tile": TILE,
        "columns": COLUMNS,
        "left_out": {"thin": sorted(thin), "designs alike": sorted(alike)},
        "nouns": {n: {"words": words(n), "phrase": phrase(n), "split": split[n]} for n in art},
    }
    (folder / "nouns.json").write_text(json.dumps(table, indent=1) + "\n")
    tokenizer = args.out / "sprites_tokenizer.json"
    if not tokenizer.exists():
        learn_tokenizer([n for n in art if split[n] == "train"]).save(tokenizer)
    print(f"{len(art)} nouns kept, {len(thin)} too thin, {len(alike)} with designs too much alike")


if __name__ == "__main__":
    main()

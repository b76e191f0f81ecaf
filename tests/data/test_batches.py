"""Batches: what the model takes, every example once, and a position that can be saved."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import videobooth_jax
from videobooth_jax.data.batches import Batch, BatchConfig, batches, collate, with_changed_prompt
from videobooth_jax.data.prompt_augment import AUGMENTS
from videobooth_jax.data.sprites import SpritesConfig, SpritesSource
from videobooth_jax.data.tokenizer import Tokenizer


class Numbered:
    """Twelve tiny examples that say which one they are in every pixel."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        return {
            "video": np.full((2, 8, 8, 3), index, np.uint8),
            "image_prompt": np.full((8, 8, 3), 255, np.uint8),
            "prompt": "a panda moving left",
            "subject": "panda",
        }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    assets = Path(videobooth_jax.__file__).parent / "assets"
    return Tokenizer.from_file(assets / "sprites_tokenizer.json")


def numbers(batch: Batch) -> list[int]:
    return batch["video"][:, 0, 0, 0, 0].tolist()


def test_collate(tokenizer: Tokenizer) -> None:
    source = SpritesSource(SpritesConfig(split="test"))
    examples = [source[i] for i in range(3)]
    batch = collate(examples, tokenizer, BatchConfig(3, clip_size=56, vae_size=32))
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert shapes == {
        "video": ((3, 8, 32, 32, 3), "uint8"),
        "clip_image": ((3, 56, 56, 3), "uint8"),
        "vae_image": ((3, 32, 32, 3), "uint8"),
        "ids": ((3, 32), "int32"),
        "placeholder": ((3, 12), "int32"),
    }
    assert np.array_equal(batch["video"][0], examples[0]["video"])
    assert (batch["clip_image"][:, 0, 0] == 255).all()
    assert (batch["vae_image"][:, 0, 0] == 255).all()
    assert batch["ids"][1].tolist() == tokenizer.encode([examples[1]["prompt"]])[0].tolist()


def test_every_epoch_sees_every_example_once_in_its_own_order(tokenizer: Tokenizer) -> None:
    config = BatchConfig(4, clip_size=8, vae_size=8, epochs=2)
    seen = [number for batch in batches(Numbered(), tokenizer, config) for number in numbers(batch)]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]
    assert seen[:12] != list(range(12))


def test_processes_supply_the_rows_of_the_batches_of_one(tokenizer: Tokenizer) -> None:
    def run(rows: range | None) -> list[list[int]]:
        config = BatchConfig(6, clip_size=8, vae_size=8, epochs=2, rows=rows)
        return [numbers(batch) for batch in batches(Numbered(), tokenizer, config)]

    parts = [run(rows) for rows in (range(0, 2), range(2, 5), range(5, 6))]
    joined = [[*one, *two, *three] for one, two, three in zip(*parts, strict=True)]
    assert joined == run(None)


def test_augmentation_does_not_depend_on_the_process(tokenizer: Tokenizer) -> None:
    def brighten(example: dict, rng: np.random.Generator) -> dict:
        return {**example, "video": example["video"] + rng.integers(1, 200, dtype=np.uint8)}

    def first(rows: range | None) -> list[int]:
        config = BatchConfig(4, clip_size=8, vae_size=8, rows=rows)
        return numbers(next(batches(Numbered(), tokenizer, config, brighten)))

    assert first(range(0, 2)) + first(range(2, 4)) == first(None)


def test_without_shuffling_in_order_with_remainder(tokenizer: Tokenizer) -> None:
    config = BatchConfig(5, shuffle=False, epochs=1, pad_last=True, clip_size=8, vae_size=8)
    made = list(batches(Numbered(), tokenizer, config))
    rows = [numbers(batch) for batch in made]
    assert rows == [list(range(5)), list(range(5, 10)), [10, 11, 11, 11, 11]]
    assert [batch["valid"].sum() for batch in made] == [5, 5, 2]


def test_the_autoencoder_may_see_another_picture(tokenizer: Tokenizer) -> None:
    def recolour(example: dict, rng: np.random.Generator) -> dict:
        return {**example, "exemplar": np.zeros((8, 8, 3), np.uint8)}

    config = BatchConfig(2, clip_size=8, vae_size=8)
    batch = next(batches(Numbered(), tokenizer, config, recolour))
    assert (batch["vae_image"] == 0).all()
    assert (batch["clip_image"] == 255).all()


def test_none_changes_no_bit_and_fine_changes_both_pictures(tokenizer: Tokenizer) -> None:
    config = BatchConfig(2, clip_size=56, vae_size=32)
    source = SpritesSource(SpritesConfig(split="test"))
    plain, none, fine = (
        next(batches(source, tokenizer, config, change))
        for change in (
            None,
            partial(with_changed_prompt, augment=AUGMENTS["none"]),
            partial(with_changed_prompt, augment=AUGMENTS["fine"]),
        )
    )
    assert all(np.array_equal(plain[name], none[name]) for name in plain)
    assert all((plain[n] != fine[n]).any((1, 2, 3)).all() for n in ("clip_image", "vae_image"))
    assert np.array_equal(plain["video"], fine["video"])


def test_position_is_saved_and_restored_in_a_new_iterator(tokenizer: Tokenizer) -> None:
    config = BatchConfig(4, clip_size=8, vae_size=8, seed=3)
    run = batches(Numbered(), tokenizer, config)
    [next(run) for _ in range(5)]
    state = run.get_state()
    expected = [numbers(next(run)) for _ in range(5)]
    again = batches(Numbered(), tokenizer, config)
    again.set_state(state)
    assert [numbers(next(again)) for _ in range(5)] == expected


def test_augmentation_is_seeded(tokenizer: Tokenizer) -> None:
    def brighten(example: dict, rng: np.random.Generator) -> dict:
        return {**example, "video": example["video"] + rng.integers(1, 200, dtype=np.uint8)}

    config = BatchConfig(4, clip_size=8, vae_size=8, shuffle=False)
    first, again = (batches(Numbered(), tokenizer, config, brighten) for _ in range(2))
    one, two = numbers(next(first)), numbers(next(again))
    assert one == two
    assert one != list(range(4))

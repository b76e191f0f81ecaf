"""CLIP's scheme on hand-made merges, the shipped vocabulary, and what people get wrong."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import videobooth_jax
from videobooth_jax.data.sprite_art import nouns
from videobooth_jax.data.tokenizer import BOS, EOS, Tokenizer, train_tokenizer

SHIPPED = Path(videobooth_jax.__file__).parent / "assets" / "sprites_tokenizer.json"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer.from_file(SHIPPED)


@pytest.fixture
def tiny(tmp_path: Path) -> Tokenizer:
    """Letters, letters that end a word, and three merges: ab, ab</w>, abc</w>."""
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    merges = ["a b", "a b</w>", "ab c</w>"]
    symbols = [*letters, *(x + "</w>" for x in letters), *(m.replace(" ", "") for m in merges)]
    vocab = {symbol: i for i, symbol in enumerate([*symbols, BOS, EOS])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return Tokenizer.from_clip_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def symbols(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer._core.id_to_token(i) for i in tokenizer.pieces(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["abc</w>"]),
        ("ab", ["ab</w>"]),
        ("abd", ["ab", "d</w>"]),
        ("AB  \n ab", ["ab</w>", "ab</w>"]),
        ("c's", ["c</w>", "'", "s</w>"]),
        ("12", ["1</w>", "2</w>"]),
        ("ab!?", ["ab</w>", "!", "?</w>"]),
    ],
)
def test_scheme(tiny: Tokenizer, text: str, expected: list[str]) -> None:
    assert symbols(tiny, text) == expected


def test_clip_prompt_is_framed_cut_and_filled_with_the_end(tiny: Tokenizer) -> None:
    short, full = tiny.encode(["ab abc", "ab " * 200])
    assert tiny.positions == 77
    assert short[:4].tolist() == [tiny.bos, *tiny.pieces("ab abc"), tiny.eos]
    assert (short[3:] == tiny.eos).all()
    assert full[0] == tiny.bos
    assert full[-1] == tiny.eos
    assert (full[1:-1] == tiny.pieces("ab")[0]).all()
    assert short.dtype == np.int32


def test_shipped_ids_never_change() -> None:
    """Trained text towers know these ids: another order of merges would garble every prompt."""
    model = json.loads(SHIPPED.read_text())["model"]
    listed = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
    assert (
        hashlib.sha256(listed.encode()).hexdigest()
        == "a2e227204260ab9c561d5ff8a46c97837ce9a08a329ff6b7a9d9e7eca4187b78"
    )


def test_shipped_frame(shipped: Tokenizer) -> None:
    assert (shipped.vocab_size, shipped.positions) == (1024, 32)
    assert (shipped.bos, shipped.eos) == (1022, 1023)


def test_nothing_is_unknown(shipped: Tokenizer) -> None:
    text = "日本 é 🐼 \x07 q"
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    joined = "".join(symbols(shipped, text)).replace("</w>", "")
    assert set(joined) <= set(alphabet)
    assert len(joined) == len(text.replace(" ", "").encode())


def test_library_reads_what_we_save(shipped: Tokenizer) -> None:
    prompts = ["a panda moving left over a meadow", "a woman's hat " * 30]
    core = tokenizers.Tokenizer.from_file(str(SHIPPED))
    assert [core.encode(p).ids for p in prompts] == shipped.encode(prompts).tolist()


def test_training_breaks_ties_the_same_way_every_time() -> None:
    texts = ["low lot ol or moving left", "rol lor tol wol", "a panda, a pandas"] * 3
    first, second = (train_tokenizer(texts, 540, 16)._core.to_str() for _ in range(2))
    assert first == second


def test_every_subject_is_found_in_its_caption(shipped: Tokenizer) -> None:
    for noun in nouns().values():
        prompt = f"across the night sky, {noun.phrase} moving right"
        start, stop = shipped.subject_span(prompt, noun.words)
        ids = shipped.encode([prompt])[0]
        assert ids[start:stop].tolist() == shipped.pieces(noun.words)


def test_placeholder_is_padded(shipped: Tokenizer) -> None:
    ids = shipped.placeholder(["panda", "hindu temple"], 12)
    assert ids.shape == (2, 12)
    assert ids[0][ids[0] >= 0].tolist() == shipped.pieces("panda")
    assert shipped.placeholder(["panda"]).shape == (1, len(shipped.pieces("panda")))
    with pytest.raises(ValueError, match="tokens, at most 2 fit"):
        shipped.placeholder(["hindu temple"], 2)


@pytest.mark.parametrize(
    ("prompt", "subject", "message"),
    [
        ("a cat moving left", "panda", "does not occur in the prompt"),
        ("a pandas moving left", "panda", "does not occur in the prompt"),
        ("a panda moving left", "  ", "the subject is empty"),
        ("very " * 60 + "panda", "panda", "is cut off"),
    ],
)
def test_refused_subjects(shipped: Tokenizer, prompt: str, subject: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shipped.subject_span(prompt, subject)


def test_subject_at_the_very_end_fits(shipped: Tokenizer) -> None:
    room = shipped.positions - 2 - len(shipped.pieces("panda"))
    _, stop = shipped.subject_span("a " * room + "panda", "Panda")
    assert stop == shipped.positions - 1
    with pytest.raises(ValueError, match="is cut off"):
        shipped.subject_span("a " * (room + 1) + "panda", "panda")


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="cannot read a tokenizer"):
        Tokenizer.from_file(path)
    path.write_text(SHIPPED.read_text()[:1000])
    with pytest.raises(ValueError, match="cannot read a tokenizer"):
        Tokenizer.from_file(path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\nx y\n")
    with pytest.raises(ValueError, match="do not fit together"):
        Tokenizer.from_clip_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(ValueError, match="lacks"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()), 77)

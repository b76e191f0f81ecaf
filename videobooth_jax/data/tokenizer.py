"""Prompts to token ids in CLIP's scheme (Radford et al. 2021), through the ``tokenizers`` library.

Text is NFC-normalised, lower-cased and its white space collapsed; it is split into words, single
digits and runs of other signs, and each piece becomes byte pairs whose last symbol carries
``</w>``. Every byte is in the vocabulary: nothing is ever unknown. A prompt becomes
``<|startoftext|> tokens... <|endoftext|>``, cut to the number of positions with the end kept, and
padded with ``<|endoftext|>``. The order of ids is CLIP's: bytes, bytes that end a word, merges,
start, end.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from etils import epath
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Prompts and subject words to ids of a fixed number of positions."""

    def __init__(self, core: tokenizers.Tokenizer, positions: int):
        """``core`` neither truncates nor pads; ``positions`` is the text tower's length."""
        self._core = core
        self.positions = positions
        bos, eos = core.token_to_id(BOS), core.token_to_id(EOS)
        if bos is None or eos is None:
            raise ValueError(
                f"this tokenizer lacks {BOS} or {EOS}: it does not follow CLIP's scheme"
            )
        self.bos, self.eos = bos, eos

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Read a ``tokenizer.json``; its truncation length, or else 77, is the positions' number.

        Raises ValueError when the file is missing, damaged or not of CLIP's scheme.
        """
        try:
            text = epath.Path(path).read_text(encoding="utf-8")
            core = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"cannot read a tokenizer from {path}: {error}") from error
        positions = (core.truncation or {}).get("max_length", 77)
        core.no_truncation()
        core.no_padding()
        return cls(core, positions)

    @classmethod
    def from_clip_files(cls, vocab: str | Path, merges: str | Path) -> "Tokenizer":
        """CLIP's own, 77 positions, from its published ``vocab.json`` and ``merges.txt``."""
        lines = Path(merges).read_text(encoding="utf-8").splitlines()
        pairs = [_pair(line.split()) for line in lines if line and "#version" not in line]
        ids = json.loads(Path(vocab).read_text(encoding="utf-8"))
        try:
            core = _clip_core(ids, pairs)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{vocab} and {merges} do not fit together: {error}") from error
        return cls(core, 77)

    def save(self, path: str | Path) -> None:
        """Write a ``tokenizer.json`` that `from_file` and the ``tokenizers`` library read."""
        core = tokenizers.Tokenizer.from_str(self._core.to_str())
        core.enable_truncation(self.positions)
        core.enable_padding(pad_id=self.eos, pad_token=EOS, length=self.positions)
        core.post_processor = processors.RobertaProcessing((EOS, self.eos), (BOS, self.bos))
        Path(path).write_text(core.to_str(pretty=True) + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._core.get_vocab_size()

    def pieces(self, text: str) -> list[int]:
        """Ids of a text alone, without start, end or padding."""
        return self._core.encode(text, add_special_tokens=False).ids

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Prompts to ids, int32 (batch, positions): start, tokens, end, the end's id repeated."""
        ids = np.full((len(texts), self.positions), self.eos, np.int32)
        for row, text in zip(ids, texts, strict=True):
            tokens = self.pieces(text)[: self.positions - 2]
            row[0] = self.bos
            row[1 : len(tokens) + 1] = tokens
        return ids

    def placeholder(self, words: Sequence[str], length: int | None = None) -> np.ndarray:
        """Subject words to ids, int32 (batch, length), padded with -1.

        ``length`` is by default the longest word's. Raises ValueError when one is longer.
        """
        rows = [self.pieces(word) for word in words]
        longest = max(rows, key=len)
        width = len(longest) if length is None else length
        if len(longest) > width:
            word = words[rows.index(longest)]
            raise ValueError(f"the subject {word!r} has {len(longest)} tokens, at most {width} fit")
        ids = np.full((len(rows), width), -1, np.int32)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids

    def subject_span(self, prompt: str, subject: str) -> tuple[int, int]:
        """Positions [start, stop) of the subject's first occurrence in the encoded prompt.

        Raises ValueError when the subject is empty, does not occur in the prompt as whole words, or
        is cut off because the prompt has more tokens than there are positions.
        """
        tokens, wanted = self.pieces(prompt), self.pieces(subject)
        if not wanted:
            raise ValueError(
                "the subject is empty: name the word of the prompt that the picture shows"
            )
        starts = range(len(tokens) - len(wanted) + 1)
        start = next((i for i in starts if tokens[i : i + len(wanted)] == wanted), None)
        if start is None:
            raise ValueError(
                f"the subject {subject!r} does not occur in the prompt {prompt!r}: "
                "write the subject's word in the prompt, spelled the same way"
            )
        span = (start + 1, start + 1 + len(wanted))
        if span[1] > self.positions - 1:
            raise ValueError(
                f"the subject {subject!r} is cut off: it ends at token {span[1] - 1} of the "
                f"prompt, and {self.positions - 2} fit; shorten the prompt or name it earlier"
            )
        return span


def train_tokenizer(texts: Iterable[str], vocab_size: int, positions: int) -> Tokenizer:
    """Learn byte pairs from texts in CLIP's scheme.

    ``vocab_size`` counts the 512 byte symbols and the two special ids, too.
    """
    alphabet = _byte_symbols()
    core = _clip_core({symbol: i for i, symbol in enumerate(alphabet)}, [])
    size = vocab_size - 2
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=alphabet,  # fixes their order, by which ties are broken
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    learned = [_pair(pair) for pair in json.loads(core.to_str())["model"]["merges"]]
    merges = learned[: size - len(alphabet)]
    symbols = [*alphabet, *("".join(pair) for pair in merges), BOS, EOS]
    return Tokenizer(_clip_core({symbol: i for i, symbol in enumerate(symbols)}, merges), positions)


def _pair(symbols: Sequence[str]) -> tuple[str, str]:
    """The two symbols of a merge; anything else raises ValueError."""
    if len(symbols) != 2:
        raise ValueError(f"a merge has two symbols, found {' '.join(symbols)!r}")
    return symbols[0], symbols[1]


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, then the same ending a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet)]


def _clip_core(ids: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """A ``tokenizers`` pipeline of CLIP's normalisation, splitting and byte pairs."""
    core = tokenizers.Tokenizer(models.BPE(ids, merges, end_of_word_suffix=END_OF_WORD))
    spaces = tokenizers.Regex(r"\s+")
    core.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(spaces, " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.add_special_tokens([token for token in (BOS, EOS) if token in ids])
    return core

"""Candidates for the subject of a caption that names none: its noun chunks, by spaCy.

The paper takes the noun chunks of a caption, too. There is no list of classes: what can be found in
the picture decides.
"""

from collections.abc import Callable
from typing import Any


def subject_candidates(doc: Any) -> list[str]:
    """The nouns of a parsed caption in order, each with its compounds, each once.

    Of the chunk "the two small polar bears" remains "polar bears": determiners, numbers and
    adjectives say nothing that a picture would not show better. Pronouns are dropped.

    Args:
        doc: a `spacy.tokens.Doc` with part-of-speech tags and dependencies.
    """
    found = []
    for chunk in doc.noun_chunks:
        head = chunk.root
        if head.pos_ not in ("NOUN", "PROPN"):
            continue
        start = head.i
        while start > chunk.start and doc[start - 1].dep_ == "compound":
            start -= 1
        found.append(doc[start : head.i + 1].text)
    return list(dict.fromkeys(found))


def load_nouns(model: str) -> Callable[[str], list[str]]:
    """A function from a caption to its `subject_candidates`.

    Args:
        model: a spaCy pipeline with a tagger and a parser: a package's name or a folder.

    Raises:
        ImportError: spaCy is not installed.
        ValueError: the model is not installed, or does not tag and parse.
    """
    otherwise = "or name the subject of every caption (column 'subject')"
    try:
        import spacy
    except ImportError as error:
        raise ImportError(
            "captions without a named subject are parsed by spaCy: pip install "
            f"'videobooth_jax[nouns]' and python -m spacy download {model}, {otherwise}"
        ) from error
    try:
        pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(
            f"spaCy cannot load its model {model!r}: python -m spacy download {model}, or choose "
            f"another with --noun-model, {otherwise}"
        ) from error
    if not pipeline("a cat sleeps").has_annotation("DEP"):
        raise ValueError(f"spaCy's model {model!r} has no parser: choose one like en_core_web_sm")
    return lambda caption: subject_candidates(pipeline(caption))

"""Candidates for a subject, on parses written by hand."""

import sys

import pytest

from videobooth_jax.preparation.nouns import load_nouns, subject_candidates


def doc(*tokens: tuple[str, str, str, int]):
    """A parsed sentence of (word, part of speech, dependency, head)."""
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import Doc

    words, pos, deps, heads = zip(*tokens, strict=True)
    return Doc(spacy.blank("en").vocab, words=words, pos=pos, deps=deps, heads=heads)


def test_determiners_and_adjectives_go_and_compounds_stay():
    parsed = doc(
        ("The", "DET", "det", 4),
        ("two", "NUM", "nummod", 4),
        ("small", "ADJ", "amod", 4),
        ("polar", "NOUN", "compound", 4),
        ("bears", "NOUN", "nsubj", 5),
        ("watch", "VERB", "ROOT", 5),
        ("his", "PRON", "poss", 8),
        ("fire", "NOUN", "compound", 8),
        ("truck", "NOUN", "dobj", 5),
    )
    assert subject_candidates(parsed) == ["polar bears", "fire truck"]


def test_pronouns_are_no_subjects_and_repeats_come_once():
    parsed = doc(
        ("It", "PRON", "nsubj", 1),
        ("chases", "VERB", "ROOT", 1),
        ("a", "DET", "det", 3),
        ("cat", "NOUN", "dobj", 1),
        ("in", "ADP", "prep", 1),
        ("London", "PROPN", "pobj", 4),
        ("with", "ADP", "prep", 1),
        ("another", "DET", "det", 8),
        ("cat", "NOUN", "pobj", 6),
    )
    assert subject_candidates(parsed) == ["cat", "London"]


def test_a_missing_model_is_one_sentence():
    pytest.importorskip("spacy")
    with pytest.raises(ValueError, match=r"spacy download en_nowhere.*'subject'"):
        load_nouns("en_nowhere")


def test_a_model_without_a_parser_is_refused(tmp_path):
    spacy = pytest.importorskip("spacy")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match="no parser"):
        load_nouns(str(tmp_path / "blank"))


def test_a_missing_spacy_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match=r"videobooth_jax\[nouns\].*'subject'"):
        load_nouns("en_core_web_sm")

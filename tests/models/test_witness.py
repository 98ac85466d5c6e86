"""The judge of audits: the same likelihoods as one by one, and a text that is told from others by what is heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ctc import Alphabet, LogProbs, align, score
from models.witness import FEW, RIVALS, evidence, on_path, rivals, scores

ALPHABET = Alphabet(" abcdenost")
WORDS = ("bad", "coast", "bones", "tend", "sand", "dent", "toad", "nose")


def rows_of(text: str, sure: float = 0.9, seed: int = 0, steps: int = 3) -> LogProbs:
    """What a recognizer that is `sure` of each letter would say: a letter, then blanks, `steps` frames each."""
    rng = np.random.default_rng(seed)
    columns = [column for letter in ALPHABET.encode(text) for column in (letter, *[0] * (steps - 1))]
    chances = rng.random((len(columns), ALPHABET.size)) + 0.1
    chances *= (1 - sure) / chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(columns)), columns] += sure
    return np.log(chances).astype(np.float32)


TEXTS = st.lists(st.text(ALPHABET.letters, max_size=8), min_size=1, max_size=5)


@settings(max_examples=40)
@given(TEXTS, st.integers(0, 100))
def test_scores_are_those_of_each_text_alone(texts: list[str], seed: int) -> None:
    rows = rows_of("sand toad", 0.5, seed, steps=1)
    for text, found in zip(texts, scores(rows, texts, ALPHABET), strict=True):
        alone = score(rows, text, ALPHABET)
        assert found == pytest.approx(alone, abs=1e-6) if alone > -np.inf else found < FEW


@pytest.mark.parametrize("text", ["sand toad", "send toad", "a", ""])
def test_the_likeliest_path_is_no_likelier_than_the_text_and_nearly_as_likely(text: str) -> None:
    rows = rows_of("sand toad")
    path, whole = on_path(rows, text, ALPHABET), score(rows, text, ALPHABET)
    assert path.shape == (len(rows),)
    assert path.sum() <= whole + 1e-6
    assert path.sum() > whole - 0.2 * len(rows)
    letters = align(rows, text, ALPHABET)
    assert all(rows[letter.start, ALPHABET.encode(letter.text)[0]] in path.astype(np.float32) for letter in letters)


def test_rivals_are_as_long_and_the_same_each_time() -> None:
    for words in (WORDS, ()):
        found = rivals("sand toad", words)
        assert found == rivals("sand toad", words)
        assert len(found) == RIVALS
        assert all(6 <= len(rival) <= 9 and rival != "sand toad" for rival in found)


@pytest.mark.parametrize("sure", [0.9, 0.5])
def test_what_is_heard_is_told_from_what_is_not(sure: float) -> None:
    rows = rows_of("sand toad", sure)
    right = evidence(rows, "sand toad", "sand toad", ALPHABET, WORDS)
    near = evidence(rows, "sand nose", "sand toad", ALPHABET, WORDS)
    wrong = evidence(rows, "bones tend", "sand toad", ALPHABET, WORDS)
    assert right is not None
    assert near is not None
    assert wrong is not None
    assert right.log_odds < -3 < near.log_odds < wrong.log_odds
    assert right.behind == pytest.approx(0.0, abs=1e-6)
    assert right.rank > 2 > wrong.rank


@pytest.mark.parametrize("text", ["zebra", "sand" * 30])
def test_what_cannot_be_has_no_evidence(text: str) -> None:
    assert evidence(rows_of("sand"), text, "sand", ALPHABET, WORDS) is None


def test_a_recording_without_a_frame_says_nothing() -> None:
    assert evidence(np.zeros((0, ALPHABET.size), np.float32), "sand", "", ALPHABET, WORDS) is None

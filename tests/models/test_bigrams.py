"""Word counts: probabilities that add up, unknown words that stay possible, and a file that reads back the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from models.bigrams import START, Bigrams

TEXTS = ["turn the light on", "turn the heating off", "light"]


def test_known_words_after_a_word_add_up_to_one() -> None:
    counted = Bigrams.count(TEXTS)
    for before in (START, "turn", "the"):
        words = {word for text in TEXTS for word in text.split()}
        assert sum(math.exp(counted.score(before, word)) for word in words) == pytest.approx(1.0)


def test_what_was_seen_is_likelier() -> None:
    counted = Bigrams.count(TEXTS)
    assert counted.score("turn", "the") > counted.score("turn", "light") > counted.score("turn", "zebra")
    assert counted.score("turn", "zebra") > counted.score("turn", "zebrazebra")
    assert math.isfinite(counted.score("never", "seen"))


def test_the_file_reads_back(tmp_path: Path) -> None:
    counted = Bigrams.count(TEXTS)
    path = tmp_path / "words.txt.gz"
    counted.save(path)
    data = path.read_bytes()
    again = Bigrams.load(data)
    for before, word in [(START, "turn"), ("the", "light"), ("light", "zebra")]:
        assert again.score(before, word) == counted.score(before, word)
    again.save(path)
    assert path.read_bytes() == data
    with pytest.raises(OSError, match="gzip"):
        Bigrams.load(b"no")

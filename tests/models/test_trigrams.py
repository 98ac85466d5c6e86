"""Word counts: chances that add up, unknown words that stay possible, and a file that reads back the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from models.trigrams import DOUBT, KNOWN_SHARE, Trigrams

TEXTS = ["turn the light on", "turn the heating off", "turn the light off", "light"]
LISTED = ["lighthouse", "zebra"]


def counted() -> Trigrams:
    return Trigrams.count(TEXTS, LISTED)


@pytest.mark.parametrize("context", [("", ""), ("", "turn"), ("turn", "the"), ("the", "light"), ("never", "seen")])
def test_known_words_add_up_to_all_but_what_spellings_keep(context: tuple[str, str]) -> None:
    grams = counted()
    total = sum(math.exp(grams.score(*context, word)) for word in grams.words)
    left = math.exp(grams.score("never", "seen", "zebra")) * len(grams.words) / KNOWN_SHARE
    assert 1 - left <= total < 1.0
    if context == ("never", "seen"):
        assert total == pytest.approx(1 - left * (1 - KNOWN_SHARE))


def test_what_was_seen_is_likelier() -> None:
    grams = counted()
    assert grams.score("turn", "the", "light") > grams.score("turn", "the", "heating")
    assert grams.score("turn", "the", "light") > grams.score("off", "the", "light") > grams.score("", "", "heating")
    assert grams.score("turn", "the", "off") > grams.score("turn", "the", "zebra") > grams.score("", "the", "zebro")
    assert grams.score("", "", "qzebra") > grams.score("", "", "qzebraqzebra")
    assert math.isfinite(grams.score("never", "seen", "either"))


def test_hope_is_the_best_word_that_begins_so() -> None:
    grams = counted()
    alone = {word: grams.score("never", "seen", word) for word in grams.words}
    assert grams.ahead("l") == grams.ahead("light") == alone["light"]
    assert grams.ahead("lighth") == alone["lighthouse"]
    assert grams.ahead("q") > grams.ahead("qq")
    assert grams.ahead("zebras") == pytest.approx(grams.score("", "", "zebras") - DOUBT)


def test_the_file_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "words.npz"
    counted().save(path)
    data = path.read_bytes()
    again = Trigrams.load(data)
    for words in [("", "", "turn"), ("turn", "the", "light"), ("the", "light", "zebra"), ("the", "light", "qq")]:
        assert again.score(*words) == counted().score(*words)
    again.save(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"no", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a file of word counts"):
        Trigrams.load(data)


def test_no_texts_give_no_favourites() -> None:
    grams = Trigrams.count([], ["a", "b"])
    assert grams.score("", "", "a") == grams.score("x", "a", "b")

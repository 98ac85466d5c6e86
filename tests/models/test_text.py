"""The text front end: what is said for what is written, and what cannot be said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.pronounce import PHONES, Pronouncer, join, pack_lexicon, plural, unpack_lexicon
from models.text import MAX_WORD, MAX_WORDS, Clause, NothingToSpeak, clauses, phonemes, spoken_words

SAID = {
    "Your taxi is on its way": "your taxi is on its way",
    "It is 10:05 p.m.": "it is ten oh five p m",
    "at 5pm, 12:00 or 17:45": "at five p m twelve o'clock or seventeen forty five",
    "Nov. 20th, 2026": "november twentieth twenty twenty six",
    "2025-03-04": "march fourth twenty twenty five",
    "3/4/2025": "march fourth twenty twenty five",
    "the 1st of May": "the may first",
    "in 1905, 2006 and the 1990s": "in nineteen oh five two thousand six and the nineteen nineties",
    "$1,234.56": "one thousand two hundred thirty four dollars and fifty six cents",
    "$1 or $0.50": "one dollar or fifty cents",
    "$3 million and €5": "three million dollars and five euros",
    "20°C, -5 °F, 98%": "twenty degrees celsius minus five degrees fahrenheit ninety eight percent",
    "5 km at 13 km/h, 1 kg, 6 ft": "five kilometers at thirteen kilometers per hour one kilogram six feet",
    "1st, 22nd and 101st": "first twenty second and one hundred first",
    "2 1/2 cups, 3/4, 24/7": "two and a half cups three quarters twenty four seven",
    "10-12 people": "ten to twelve people",
    "3.14 and 007": "three point one four and zero zero seven",
    "Call 555-1234.": "call five five five one two three four",
    "Dr. Smith, 12 Main St.": "doctor smith twelve main street",
    "B12 & 3D": "b twelve and three d",
    "me@example.com": "me at example dot com",
    "don't rock 'n' roll": "don't rock and roll",
    "naïve café in Zürich, Straße": "naive cafe in zurich strasse",
    "hello 😀 there": "hello there",
    "Noooooo": "noo",
    "٣ cats": "three cats",
    "STOP the XQJ in NASA": "stop the x q j in nasa",
}


@pytest.mark.parametrize(("written", "said"), SAID.items())
def test_written_text_is_said(written: str, said: str) -> None:
    assert " ".join(spoken_words(written)) == said


@pytest.mark.parametrize("text", ["", "   ", "...!?", "😀🎉", "مرحبا", "你好", "$%&", "\u0000\u0007", "—"])
def test_nothing_to_speak(text: str) -> None:
    with pytest.raises(NothingToSpeak, match="could be spoken"):
        spoken_words(text)


def test_clauses_end_with_their_signs() -> None:
    found = list(clauses("Hello, Anna. Are you ready? Yes!"))
    assert found == [
        Clause(("hello",), ","),
        Clause(("anna",), "."),
        Clause(("are", "you", "ready"), "?"),
        Clause(("yes",), "!"),
    ]


def test_long_sentences_are_cut_without_losing_words() -> None:
    text = "the quick brown fox and the lazy dog went for a walk " * 200
    found = list(clauses(text))
    assert all(len(clause.words) <= MAX_WORDS for clause in found)
    assert [word for clause in found for word in clause.words] == text.split()


def test_a_hundred_thousand_letters_are_cut_into_words() -> None:
    words = spoken_words("ab" * 50_000)
    assert max(map(len, words)) == MAX_WORD
    assert sum(map(len, words)) == 100_000


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_plain_words_or_says_why_not(text: str) -> None:
    try:
        words = spoken_words(text)
    except NothingToSpeak:
        return
    assert words
    assert all(word.strip("'") and set(word) <= set("abcdefghijklmnopqrstuvwxyz'") for word in words)


def test_phones_of_a_sentence() -> None:
    said = "pau hh ax l ow pau y ao r t ae k s iy ih z aa n ih t s w ey pau"
    assert phonemes("Hello, your taxi is on its way.") == said.split()


def test_the_before_a_vowel() -> None:
    assert join([("dh", "ax"), ("ae", "p", "ax", "l")])[0] == ("dh", "iy")
    assert join([("dh", "ax"), ("d", "ao", "g")])[0] == ("dh", "ax")


def test_possessives_follow_their_noun() -> None:
    pronouncer = Pronouncer()
    assert pronouncer.phones("dog's") == (*pronouncer.phones("dog"), "z")
    assert pronouncer.phones("cat's") == (*pronouncer.phones("cat"), "s")
    assert plural(("b", "ah", "s")) == ("ax", "z")


@pytest.mark.parametrize("word", ["blorptastic", "zyxgrindle", "fenwickshire", "q", "xxxxx"])
def test_unknown_words_get_phones(word: str) -> None:
    phones = Pronouncer().phones(word)
    assert phones
    assert set(phones) <= set(PHONES)


def test_the_learned_model_reads_regular_words() -> None:
    """Letters to phones without the lexicon: words whose spelling follows the rules."""
    pronouncer = Pronouncer()
    for word in ("splandering", "mintful", "breckton"):
        assert word not in pronouncer
    assert pronouncer.phones("mintful") == ("m", "ih", "n", "t", "f", "ax", "l")


def test_lexicon_survives_packing() -> None:
    entries = {"a": ("ax",), "an": ("ae", "n"), "ant": ("ae", "n", "t"), "can't": ("k", "ae", "n", "t")}
    packed = pack_lexicon(entries)
    assert set(unpack_lexicon(packed)) == set(entries)
    assert pack_lexicon(entries) == packed

"""Text: equal words become equal bytes, nothing unspeakable passes, and a stream is cut where sentences end."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.text
from gateway.errors import BadField, RefrainError, TooLarge
from gateway.text import Sentences, canonical_text, speakable
from models.text import NothingToSpeak, clauses


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Hello, World!", "Hello, World!"),
        ("  Hello \t\r\n World ", "Hello World"),
        ("Cafe\u0301 au\u00a0lait\u3000\u2028now\u0085", "Caf\u00e9 au lait now"),
        ("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert canonical_text(text, "input.text") == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 5000 bytes"),
        (" \n\t ", "white space"),
        ("x" * 5001, "(5001 characters)"),
        ("\u00e9" * 2501, "1 to 5000 bytes"),
        ("e" + "\u0301\u0323" * 2_000_000, "1 to 5000 bytes"),
        ("nul\0", "U+0000 at 3"),
        ("a\x1fb", "U+001F at 1"),
        ("\x7f", "U+007F at 0"),
        ("\u00e9\x9b31m", "U+009B at 1"),
    ],
)
def test_refused_text(text: str, says: str) -> None:
    with pytest.raises(BadField) as caught:
        canonical_text(text, "input.text")
    assert caught.value.field == "input.text"
    assert says in str(caught.value)


@given(st.text())
def test_any_text_becomes_canonical_once_and_for_all_or_is_refused(text: str) -> None:
    try:
        canonical = canonical_text(text, "input.text")
    except RefrainError:
        return
    assert canonical == unicodedata.normalize("NFC", canonical)
    assert canonical == " ".join(canonical.split())
    assert canonical_text(canonical, "input.text") == canonical


@pytest.mark.parametrize(
    "text",
    ["a", "7", "\u00e9t\u00e9", "\uff21", "\N{GRINNING FACE} ok", "\u05e9\u05dc 5", "\u0663", "\u00df", "\u00f8"],
)
def test_speakable(text: str) -> None:
    assert speakable(text)


@pytest.mark.parametrize(
    "text", ["", "...", "\N{GRINNING FACE}", "\u05e9\u05dc\u05d5\u05dd", "\u4f60\u597d", "\u2122", "\u20ac"]
)
def test_not_speakable(text: str) -> None:
    assert not speakable(text)


def test_a_character_is_speakable_where_the_front_end_speaks_it() -> None:
    """Every one that another script or a sign may bring, and each thirteenth of the rest."""
    for code in (*range(0x20, 0x600), *range(0x2000, 0x3400), *range(0xFB00, 0x10000), *range(0x600, 0x30000, 13)):
        text = chr(code)
        assert speakable(text) == _spoken(text), f"U+{code:04X}"


@settings(deadline=None)  # the front end loads its lexicon once
@given(st.text(max_size=20))
def test_a_text_is_speakable_where_the_front_end_speaks_it(text: str) -> None:
    assert speakable(text) == _spoken(text)


def _spoken(text: str) -> bool:
    try:
        return bool(list(clauses(text)))
    except NothingToSpeak:
        return False


SPEECH = (
    'Dr. Smith paid $3.50 to e.g. J. R. Jones. "Really?" he asked...  \N{GRINNING FACE}! Yes!\n\nA title\n\n'
    "St. Rene\u0301 is open until 5 p.m. today. The end"
)
SENTENCES = [
    "Dr. Smith paid $3.50 to e.g. J. R. Jones.",
    '"Really?"',
    "he asked...",
    "Yes!",
    "A title",
    "St. Ren\u00e9 is open until 5 p.m. today.",
    "The end",
]


@given(st.lists(st.integers(0, len(SPEECH)), max_size=12))
def test_sentences_are_the_same_however_the_text_arrives(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(SPEECH)]
    sentences = Sentences("input.text")
    told = [s for start, end in itertools.pairwise(at) for s in sentences.push(SPEECH[start:end])]
    assert told + sentences.finish() == SENTENCES


def test_a_sentence_is_told_as_soon_as_the_next_begins() -> None:
    sentences = Sentences("input.text")
    assert sentences.push("On my") == []
    assert sentences.push(" way.") == []
    assert sentences.push(" See") == ["On my way."]


def test_streams_without_anything_to_speak_are_refused() -> None:
    sentences = Sentences("input.text")
    assert sentences.push("\N{GRINNING FACE}! ") == []
    with pytest.raises(BadField, match=r"input\.text"):
        sentences.finish()


def test_a_sentence_without_end_is_refused_in_time() -> None:
    endless = itertools.repeat("and so on " * 100, 100)
    with pytest.raises(TooLarge):
        list(map(Sentences("input.text").push, endless))


@pytest.mark.parametrize("size", [7, 90, 130])
def test_a_sentence_that_is_too_long_is_refused_however_it_arrives(size: int) -> None:
    text = "It goes on " * 14 + "and ends. "
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    with pytest.raises(TooLarge, match="130 bytes of UTF-8 a sentence"):
        list(map(Sentences("input.text", 130).push, pieces))


LONG = 400_000
"""In time that grows with the square of this, a text is not cut before the test is stopped."""


@pytest.mark.parametrize(
    "pattern", [".", "?!", ".'", ". ", "a. ", "U.S.A. ", "\n ", "\n", "\u2026)\n", "Mr.\n", "\u3002", "3.1"]
)
def test_text_is_cut_in_time_in_proportion_to_its_length(pattern: str) -> None:
    sentences = Sentences("input.text", 4 * LONG)
    told = sentences.push("Go" + pattern * (LONG // len(pattern)))
    for _ in range(10):
        told += sentences.push(pattern)
    assert [*told, *sentences.finish()][0].startswith("Go")


@pytest.mark.parametrize("pattern", [".", "a. ", ".)", "Mr. "])
def test_what_has_been_judged_is_not_judged_again(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages a sentence comes in, each of its marks is judged once."""
    judged = []

    class Counted:
        def search(self, text: str, start: int, end: int) -> object:
            judged.append(end)
            return abbreviation.search(text, start, end)

    abbreviation = gateway.text._ABBREVIATION
    monkeypatch.setattr(gateway.text, "_ABBREVIATION", Counted())
    sentences = Sentences("input.text")
    for character in pattern * 200:
        sentences.push(character)
    assert len(judged) <= 200


def test_control_characters_are_refused_in_a_stream_too() -> None:
    with pytest.raises(BadField):
        Sentences("input.text").push("\x1b[2J")

"""The text front end: any English text to the words that are said, in clauses, and to phones. Works offline.

text ─▶ folded to Latin letters ─▶ numbers, signs and short forms written out ─▶ clauses of words ─▶ phones
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from models.numerals import write_out
from models.pronounce import PAUSE, Pronouncer, join

VERSION: Final = 1
"""Raise when the same text is said otherwise than before: it is part of the synthesizer's identity."""
MAX_WORDS: Final = 20
MAX_LETTERS: Final = 160
"""A clause is cut where it grows beyond this: first sound early, and bounded work for one run of the model."""
MAX_WORD: Final = 24


class NothingToSpeak(ValueError):
    """The text holds no letter or digit that could be said."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Words between two breaths, and the sign that ends them: `,` `.` `?` or `!`."""

    words: tuple[str, ...]
    end: str


_LETTERS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
    | {"þ": "th", "Þ": "Th", "ð": "d", "Ð": "D", "ı": "i", "ħ": "h", "ŋ": "ng"}
    | dict.fromkeys("‘’ʼ`´＇", "'")
    | dict.fromkeys("“”«»„‟", '"')
    | dict.fromkeys("‐‑‒−", "-")
    | dict.fromkeys("–—―", " – ")
    | {"²": " squared ", "³": " cubed ", "…": "...", "™": "", "®": "", "©": ""}
    | {"。": ".", "，": ",", "！": "!", "？": "?", "、": ",", "؟": "?", "،": ","}
)
_SIGNS: Final = {
    "&": "and", "@": "at", "%": "percent", "+": "plus", "=": "equals", "#": "number", "~": "about", "<": "less than",
    ">": "greater than", "×": "times", "÷": "divided by", "±": "plus or minus", "°": "degrees", "∞": "infinity",
    "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "§": "section", "≈": "about", "≤": "at most",
    "≥": "at least",
}  # fmt: skip
_SHORT: Final = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "sr": "senior", "jr": "junior",
    "vs": "versus", "etc": "et cetera", "e.g": "for example", "i.e": "that is", "approx": "approximately",
    "dept": "department", "inc": "incorporated", "ltd": "limited", "co": "company", "corp": "corporation",
    "ave": "avenue", "blvd": "boulevard", "rd": "road", "apt": "apartment", "a.m": "a m", "p.m": "p m", "u.s": "u s",
    "u.s.a": "u s a", "u.k": "u k", "ph.d": "p h d", "jan": "january", "feb": "february", "apr": "april",
    "aug": "august", "sept": "september", "sep": "september", "oct": "october", "nov": "november", "dec": "december",
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday", "thurs": "thursday",
    "fri": "friday", "gov": "governor", "gen": "general", "sgt": "sergeant", "capt": "captain", "mt": "mount",
    "fig": "figure", "vol": "volume", "min": "minutes", "max": "maximum", "tel": "telephone",
}  # fmt: skip
"""Written with a full stop; the stop goes."""
_ALWAYS_SHORT: Final = {"mr", "mrs", "dr", "prof", "vs", "etc", "dept", "ltd", "blvd"}
"""Read in full without the stop too."""
_SHORT_NAMES = "|".join(sorted(map(re.escape, _SHORT), key=len, reverse=True))
_SHORT_FORM = re.compile(rf"\b({_SHORT_NAMES})\.", re.IGNORECASE)
_WITHOUT_STOP = re.compile(r"\b(" + "|".join(sorted(_ALWAYS_SHORT)) + r")\b", re.IGNORECASE)
_SAINT = re.compile(r"\b[Ss]t\.? (?=[A-Z])")
_STREET = re.compile(r"(?<=[a-z] )[Ss]t\b\.?")
_NUMBER_SIGN = re.compile(r"\b[Nn]o\. ?(?=\d)|№ ?")
_LINK = re.compile(
    r"\b(?:https?://)?((?:[\w-]{1,63}\.){1,6}(?:com|org|net|io|edu|gov|uk|de|eu|dev|ai)\b)(/\S{0,2000})?", re.IGNORECASE
)
_ADDRESS = re.compile(r"\b([\w.+-]{1,64})@((?:[\w-]{1,63}\.){1,6}[a-z]{2,24})\b", re.IGNORECASE)
_MIXED = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z](?!\w))|(?<=\d)(?=[A-Z])")
_TOUCHING = re.compile(r"(?<![\w$€£¥.,:])(?=[^\W\d]*\d)(?=\d*[^\W\d])\w+")
_WITH_UNIT = re.compile(r"\d+[a-zA-Z]{0,3}[a-zC-FH-JL-Z]")
_CAPITALS = re.compile(r"(?<![\w'])[A-Z]{2,6}(?=s?\b)(?!')")
_DOTTED = re.compile(r"\b(?:[A-Za-z]\.){2,12}")
_TRIPLED = re.compile(r"([a-zA-Z])\1{2,}")
_STOPS = re.compile(r"[.?!,;:()\[\]{}\"\n–|]+|(?<=\s)-(?=\s)")
_WORD = re.compile(r"[a-z](?:[a-z']*[a-z])?")
_BREAK_BEFORE: Final = frozenset(
    (
        "and",
        "but",
        "or",
        "so",
        "because",
        "when",
        "while",
        "if",
        "that",
        "which",
        "who",
        "where",
        "until",
        "with",
        "for",
    )
)


def fold(text: str) -> str:
    """Accents and wide forms folded away; what is not Latin, a digit or a known sign becomes a space."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS)).translate(_LETTERS)
    kept = (c for c in decomposed if not unicodedata.combining(c))
    return "".join(_digit(c) if c.isascii() or c in _SIGNS or c in "–⁄₹" or c.isdecimal() else " " for c in kept)


def _digit(c: str) -> str:
    """Digits of any script as ASCII."""
    return str(unicodedata.decimal(c)) if c.isdecimal() else c if c.isprintable() or c == "\n" else " "


def written_out(text: str) -> str:
    """The folded text with links, numbers, short forms and signs in words; capitals and clause punctuation stay."""
    text = _ADDRESS.sub(lambda m: f" {_dotted_name(m[1])} at {_dotted_name(m[2])} ", text)
    text = _LINK.sub(lambda m: f" {_dotted_name(m[1])} ", text)
    text = _NUMBER_SIGN.sub("number ", text)
    text = write_out(_part_mixed(text))
    text = _STREET.sub("street", _SAINT.sub("saint ", text))
    text = _SHORT_FORM.sub(lambda m: _SHORT[m[1].lower()], text)
    text = _WITHOUT_STOP.sub(lambda m: _SHORT[m[1].lower()], text)
    text = _DOTTED.sub(lambda m: m[0].replace(".", " "), text)
    text = re.sub(r"'n'", " and ", text)
    text = re.sub(r"(?<=[A-Za-z])#", " sharp", text)
    text = _TRIPLED.sub(r"\1\1", text)
    return "".join(f" {_SIGNS[c]} " if c in _SIGNS else c for c in text)


def _part_mixed(text: str) -> str:
    """Letters and digits that touch are parted (B12, 3D, MP3), but not units, ordinals, times and money."""

    def part(m: re.Match[str]) -> str:
        return m[0] if _WITH_UNIT.fullmatch(m[0]) else _MIXED.sub(" ", m[0])

    return _TOUCHING.sub(part, text)


def _dotted_name(name: str) -> str:
    """www.example.com as it is spelled to someone."""
    name = re.sub(r"\bwww\b", "w w w", name, flags=re.IGNORECASE)
    return name.replace(".", " dot ").replace("-", " dash ").replace("_", " underscore ").replace("+", " plus ")


def _spell_capitals(text: str, lexicon: Pronouncer | None) -> str:
    """NYC as letters where the rest is not in capitals and the lexicon does not know the word."""
    if not any(c.islower() for c in text) or not _CAPITALS.search(text):
        return text
    known = lexicon or pronouncer()
    return _CAPITALS.sub(lambda m: m[0] if m[0].lower() in known and m[0] != "US" else " ".join(m[0]), text)


def clauses(text: str, lexicon: Pronouncer | None = None) -> Iterator[Clause]:
    """The text in clauses, in order. Raises `NothingToSpeak` before the first if nothing can be said.

    `lexicon` tells words in capitals from letters to be spelled; the embedded one where none is given.
    """
    folded = fold(text)
    if not any(c.isalnum() for c in folded):
        raise NothingToSpeak("the text holds no letter or digit that could be spoken")
    plain = _spell_capitals(written_out(folded), lexicon) + "."
    found = False
    at = 0
    for stop in _STOPS.finditer(plain):
        words = _words_of(plain[at : stop.start()])
        at = stop.end()
        if words:
            found = True
            yield from _cut(words, _sign(stop[0]))
    if not found:
        raise NothingToSpeak("the text holds no word that could be spoken")


def _sign(stop: str) -> str:
    for sign in "?!":
        if sign in stop:
            return sign
    return "." if any(c in stop for c in ".;:\n") else ","


def _words_of(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    pieces = (word[n : n + MAX_WORD] for word in words for n in range(0, len(word), MAX_WORD))
    return [piece for piece in pieces if piece.strip("'")]


def _cut(words: list[str], end: str) -> Iterator[Clause]:
    """Long clauses in pieces, before a small word where there is one in the second half of the piece."""
    start = 0
    while True:
        letters, most = 0, start
        while most < min(len(words), start + MAX_WORDS) and letters <= MAX_LETTERS:
            letters += len(words[most])
            most += 1
        if most >= len(words):
            yield Clause(tuple(words[start:]), end)
            return
        middle = (start + most) // 2
        place = next((n for n in range(most, middle, -1) if words[n] in _BREAK_BEFORE), most)
        yield Clause(tuple(words[start:place]), ",")
        start = place


def spoken_words(text: str) -> list[str]:
    """The words that are said, lower-case, letters and apostrophes only. Raises `NothingToSpeak`."""
    return [word for clause in clauses(text) for word in clause.words]


@lru_cache(maxsize=1)
def pronouncer() -> Pronouncer:
    """The embedded lexicon and letters-to-phones model, loaded at the first use."""
    return Pronouncer()


def pronounced(clause: Clause, lexicon: Pronouncer | None = None) -> list[tuple[str, ...]]:
    """The clause's words as phones, without pauses."""
    return join([phones for phones in map((lexicon or pronouncer()).phones, clause.words) if phones])


def phonemes(text: str) -> list[str]:
    """The phones of the text with `pau` around every clause. Raises `NothingToSpeak`."""
    said = [PAUSE]
    for clause in clauses(text):
        said += [phone for word in pronounced(clause) for phone in word]
        said.append(PAUSE)
    return said

"""Text as it is keyed and spoken: normalised so that equal words are equal bytes, cut into sentences when it streams.

Case and punctuation stay: they change how a voice says the words.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from gateway.errors import BadField, TooLarge
from models.text import fold

TEXT_BYTES: Final = 5000
"""UTF-8 bytes of one text, as in Google's Text-to-Speech."""

SPEAKABLE: Final = "text with Latin letters or digits"

_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""C0, DEL and C1 but for those that Unicode calls white space (tab, line ends, U+0085)."""
_ASCII_SPEAKABLE: Final = re.compile("[A-Za-z0-9]")
_SENTENCE_END: Final = re.compile(
    r"(?:(?<![.!?\u2026])[.!?\u2026]++[\"'\u2019\u201d)\]]*+|[\u3002\uff01\uff1f])(?=\s)|\n\s*\n"
)
"""An end mark with what closes it, or a blank line. White space must follow: 3.14 is no end, nor a mark yet to grow.

Takes linear time: a run of marks is begun at its first only, and never given back."""
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z]|mr|mrs|ms|dr|prof|st|vs|etc|jr|sr|inc|ltd|co|approx|dept)\.$",
    re.IGNORECASE,
)
"""A full stop after one of these belongs to the word."""
_ABBREVIATION_CHARACTERS: Final = 32
"""A longer one is none."""


def canonical_text(text: str, field: str, max_bytes: int = TEXT_BYTES) -> str:
    """`text` in Unicode NFC, its white space single spaces, stripped. Raises `BadField` naming `field`.

    The size is checked first: normalising takes quadratic time on a long run of combining marks.
    """
    if text.isascii():
        if len(text) > max_bytes:
            raise BadField(field, text, f"1 to {max_bytes} bytes of UTF-8")
        if not text.isprintable():
            _refuse_control(text, field)
        canonical = " ".join(text.split())
    else:
        if len(text) > max_bytes or len(text.encode()) > max_bytes:
            raise BadField(field, text, f"1 to {max_bytes} bytes of UTF-8")
        _refuse_control(text, field)
        canonical = " ".join(unicodedata.normalize("NFC", text).split())
    if not canonical:
        raise BadField(field, text, f"1 to {max_bytes} bytes of UTF-8 that are not all white space")
    return canonical


def _refuse_control(text: str, field: str) -> None:
    if found := _CONTROL.search(text):
        raise BadField(
            field, text, "no control characters but tab and line ends", f"U+{ord(found[0]):04X} at {found.start()}"
        )


def speakable(text: str) -> bool:
    """Whether `text` holds a letter or digit the front end can speak: one that it folds to a plain one."""
    if _ASCII_SPEAKABLE.search(text):
        return True
    return not text.isascii() and bool(_ASCII_SPEAKABLE.search(fold(text)))


class Sentences:
    """Cuts text that arrives in pieces into canonical sentences; holds at most `max_bytes` of an unfinished one."""

    def __init__(self, field: str, max_bytes: int = TEXT_BYTES) -> None:
        self._field = field
        self._max_bytes = max_bytes
        self._pending = ""
        self._judged = 0
        """Characters of `_pending` in which every end mark is known to end no sentence."""
        self._spoken = 0

    def push(self, text: str) -> list[str]:
        """The sentences that `text` completes. Ones with nothing to speak (an emoji, dashes) are passed over.

        Raises `BadField` for control characters, `TooLarge` for a sentence that is too long, or does not end.
        """
        if len(text) > self._max_bytes or len(text.encode()) > self._max_bytes:
            raise BadField(self._field, text, f"at most {self._max_bytes} bytes of UTF-8 a message")
        _refuse_control(text, self._field)
        self._pending += text
        done: list[str] = []
        start = 0
        for mark in _SENTENCE_END.finditer(self._pending, self._judged):
            self._judged = end = mark.end()
            # From the character before: after a blank line, that is what shows that a word begins here.
            if not _ABBREVIATION.search(self._pending, max(start - 1, end - _ABBREVIATION_CHARACTERS, 0), end):
                done += self._sentence(self._pending[start:end])
                start = end
        rest = self._pending[start:].lstrip()
        self._judged = max(0, self._judged - (len(self._pending) - len(rest)))
        self._pending = rest
        self._check_length(rest)
        return done

    def finish(self) -> list[str]:
        """The last sentence, if any. Raises `BadField` when nothing in the whole stream could be spoken."""
        last, self._pending = self._sentence(self._pending), ""
        if not self._spoken:
            raise BadField(self._field, "", SPEAKABLE, "the stream held nothing this voice can speak")
        return last

    def _sentence(self, piece: str) -> list[str]:
        self._check_length(piece.strip())
        if not speakable(piece):
            return []
        self._spoken += 1
        return [" ".join(unicodedata.normalize("NFC", piece).split())]

    def _check_length(self, sentence: str) -> None:
        if len(sentence.encode()) > self._max_bytes:
            raise TooLarge(self._field, f"{self._max_bytes} bytes of UTF-8 a sentence")

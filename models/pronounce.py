"""Words to phones: a lexicon first, a small learned model (letters to phones, ONNX) for what it does not hold.

The phones are the 41 that flite's US English prints, `pau` (a pause) among them. Nothing here needs flite at run time.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from models.onnx import ModelFileError, OnnxModel

PAUSE: Final = "pau"
_SPOKEN: Final = (
    "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th dh uh uw v w y z zh"
)
PHONES: Final = (PAUSE, *dict.fromkeys(_SPOKEN.split(" ")))
"""Their places are the ids that the acoustic model takes."""
VOWELS: Final = frozenset(phone for phone in PHONES if phone[0] in "aeiou")
CODES: Final = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(PHONES)]
"""One letter a phone, for the lexicon file."""
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz'"
EMBEDDED: Final = Path(__file__).parent / "embedded" / "g2p"


def pack_lexicon(entries: Mapping[str, Sequence[str]]) -> bytes:
    """Gzip of sorted lines `<shared prefix, one letter><rest of the word> <phone codes>`; the same bytes every time."""
    lines, last = [], ""
    for word in sorted(entries):
        shared = 0
        while shared < min(len(word), len(last), 25) and word[shared] == last[shared]:
            shared += 1
        codes = "".join(CODES[PHONES.index(phone)] for phone in entries[word])
        lines.append(f"{chr(ord('A') + shared)}{word[shared:]} {codes}")
        last = word
    return gzip.compress("\n".join(lines).encode("ascii"), 9, mtime=0)


def unpack_lexicon(data: bytes) -> dict[str, str]:
    """Word to phone codes. Raises `ModelFileError` when the bytes are not a packed lexicon."""
    entries: dict[str, str] = {}
    last = ""
    try:
        for line in gzip.decompress(data).decode("ascii").split("\n"):
            head, codes = line.split(" ")
            last = last[: ord(head[0]) - ord("A")] + head[1:]
            entries[last] = codes
    except (OSError, EOFError, ValueError, IndexError) as problem:
        raise ModelFileError(f"the lexicon cannot be read: {problem}") from problem
    return entries


def letter_ids(word: str) -> list[int]:
    """1 to 27 for the letters and the apostrophe of a lower-case word; others are left out."""
    return [LETTERS.index(letter) + 1 for letter in word if letter in LETTERS]


def collapse(path: Iterable[int]) -> list[int]:
    """CTC's best path without repeats and blanks (0)."""
    last, kept = 0, []
    for symbol in path:
        if symbol not in (0, last):
            kept.append(symbol)
        last = symbol
    return kept


class Pronouncer:
    """Word to phones. `folder` holds model.onnx, model.toml and lexicon.txt.gz (its sha256 is among the options).

    The ONNX model: `letters` int64 [1, n] -> log-probabilities float32 [1, m, 1 + 40] (blank first, then PHONES[1:]).
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self._model = OnnxModel(folder, providers=providers, threads=threads)
        data = (folder / "lexicon.txt.gz").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != self._model.options["lexicon_sha256"]:
            raise ModelFileError(f"{folder / 'lexicon.txt.gz'}: sha256 is {digest}, not what model.toml says")
        self._lexicon = unpack_lexicon(data)
        self._guess = lru_cache(maxsize=10_000)(self._guess_uncached)
        self.identity = self._model.identity
        self.licence: str = self._model.manifest["licence"]

    def __contains__(self, word: str) -> bool:
        return word in self._lexicon

    def phones(self, word: str) -> tuple[str, ...]:
        """Phones of one lower-case word of letters and apostrophes; empty only where no letter is in it."""
        codes = self._lexicon.get(word)
        if codes is None:
            return self._possessive(word) or self._guess(word)
        return tuple(PHONES[CODES.index(code)] for code in codes)

    def _possessive(self, word: str) -> tuple[str, ...]:
        """dog's and dogs' from dog: the lexicon leaves out such forms. Empty where the rule does not apply."""
        stem = word.removesuffix("'s") if word.endswith("'s") else word.removesuffix("'")
        if stem == word or not stem.strip("'"):
            return ()
        phones = self.phones(stem)
        return phones + plural(phones) if word.endswith("s") and phones else phones

    def _guess_uncached(self, word: str) -> tuple[str, ...]:
        letters = letter_ids(word)
        if not letters:
            return ()
        (scores,) = self._model.run({"letters": np.array([letters], np.int64)})
        return tuple(PHONES[n] for n in collapse(scores[0].argmax(axis=1).tolist()))


def plural(phones: Sequence[str]) -> tuple[str, ...]:
    """What a written s at the end sounds like after these phones."""
    if phones[-1] in ("s", "z", "sh", "zh", "ch", "jh"):
        return ("ax", "z")
    return ("s",) if phones[-1] in ("p", "t", "k", "f", "th") else ("z",)


def join(words: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """What neighbours do to each other: `the` is `dh iy` before a vowel, as flite says it."""
    joined = list(words)
    for n in range(len(words) - 1):
        if words[n] == ("dh", "ax") and words[n + 1] and words[n + 1][0] in VOWELS:
            joined[n] = ("dh", "iy")
    return joined

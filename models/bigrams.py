"""How likely one word is after another: counts of words and pairs that steer the recognizer's search.

A character model spells what it hears; this tells words from spellings. Unknown words stay possible at a price by
length, so that names are still heard.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

START = ""
"""What stands before the first word."""
PAIR_SHARE = 0.6
"""Weight of the pair's estimate against the word's own."""
UNKNOWN = math.log(2e-5)
UNKNOWN_LETTER = -0.7
"""Natural log of an unknown word's chance: a constant and a price a letter."""


class Bigrams:
    """Word and pair counts. `score` is a natural-log probability, smoothed by interpolation with the word alone."""

    def __init__(self, words: dict[str, int], pairs: dict[tuple[str, str], int]) -> None:
        self._words = words
        self._pairs = pairs
        self._total = sum(words.values())
        self._after: dict[str, int] = {}
        for (before, _), count in pairs.items():
            self._after[before] = self._after.get(before, 0) + count
        self.score = lru_cache(maxsize=65536)(self._score)

    def _score(self, before: str, word: str) -> float:
        count = self._words.get(word, 0)
        alone = count / self._total if count else math.exp(UNKNOWN + UNKNOWN_LETTER * len(word))
        after = self._after.get(before, 0)
        if not after:
            return math.log(alone)
        pair = self._pairs.get((before, word), 0) / after
        return math.log(PAIR_SHARE * pair + (1 - PAIR_SHARE) * alone)

    @classmethod
    def count(cls, texts: Iterable[str], others: Iterable[str] = ()) -> Bigrams:
        """From texts of lower-case words; each of `others` is a word too, if only as if it had been seen once."""
        words: dict[str, int] = {}
        pairs: dict[tuple[str, str], int] = {}
        for text in texts:
            before = START
            for word in text.split():
                words[word] = words.get(word, 0) + 1
                pairs[before, word] = pairs.get((before, word), 0) + 1
                before = word
        return cls(dict.fromkeys(others, 1) | words, pairs)

    def save(self, path: Path) -> None:
        """Gzipped lines `before word count`; those of two fields are single words. Same counts give the same bytes."""
        lines = [f"{word} {count}" for word, count in sorted(self._words.items())]
        lines += [f"{before or '^'} {word} {count}" for (before, word), count in sorted(self._pairs.items())]
        path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))

    @classmethod
    def load(cls, data: bytes) -> Bigrams:
        """Raises `ValueError` or `OSError` where the bytes are not what `save` writes."""
        words: dict[str, int] = {}
        pairs: dict[tuple[str, str], int] = {}
        for line in gzip.decompress(data).decode().split("\n"):
            *before, word, count = line.split(" ")
            if before:
                pairs[START if before[0] == "^" else before[0], word] = int(count)
            else:
                words[word] = int(count)
        return cls(words, pairs)

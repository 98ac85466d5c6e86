"""How likely a word is after two others: counts that steer the recognizer's search.

A letter model spells what it hears; this tells words from spellings. Interpolated Kneser-Ney smoothing with one
discount (Ney, Essen and Kneser 1994; Chen and Goodman 1999, section 2.7); unknown words stay possible at a price by
length, so that names are still heard.
"""

from __future__ import annotations

import io
import math
import zipfile
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

DISCOUNT = 0.75
KNOWN_SHARE = 0.6
"""Of what the lowest order leaves, the part spread over all known words; the rest is for spellings."""
SPELLING, SPELLING_LETTER = math.log(1e-4), -0.7
"""Natural log of the chance of one spelling among the unknown: a constant and a price a letter."""
DOUBT = 4.5
"""By how much less a word begun is hoped for when no known word begins so: else spellings of all kinds crowd known
words out of a search before they end (measured: a sixteenth fewer words wrong)."""
START = 0
"""The id that stands before the first word of a text."""


class Trigrams:
    """Counts of three words in a row. Scores are natural-log probabilities.

    `words` in alphabetical order have the ids from 1 on; `grams` [N, 3] are ids in the order they are said, with
    START before a text's first words, `counts` [N] how often. Words in no gram are listed ones.
    """

    def __init__(self, words: Sequence[str], grams: Ids, counts: Ids) -> None:
        self.words = list(words)
        self._grams, self._counts = grams, counts
        self._size = size = len(self.words) + 1
        self._ids = {word: number for number, word in enumerate(self.words, 1)}
        # Lower orders count the different words seen before, not how often.
        pairs, pair_befores = np.unique(grams[:, 1] * size + grams[:, 2], return_counts=True)
        singles, befores = np.unique(pairs % size, return_counts=True)
        self._three = _Level((grams[:, 0] * size + grams[:, 1]) * size + grams[:, 2], counts, size)
        self._two = _Level(pairs, pair_befores, size)
        total = int(befores.sum())
        left = DISCOUNT * len(singles) / total if total else 1.0
        self._alone = np.full(size, left * KNOWN_SHARE / max(1, len(self.words)))
        self._alone[singles] += (befores - DISCOUNT) / total
        self._log_alone = np.log(self._alone)
        self._unknown = math.log(left * (1 - KNOWN_SHARE)) + SPELLING
        self.score = lru_cache(maxsize=65536)(self._score)
        self.ahead = lru_cache(maxsize=65536)(self._ahead)

    def _score(self, earlier: str, before: str, word: str) -> float:
        """Natural log of the chance of `word` after `earlier` and `before`, each "" before the text's start."""
        place = self._ids.get(word)
        if place is None:
            return self._unknown + SPELLING_LETTER * len(word)
        first, second = (self._ids.get(w, -1) if w else START for w in (earlier, before))
        chance = float(self._alone[place])
        if second >= 0:
            chance = self._two.chance(second, place, chance)
            if first >= 0:
                chance = self._three.chance(first * self._size + second, place, chance)
        return math.log(chance)

    def _ahead(self, part: str) -> float:
        """The best any word that begins with `part` can score by itself: what a search may hope for."""
        first, last = bisect_left(self.words, part), bisect_left(self.words, part + "{")  # the sign after z
        unknown = self._unknown + SPELLING_LETTER * len(part) - DOUBT
        return max(unknown, float(self._log_alone[first + 1 : last + 1].max())) if last > first else unknown

    @classmethod
    def count(cls, texts: Iterable[str], others: Iterable[str] = ()) -> Trigrams:
        """From texts of lower-case words; `others` are words that are known too."""
        said = [text.split() for text in texts]
        words = sorted({word for text in said for word in text} | set(others))
        ids = {word: number for number, word in enumerate(words, 1)}
        counts: dict[tuple[int, int, int], int] = {}
        for text in said:
            first = second = START
            for word in text:
                gram = (first, second, ids[word])
                counts[gram] = counts.get(gram, 0) + 1
                first, second = second, ids[word]
        grams = sorted(counts)
        return cls(words, np.array(grams, np.int64).reshape(-1, 3), np.array([counts[g] for g in grams], np.int64))

    def save(self, path: Path) -> None:
        """NumPy's .npz of words (UTF-8, a line each), grams and counts. The same counts give the same bytes."""
        words = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        np.savez_compressed(path, words=words, grams=self._grams.astype(np.int32), counts=self._counts.astype(np.int32))

    @classmethod
    def load(cls, data: bytes) -> Trigrams:
        """Raises `ValueError` where the bytes are not what `save` writes."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                words = file["words"].tobytes().decode().split("\n")
                return cls(words, file["grams"].astype(np.int64), file["counts"].astype(np.int64))
        except (KeyError, EOFError, ValueError, zipfile.BadZipFile) as problem:
            raise ValueError(f"not a file of word counts: {problem}") from problem


class _Level:
    """One order's counts by context: discounted, the rest handed down to the order below."""

    def __init__(self, keys: Ids, counts: Ids, size: int) -> None:
        """`keys`: context * size + word, in ascending order."""
        contexts, first = np.unique(keys // size, return_index=True)
        totals = np.add.reduceat(counts, first) if len(keys) else counts
        kinds = np.diff(np.append(first, len(keys)))
        self._size = size
        self._counts = dict(zip(keys.tolist(), counts.tolist(), strict=True))
        self._contexts = dict(
            zip(contexts.tolist(), zip(totals.tolist(), (DISCOUNT * kinds).tolist(), strict=True), strict=True)
        )

    def chance(self, context: int, word: int, below: float) -> float:
        found = self._contexts.get(context)
        if found is None:
            return below
        total, left = found
        count = self._counts.get(context * self._size + word, 0)
        return float((max(count - DISCOUNT, 0.0) + left * below) / total)

"""How sure it is that a recording does not say a given text: the judge of audits.

A reader that mishears noise must not accuse for that: in noise its best free reading beats every true text. So a text
is held against two kinds of others: the free reading, by how many nats the text is behind in its worst 0.4 s and for
each of its letters; and rivals of the same length, made of any words, which noise treats as it treats the text. A true
text stands out among them, a false one does not. How these count was fitted on one half of the speakers and measured
on the other (`python -m bench.verdicts`, docs/audits.md).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.ctc import Alphabet, LogProbs, greedy

Array = npt.NDArray[np.float64]

RIVALS: Final = 12
WORST_STEPS: Final = 10
"""Of 40 ms."""
FEW: Final = -1e20
"""Below it lies the log-likelihood of a text that the recording is too short for."""
CERTAIN: Final = 20.0
"""Log-odds of what cannot be."""
_NEVER: Final = -1e30

BIAS: Final = -6.605
WEIGHTS: Final = (1.977, 1.883, -0.234)
"""Of the numbers in `Evidence.numbers`, to log-odds that the text is wrong, were half of the texts wrong."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the log-probabilities of a recording say of a text."""

    worst: float
    """Nats by which the text is behind the best path in its worst 0.4 s."""
    behind: float
    """Nats by which the text is behind the likelier of the free readings, a letter."""
    rank: float
    """How far the text is above its rivals' mean, in their standard deviations."""

    def numbers(self) -> Array:
        rank = min(max(self.rank, -3.0), 8.0)
        return np.array([np.log1p(min(self.worst, 200.0)), np.log1p(min(self.behind, 200.0)), rank])

    @property
    def log_odds(self) -> float:
        return float(self.numbers() @ np.array(WEIGHTS) + BIAS)


def evidence(rows: LogProbs, text: str, reading: str, alphabet: Alphabet, words: Sequence[str]) -> Evidence | None:
    """`rows`: natural-log probabilities [T, V] of a recording; `reading`: its free reading as words; `words`: what
    rivals are made of. None where the text has letters that the alphabet lacks, or more than the recording has room
    for: it cannot be."""
    by_letter = "".join(letter.text for letter in greedy(rows, alphabet))
    try:
        told, *others = scores(rows, [text, by_letter, reading, *rivals(text, words)], alphabet)
    except ValueError:
        return None
    if told < FEW or not len(rows):
        return None
    rival = np.array([one for one in others[2:] if one > FEW])
    rank = (told - rival.mean()) / max(float(rival.std()), 0.5) if len(rival) else 8.0
    behind = max(0.0, max(others[:2]) - told)
    lost = rows.max(axis=1) - on_path(rows, text, alphabet)
    worst = float(np.convolve(lost, np.ones(WORST_STEPS)).max())
    return Evidence(worst, behind / max(len(text), len(by_letter), 1), float(rank))


def rivals(text: str, words: Sequence[str]) -> list[str]:
    """RIVALS texts of as many letters as `text`, the same each time; without words, of its own letters in disorder."""
    chance = random.Random(zlib.crc32(text.encode()))
    found = []
    for _ in range(RIVALS):
        rival = ""
        while words and len(rival) < len(text):
            rival = f"{rival} {chance.choice(words)}".strip()
        found.append((rival or "".join(chance.sample(text, len(text))))[: len(text)].strip())
    return found


def scores(rows: LogProbs, texts: Sequence[str], alphabet: Alphabet) -> list[float]:
    """`models.ctc.score` of several texts at once; FEW or less for one that the frames are too few to spell."""
    columns, jumps, ends = _lattices(texts, alphabet)
    count, width = columns.shape
    state = np.full((count, width + 2), _NEVER)
    state[:, 2] = 0.0
    before = np.full((count, width), _NEVER)
    for number, frame in enumerate(rows.astype(np.float64)):
        stay, step, jump = state[:, 2:], state[:, 1:-1], state[:, :-2] + jumps
        if number == 0:
            moved = np.where(np.arange(width) < 2, 0.0, _NEVER) + before * 0
        else:
            top = np.maximum(np.maximum(stay, step), jump)
            moved = top + np.log(np.exp(stay - top) + np.exp(step - top) + np.exp(jump - top))
        state[:, 2:] = moved + frame[columns]
    row = np.arange(count)
    last, letter = state[row, ends + 1], np.where(ends > 1, state[row, ends], _NEVER)
    return [float(one) for one in np.logaddexp(last, letter)]


def on_path(rows: LogProbs, text: str, alphabet: Alphabet) -> Array:
    """Log-probability of each frame [T] on the text's likeliest path."""
    columns, jumps, _ = _lattices([text], alphabet)
    chosen = rows[:, columns[0]].astype(np.float64)
    state = np.full(chosen.shape[1] + 2, _NEVER)
    state[2:4] = chosen[0, :2]
    back = np.zeros(chosen.shape, np.int64)
    for number in range(1, len(chosen)):
        options = np.stack([state[2:], state[1:-1], state[:-2] + jumps[0]])
        back[number] = options.argmax(axis=0)
        state[2:] = options.max(axis=0) + chosen[number]
    place = chosen.shape[1] - 1
    place -= int(place > 0 and state[place + 1] > state[place + 2])
    found = np.zeros(len(chosen))
    for number in range(len(chosen) - 1, -1, -1):
        found[number] = chosen[number, place]
        place -= int(back[number, place])
    return found


def _lattices(texts: Sequence[str], alphabet: Alphabet) -> tuple[npt.NDArray[np.int64], Array, npt.NDArray[np.int64]]:
    """Each text's columns with blanks around each, padded; 0 where the blank before a letter may be skipped, else
    _NEVER; how many columns each has."""
    encoded = [alphabet.encode(text) for text in texts]
    ends = np.array([2 * len(one) + 1 for one in encoded])
    columns = np.zeros((len(texts), int(ends.max())), np.int64)
    for row, one in zip(columns, encoded, strict=True):
        row[1 : 2 * len(one) + 1 : 2] = one
    jumps = np.full(columns.shape, _NEVER)
    jumps[:, 3::2][columns[:, 3::2] != columns[:, 1:-2:2]] = 0.0
    jumps[:, 2::2] = _NEVER
    return columns, jumps, ends

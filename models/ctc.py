"""Connectionist temporal classification, read: frame log-probabilities to text, and the likelihood of a given text.

Plain NumPy on arrays [T, V] of natural-log probabilities over an `Alphabet`; a frame is whatever the model's step is.
Source: Graves et al. 2006 (CTC); prefix search after Hannun et al. 2014 (arXiv 1408.2873).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float32]
Prefix = tuple[int, ...]
"""Columns of the letters so far."""

NEVER = -math.inf

PAUSE_STEPS = 10
"""Steps of blanks alone (0.4 s) that end a phrase."""
PHRASE_STEPS = 400
"""A phrase longer than this (16 s) is cut at its last blank, so that the search stays short."""

WordScore = Callable[[str, str], float]
"""Natural-log bonus (below zero: a penalty) for a word, second, after the word before it, or after "" at the start."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What the columns of a log-probability array mean: column 0 is blank, column i + 1 is `letters[i]`."""

    letters: str

    @property
    def size(self) -> int:
        return len(self.letters) + 1

    def encode(self, text: str) -> list[int]:
        """Columns of the text's letters. Raises `ValueError` at a letter that is not in the alphabet."""
        columns = []
        for letter in text:
            place = self.letters.find(letter)
            if place < 0:
                raise ValueError(f"letter {letter!r} of {text!r} is not in the alphabet {self.letters!r}")
            columns.append(place + 1)
        return columns

    def decode(self, columns: Sequence[int]) -> str:
        return "".join(self.letters[column - 1] for column in columns)


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter on the best path. `start`, `end`: frames, end exclusive; `log_prob`: the highest of those frames."""

    text: str
    start: int
    end: int
    log_prob: float


def greedy(log_probs: LogProbs, alphabet: Alphabet, first_frame: int = 0) -> list[Letter]:
    """The best symbol of every frame, repeats merged and blanks taken out. `first_frame` is added to every place."""
    if len(log_probs) == 0:
        return []
    best = log_probs.argmax(axis=1)
    edges = np.flatnonzero(np.diff(best)) + 1
    starts = np.concatenate(([0], edges))
    ends = np.concatenate((edges, [len(best)]))
    letters = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        column = int(best[start])
        if column != 0:
            peak = float(log_probs[start:end, column].max())
            letters.append(Letter(alphabet.letters[column - 1], first_frame + start, first_frame + end, peak))
    return letters


def phrase_ends(blank: npt.NDArray[np.bool_]) -> list[int]:
    """Steps at which phrases end, given where the best symbol is a blank: in pauses, or when a phrase grows too long.

    Depends on no step after the one that decides, so that a stream ends its phrases as a whole recording does.
    """
    ends = []
    begin = run = last_blank = 0
    for step, quiet in enumerate(blank.tolist()):
        run = run + 1 if quiet else 0
        last_blank = step if quiet else last_blank
        if run == PAUSE_STEPS:
            begin = step + 1 - PAUSE_STEPS // 2
        elif step - begin >= PHRASE_STEPS and last_blank > begin:
            begin = last_blank
        else:
            continue
        ends.append(begin)
        run = step + 1 - begin if quiet else 0
    return ends


def words_of(letters: Sequence[Letter]) -> list[list[Letter]]:
    """The letters between spaces; no empty words."""
    words: list[list[Letter]] = [[]]
    for letter in letters:
        if letter.text == " ":
            words.append([])
        else:
            words[-1].append(letter)
    return [word for word in words if word]


def beam_search(
    log_probs: LogProbs,
    alphabet: Alphabet,
    width: int = 16,
    *,
    floor: float = -7.0,
    word_score: WordScore | None = None,
) -> list[tuple[str, float]]:
    """The most likely texts over all their paths, best first, with their natural-log scores; at most `width`.

    Symbols below `floor` are not followed in their frame. With a `width` that never prunes, no floor and no
    `word_score` the scores are exact (`score`). Words that `word_score` judges end at a space or at the end.
    """
    space = alphabet.letters.find(" ") + 1
    beams: dict[Prefix, tuple[float, float]] = {(): (0.0, NEVER)}
    bonus: dict[Prefix, float] = {(): 0.0}
    for frame in log_probs.tolist():
        symbols = [column for column, step in enumerate(frame) if step >= floor] or [frame.index(max(frame))]
        grown: dict[Prefix, tuple[float, float]] = {}
        for prefix, (blank, letter) in beams.items():
            either = _log_add(blank, letter)
            for column in symbols:
                step = frame[column]
                if column == 0:
                    _add(grown, prefix, either + step, NEVER)
                elif prefix and column == prefix[-1]:
                    _add(grown, prefix, NEVER, letter + step)
                    _add(grown, (*prefix, column), NEVER, blank + step)
                else:
                    _add(grown, (*prefix, column), NEVER, either + step)
        for prefix in grown:
            if prefix not in bonus:
                bonus[prefix] = bonus[prefix[:-1]]
                if word_score is not None and prefix[-1] == space:
                    bonus[prefix] += _last_word_score(prefix[:-1], alphabet, word_score)
        beams = dict(sorted(grown.items(), key=lambda item: _log_add(*item[1]) + bonus[item[0]], reverse=True)[:width])
        bonus = {prefix: bonus[prefix] for prefix in beams}
    finished = []
    for prefix, pair in beams.items():
        last = _last_word_score(prefix, alphabet, word_score) if word_score is not None else 0.0
        finished.append((alphabet.decode(prefix), _log_add(*pair) + bonus[prefix] + last))
    return sorted(finished, key=lambda item: item[1], reverse=True)


def align(log_probs: LogProbs, text: str, alphabet: Alphabet, first_frame: int = 0) -> list[Letter]:
    """Where the text's letters are on its most likely path; empty where the frames are too few to spell it.

    `first_frame` is added to every place. Raises `ValueError` at a letter outside the alphabet.
    """
    columns, jumps = _lattice(text, alphabet)
    if len(log_probs) == 0 or len(columns) == 1:
        return []
    chosen = log_probs[:, columns].astype(np.float64)
    state = np.full(len(columns), NEVER)
    state[:2] = chosen[0, :2]
    back = np.zeros(chosen.shape, np.int8)
    for number in range(1, len(chosen)):
        options = np.full((3, len(columns)), NEVER)
        options[0], options[1, 1:] = state, state[:-1]
        options[2, 2:] = np.where(jumps[2:], state[:-2], NEVER)
        back[number] = options.argmax(axis=0)
        state = options.max(axis=0) + chosen[number]
    place = len(columns) - 1 if state[-1] > state[-2] else len(columns) - 2
    if state[place] == NEVER:
        return []
    path = [place]
    for number in range(len(chosen) - 1, 0, -1):
        path.append(path[-1] - int(back[number, path[-1]]))
    places = np.array(path[::-1])
    letters = []
    for index in range(1, len(columns), 2):
        frames = np.flatnonzero(places == index)
        start, end = int(frames[0]), int(frames[-1]) + 1
        peak = float(chosen[start:end, index].max())
        letters.append(Letter(text[index // 2], first_frame + start, first_frame + end, peak))
    return letters


def score(log_probs: LogProbs, text: str, alphabet: Alphabet) -> float:
    """Natural log of the probability that the frames spell exactly `text`: the sum over all paths, or -inf.

    The forward recursion over the text's letters with blanks between them; exact up to rounding. Raises `ValueError`
    at a letter outside the alphabet.
    """
    columns, jumps = _lattice(text, alphabet)
    state = np.full(len(columns), NEVER)
    state[0] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        for number, frame in enumerate(log_probs.astype(np.float64)):
            if number == 0:
                state[2:] = NEVER
                state[1:2] = 0.0
            else:
                moved = np.logaddexp(state[1:], state[:-1])
                skipped = np.where(jumps[2:], state[:-2], NEVER)
                moved[1:] = np.logaddexp(moved[1:], skipped)
                state[1:] = moved
            state = state + frame[columns]
    return float(np.logaddexp(state[-1], state[-2])) if len(columns) > 1 else float(state[0])


def _add(
    into: dict[tuple[int, ...], tuple[float, float]], prefix: tuple[int, ...], blank: float, letter: float
) -> None:
    """Adds the chance of paths that end in a blank, and in the prefix's last letter, to what is there."""
    if blank > NEVER or letter > NEVER:
        old = into.get(prefix, (NEVER, NEVER))
        into[prefix] = (_log_add(old[0], blank), _log_add(old[1], letter))


def _log_add(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))


def _lattice(text: str, alphabet: Alphabet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The text's columns with blanks around each, and where the blank before a letter may be skipped."""
    columns = np.zeros(2 * len(text) + 1, np.int64)
    columns[1::2] = alphabet.encode(text)
    jumps = np.zeros(len(columns), np.bool_)
    jumps[3::2] = columns[3::2] != columns[1:-2:2]
    return columns, jumps


def _last_word_score(prefix: Prefix, alphabet: Alphabet, word_score: WordScore) -> float:
    before, word = ["", *alphabet.decode(prefix).split(" ")][-2:]
    return word_score(before, word) if word else 0.0

"""Connectionist temporal classification, read: frame log-probabilities to text, and the likelihood of a given text.

Plain NumPy on arrays [T, V] of natural-log probabilities over an `Alphabet`; a frame is whatever the model's step is.
Source: Graves et al. 2006 (CTC); prefix search after Hannun et al. 2014 (arXiv 1408.2873).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float32]
NEVER = -math.inf

PAUSE_STEPS = 10
"""Steps of blanks alone (0.4 s) that end a phrase."""
PHRASE_STEPS = 400
"""A phrase longer than this (16 s) is cut at its last blank, so that the search stays short."""


class Judge(Protocol):
    """Natural-log bonuses (below zero: penalties) for words, as they would be said after others."""

    def word(self, earlier: str, before: str, word: str) -> float:
        """For a whole word after two others, each "" where the text had not begun."""
        ...

    def ahead(self, part: str) -> float:
        """What a word that begins with `part` may hope for, so that good words survive until they end; no more than
        what words that begin with less of it may."""
        ...


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


class _Beam:
    """A prefix that is followed: its last letter behind a shorter one, and the chances of its paths so far, which end
    in a blank or in that letter, bonuses for its words and the hope for the one begun included."""

    __slots__ = (
        "blank",
        "column",
        "earlier",
        "factors",
        "frame",
        "hope",
        "letter",
        "longer",
        "text",
        "word",
        "word_before",
    )

    def __init__(self, column: int, text: str, earlier: str, word_before: str, word: str, hope: float) -> None:
        self.column, self.text = column, text
        self.earlier, self.word_before, self.word, self.hope = earlier, word_before, word, hope
        self.blank = self.letter = 0.0
        self.factors: dict[int, float] = {}
        """What a letter more multiplies chances by, by column."""
        self.longer: dict[int, _Beam] | None = None
        """Those that were followed with one letter more."""
        self.frame = -1
        """The last frame in which it was followed."""


def beam_search(
    log_probs: LogProbs,
    alphabet: Alphabet,
    width: int = 16,
    *,
    floor: float = -7.0,
    judge: Judge | None = None,
) -> list[tuple[str, float]]:
    """The most likely texts over all their paths, best first, with their natural-log scores; at most `width`.

    Symbols below `floor` are not followed in their frame. With a `width` that never prunes, no floor and no
    `judge` the scores are exact (`score`). Words that `judge` weighs end at a space or at the end.

    Prefixes are a tree, and chances plain numbers scaled once a frame; objects are made only of what
    survives a frame (six times quicker than tuples and logarithms, with the same texts).
    """
    least, scale, space = math.exp(floor), 0.0, alphabet.letters.find(" ") + 1
    start = _Beam(-1, "", "", "", "", 0.0)
    start.blank = 1.0
    beams = [start]
    for number, frame in enumerate(np.exp(log_probs.astype(np.float64)).tolist()):
        heard = [step if step >= least else 0.0 for step in frame]
        if not any(heard):
            heard[frame.index(max(frame))] = max(frame)
        quiet, letters = heard[0], [(column, step) for column, step in enumerate(heard) if step and column]
        chances, origins = [], []
        for beam in beams:
            beam.frame = number
        ends = [(beam, beam.blank, beam.letter) for beam in beams]
        for beam, blank, letter in ends:
            beam.blank, beam.letter = (blank + letter) * quiet, letter * heard[beam.column] if letter else 0.0
        # With that many better ones at hand, what is less likely than these cannot survive.
        lowest = min([beam.blank + beam.letter for beam in beams]) if len(beams) == width else 0.0
        for beam, blank, letter in ends:
            either, last, longer, factors = blank + letter, beam.column, beam.longer, beam.factors
            begun = bool(beam.word)
            for column, step in letters:
                chance = (blank if column == last else either) * step
                known = longer.get(column) if longer else None
                alive = known is not None and known.frame == number
                if chance <= lowest and begun and column != space and not alive:
                    continue  # hope only shrinks within a word, so it could not survive whatever it is
                if judge is not None:
                    factor = factors.get(column)
                    if factor is None:
                        factor = factors[column] = _factor(beam, alphabet.letters[column - 1], judge)
                    chance *= factor
                if known is not None and alive:
                    known.letter += chance
                elif chance > lowest:
                    chances.append(chance)
                    origins.append((beam, column))
        totals = [beam.blank + beam.letter for beam in beams] + chances
        best = sorted(range(len(totals)), key=totals.__getitem__, reverse=True)[:width]
        most, old = totals[best[0]], len(beams)
        scale += math.log(most)
        followed = []
        for place in best:
            if place < old:
                if not totals[place]:
                    continue
                beam = beams[place]
                beam.blank, beam.letter = beam.blank / most, beam.letter / most
            else:
                beam = _longer(*origins[place - old], alphabet, judge)
                beam.letter = totals[place] / most
            followed.append(beam)
        beams = followed
    finished = []
    for beam in beams:
        bonus = judge.word(beam.earlier, beam.word_before, beam.word) - beam.hope if judge and beam.word else 0.0
        finished.append((beam.text, math.log(beam.blank + beam.letter) + scale + bonus))
    return sorted(finished, key=lambda item: item[1], reverse=True)


def _factor(beam: _Beam, letter: str, judge: Judge) -> float:
    """What the chances are multiplied by when the prefix grows by the letter."""
    if letter != " ":
        return math.exp(judge.ahead(beam.word + letter) - beam.hope)
    return math.exp(judge.word(beam.earlier, beam.word_before, beam.word) - beam.hope) if beam.word else 1.0


def _longer(before: _Beam, column: int, alphabet: Alphabet, judge: Judge | None) -> _Beam:
    """The prefix with one letter more."""
    letter = alphabet.letters[column - 1]
    text = before.text + letter
    if letter == " ":
        earlier, last = (before.word_before, before.word) if before.word else (before.earlier, before.word_before)
        beam = _Beam(column, text, earlier, last, "", 0.0)
    else:
        word = before.word + letter
        beam = _Beam(column, text, before.earlier, before.word_before, word, judge.ahead(word) if judge else 0.0)
    if before.longer is None:
        before.longer = {}
    before.longer[column] = beam
    return beam


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


def _lattice(text: str, alphabet: Alphabet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The text's columns with blanks around each, and where the blank before a letter may be skipped."""
    columns = np.zeros(2 * len(text) + 1, np.int64)
    columns[1::2] = alphabet.encode(text)
    jumps = np.zeros(len(columns), np.bool_)
    jumps[3::2] = columns[3::2] != columns[1:-2:2]
    return columns, jumps

"""What answers were worth: each request's answer with the cache held against its own answer past the cache.

A request and its control are a pair, sent by the same process, so that all sums here are of whole pairs and add up over
processes and machines. Answers that are not equal byte for byte wait in a file until nothing more is sent, because
comparing sounds takes milliseconds. Transcripts are kept as digests under a key that only the recording gives, so that
a report tells equal from different and nothing else: of those that models made, and of those that were lent from
another recording's answer (replay_quality says which of these were wrong).
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.replay_compare import DIFFERENT, EQUAL, compare

WORST: Final = 20
"""Pairs of answers that are listed."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Of each request of a process, in the order in which they are sent."""

    past: npt.NDArray[np.bool_]
    """Whether it goes past the cache, as a control."""
    pair: npt.NDArray[np.int64]
    """The number that it shares with its control or what it controls; -1 where there is none."""
    until_s: npt.NDArray[np.float64]
    """When its round is over, from the beginning."""

    def __getitem__(self, which: npt.NDArray[Any]) -> Pairing:
        return Pairing(self.past[which], self.pair[which], self.until_s[which])


@dataclass(frozen=True, slots=True)
class Kin:
    """Which of the things that can be asked for say the same words."""

    lead: Sequence[int]
    """Of each the first that says its words."""
    noisy: Sequence[bool]
    """Of each whether it is a recording with noise added."""


@dataclass(slots=True)
class Pairs:
    """Sums over pairs: how the cache answered against how the models did. Times are from when each was due."""

    pairs: int = 0
    with_us: int = 0
    past_us: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Pairs) -> None:
        self.pairs += other.pairs
        self.with_us += other.with_us
        self.past_us += other.past_us
        self.verdicts += other.verdicts


@dataclass(frozen=True, slots=True)
class Unequal:
    """A pair of answers that were not the same."""

    ask: int
    status: str
    verdict: str
    distance: float | None
    """As `replay_compare` says; None where the lengths differ."""


@dataclass(slots=True)
class Judged:
    """What one process found."""

    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Answers of the load by what was asked for and status."""
    made: set[tuple[int, str]] = field(default_factory=set)
    """Transcripts that models made of recordings without added noise: the lead of the words, and their digest."""
    lent: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Transcripts of fuzzy hits: what was asked for, and the digest, with how often."""
    pairs: dict[tuple[str, str], Pairs] = field(default_factory=dict)
    """By task and status of the answer with the cache."""
    unequal: list[Unequal] = field(default_factory=list)
    """The WORST of them."""
    unpaired: int = 0
    """Answers whose other half failed, or was not sent before the replay was cut short."""
    spilled: int = 0
    """Controls that were answered after their round and the rest behind it: the engines did not bear the rate."""


@dataclass(frozen=True, slots=True)
class _Half:
    ask: int
    status: str
    took_us: int
    answer: bytes


class Judge:
    """Of one process. Not safe between threads."""

    def __init__(self, tasks: Sequence[str], kin: Kin, requests: Sequence[bytes], pairing: Pairing) -> None:
        """`tasks`, `requests`: of each thing that can be asked for."""
        self._tasks, self._kin, self._requests = tasks, kin, requests
        self._pair, self._past, self._until_s = (
            column.tolist() for column in (pairing.pair, pairing.past, pairing.until_s)
        )
        self._waiting: dict[int, _Half] = {}
        self._judged = Judged()
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as this object

    def answered(self, number: int, ask: int, status: str, took_us: int, done_s: float, answer: bytes) -> None:
        """`number`: of the request in the pairing. `done_s`: from the beginning. `answer`: the sound, or the words."""
        past, judged = self._past[number], self._judged
        self.heard(ask, status, answer)
        if status == "HIT_FUZZY" and self._tasks[ask] == "recognize":
            judged.lent[ask, words_digest(answer.decode(), self._requests[self._kin.lead[ask]])] += 1
        if past:
            judged.spilled += done_s > self._until_s[number]
        else:
            judged.outcomes[ask, status] += 1
        pair = self._pair[number]
        if pair < 0:
            return
        half = _Half(ask, status, took_us, answer)
        other = self._waiting.pop(pair, None)
        if other is None:
            self._waiting[pair] = half
        elif past:
            self._add(other, half)
        else:  # a control may be quicker than what it controls
            self._add(half, other)

    def heard(self, ask: int, status: str, answer: bytes) -> None:
        """Remembers what models made of recordings; of the warm-up too."""
        made_now = not status.startswith("HIT") and self._tasks[ask] == "recognize"
        if made_now and not self._kin.noisy[ask]:
            lead = self._kin.lead[ask]
            self._judged.made.add((lead, words_digest(answer.decode(), self._requests[lead])))

    def _add(self, ours: _Half, theirs: _Half) -> None:
        found = self._judged.pairs.setdefault((self._tasks[ours.ask], ours.status), Pairs())
        found.pairs += 1
        found.with_us += ours.took_us
        found.past_us += theirs.took_us
        if ours.answer == theirs.answer:
            found.verdicts[EQUAL] += 1
        else:
            pickle.dump((ours, theirs.answer), self._spool)

    def result(self) -> Judged:
        """Compares what is left to compare. To be called once, at the end."""
        judged = self._judged
        judged.unpaired = len(self._waiting)
        self._spool.seek(0)
        while True:
            try:
                ours, theirs = pickle.load(self._spool)
            except EOFError:
                break
            task = self._tasks[ours.ask]
            verdict, distance = compare(task, ours.answer, theirs)
            judged.pairs[task, ours.status].verdicts[verdict] += 1
            judged.unequal = worst([*judged.unequal, Unequal(ours.ask, ours.status, verdict, distance)])
        self._spool.close()
        return judged


def worst(found: Sequence[Unequal]) -> list[Unequal]:
    """The WORST of them, the worst first: those of other lengths, then by distance, each thing asked for once."""

    def badness(pair: Unequal) -> tuple[bool, float]:
        return pair.verdict == DIFFERENT, np.inf if pair.distance is None else pair.distance

    ranked = sorted(found, key=badness, reverse=True)
    firsts = {(pair.ask, pair.status): pair for pair in reversed(ranked)}
    return sorted(firsts.values(), key=badness, reverse=True)[:WORST]


def words_digest(transcript: str, secret: bytes) -> str:
    """Of a transcript's words, whatever their case and what is between them. `secret`: the request of the recording."""
    letters = "".join(letter if letter.isalnum() or letter == "'" else " " for letter in transcript.casefold())
    key = hashlib.blake2b(secret, digest_size=32).digest()
    return hashlib.blake2b(" ".join(letters.split()).encode(), key=key, digest_size=8).hexdigest()

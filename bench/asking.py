"""The measuring itself: enrol everything, ask with copies, compare with all that differs, and note what came of it.

One part of it runs in each process; whatever is drawn at random depends on the seed and on a query's own number, so the
parts together are the same however many there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from bench import rooms
from bench.baselines import HK_THRESHOLD, alike, digest, signature
from bench.clips import Choice, Clip, read_folder, windows
from bench.codecs import RATE
from bench.distort import Surroundings, copy_of, possible
from bench.exhaustive import Everything, Flags, every_frame, whole
from bench.judge import Query, hear, judge, kept, score, speech_seconds
from bench.swaps import ADDED, Confusable, Pair
from gateway.fingerprint.bits import MAX_S, MIN_ACTIVE_S
from gateway.fingerprint.index import RecallIndex
from models.utterance import Samples

WORD_S: Final = 1.6
"""Seconds up to which a clip counts as a word."""
NOWHERE: Final = math.nan


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure with, and how much of it."""

    speech: Path
    noise: Path
    rir: Path | None
    choice: Choice
    seed: int
    pairs: int
    """Comparisons of words with words of another text."""
    queries: int
    """Copies of longer speech."""
    windows: int
    """Stretches of longer speech that are stored, and asked for, besides."""
    swaps: int
    baseline_every: int
    """Baselines and the nearest wrong recordings are measured in every so-manieth round of all conditions."""
    parts: int = 1


@dataclass(slots=True)
class Asked:
    """One copy of one recording, and what came of asking with it."""

    group: str
    condition: str
    kind: str
    speaker: str
    told: tuple[tuple[str, str], ...]
    speech_s: float
    """Seconds of speech of the recording."""
    exact: bool = False
    """The samples are those of the recording."""
    candidate: bool = False
    judged: bool = False
    known: bool = False
    """The whole lookup found the recording, or another of the same text."""
    mistaken: bool = False
    """It found one of another text."""
    score: float = NOWHERE
    """How unlike its own recording, and how unlike the nearest wrong one, by `bench.judge.score`."""
    wrong_score: float = NOWHERE
    compared: int = 0
    passed_first: int = 0
    judged_fully: int = 0
    false: list[tuple[str, str]] = field(default_factory=list)
    """(path asked, path stored) of each accepted recording of another text."""
    crossed: int = 0
    """Comparisons of a word with longer speech, or the other way round, and what was accepted of them."""
    crossed_false: list[tuple[str, str]] = field(default_factory=list)
    hear_ms: float = NOWHERE
    lookup_ms: float = NOWHERE
    seconds: float = 0.0
    baselines: bool = False
    classic: float = NOWHERE
    """Haitsma and Kalker's distance to its own recording, and to the nearest wrong one."""
    classic_wrong: float = NOWHERE
    classic_false: int = 0
    mel: float = NOWHERE
    """MinHash similarity to its own recording, and to the likest wrong one."""
    mel_wrong: float = NOWHERE


@dataclass(slots=True)
class Tried:
    """One pair made to be confused."""

    about: tuple[str, ...]
    speaker: str
    accepted: bool
    same_accepted: bool | None = None
    classic: bool = False


class Pool:
    """Everything stored of one group: fingerprints of all clips, the first `enrolled` of them in an index too."""

    def __init__(self, clips: Sequence[Clip], heard: Sequence[Query | None], enrolled: int) -> None:
        self.clips = clips
        self.rows = [place for place, query in enumerate(heard) if query is not None]
        self.row = {place: row for row, place in enumerate(self.rows)}
        self.prints = [kept(query) for query in heard if query is not None]
        self.everything = Everything(self.prints)
        self.classic = Everything(self.prints, whole, HK_THRESHOLD, every_frame)
        self.signatures = np.stack([signature(clips[place].samples) for place in self.rows])
        self.index = RecallIndex(max(1, enrolled))
        for place in self.rows:
            if place < enrolled and (query := heard[place]) is not None:
                self.index.add(place.to_bytes(4, "big"), query)
        self.exact = {digest(clip.samples) for clip in clips[:enrolled]}
        names = {name: number for number, name in enumerate({c.text for c in clips} | {c.path for c in clips})}
        self._names = names
        told = [clips[place] for place in self.rows]
        self._texts = np.array([names[clip.text] for clip in told])
        self._paths = np.array([names[clip.path] for clip in told])
        self._starts, self._ends = np.array([c.start for c in told]), np.array([c.end for c in told])

    def differing(self, clip: Clip) -> Flags:
        """Which stored rows say something else: `Clip.differs` for all at once."""
        apart = (self._ends <= clip.start) | (self._starts >= clip.end)
        same = self._paths == self._names[clip.path]
        return np.where(same, apart, self._texts != self._names[clip.text])

    def comparisons(self) -> float:
        """Stored rows of another text, for a clip of this pool as they come on average, refused ones counted."""
        shares = np.unique(self._texts, return_counts=True)[1] / len(self._texts)
        return len(self.rows) * (1 - float(np.sum(shares**2))) * len(self.rows) / len(self.clips)


def measure(plan: Plan, part: int) -> tuple[list[Asked], list[Tried]]:
    """The `part`-th of `plan.parts` parts of everything; shows its progress where it is the first."""
    clips, noises = read_folder(plan.speech, plan.choice, False), read_folder(plan.noise, plan.choice, True)
    around = Surroundings([clip.samples for clip in noises], rooms.measured(plan.rir) if plan.rir else ())
    words = [clip for clip in clips if clip.seconds <= WORD_S]
    speech = [clip for clip in clips if clip.seconds > WORD_S]
    asked: list[Asked] = []
    cut = windows(speech, plan.windows, np.random.default_rng([plan.seed, 9]))
    short, long = _stored(words, len(words)), _stored([*speech, *cut], len(speech))
    if short is None and long is None:
        raise ValueError(f"{plan.speech}: no recording of {MIN_ACTIVE_S} s of speech or more, and {MAX_S} s at most")
    if short is not None:
        count = min(math.ceil(plan.pairs / max(short.comparisons(), 1.0)), len(words) * len(possible(around)))
        asked += _ask(plan, part, "words", short, long, range(len(words)), count, around)
    if long is not None:
        asked += _ask(plan, part, "speech", long, short, range(len(speech)), plan.queries, around)
        places = range(len(speech), len(long.clips))
        asked += _ask(plan, part, "windows", long, short, places, len(cut), around)
    return asked, list(_try(plan, part, Confusable(words, speech, around, plan.seed)))


def _stored(clips: Sequence[Clip], enrolled: int) -> Pool | None:
    """None where nothing has a fingerprint, so that nothing could be found."""
    heard = [hear(clip.samples) for clip in clips]
    return Pool(clips, heard, enrolled) if any(query is not None for query in heard) else None


def _ask(
    plan: Plan, part: int, group: str, pool: Pool, others: Pool | None, places: range, count: int, around: Surroundings
) -> Iterator[Asked]:
    """Copies of the clips at `places`, each in turn and all conditions as often: `count` of them in all parts."""
    conditions = possible(around)
    orders: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
    seed = [plan.seed, ("words", "speech", "windows").index(group)]
    speech: dict[int, float] = {}
    progress = tqdm(range(part, count, plan.parts), desc=group, unit="query", disable=part > 0, mininterval=2)
    pairs = 0
    for number in progress:
        turn, at = divmod(number, len(places))
        if turn not in orders:
            orders[turn] = np.random.default_rng([*seed, 0, turn]).permutation(len(places))
        place = places[int(orders[turn][at])]
        clip = pool.clips[place]
        if place not in speech:
            speech[place] = speech_seconds(clip.samples)
        one = Asked(group, conditions[number % len(conditions)].name, clip.kind, clip.speaker, clip.told, speech[place])
        one.baselines = number // len(conditions) % plan.baseline_every == 0
        copy = copy_of(clip.samples, one.condition, around, np.random.default_rng([*seed, 1, number]))
        one.seconds = len(copy) / RATE
        start = time.process_time()
        query = hear(copy)
        one.hear_ms = 1000 * (time.process_time() - start)
        one.exact = digest(copy) in pool.exact
        if query is not None:
            if group != "windows":
                _look_up(one, pool, place, query)
            _compare(one, pool, place, query, copy)
            if one.baselines and others is not None:
                _cross(one, clip, others, query)
        pairs += one.compared
        if progress.format_dict["elapsed"]:
            progress.set_postfix_str(f"{pairs / 1e6 / progress.format_dict['elapsed']:.2f} M pairs/s", refresh=False)
        yield one


def _look_up(one: Asked, pool: Pool, place: int, query: Query) -> None:
    clip = pool.clips[place]
    start = time.process_time()
    found = pool.index.lookup(query)
    one.lookup_ms = 1000 * (time.process_time() - start)
    if found is not None:
        one.known = pool.clips[int.from_bytes(found.id, "big")].text == clip.text
        one.mistaken = not one.known
    one.candidate = any(int.from_bytes(c.id, "big") == place for c in pool.index.candidates(query))


def _compare(one: Asked, pool: Pool, place: int, query: Query, copy: Samples) -> None:
    """With its own recording, and with every stored one that says something else."""
    look = pool.differing(pool.clips[place])
    row = pool.row.get(place)
    if row is not None:
        verdict = judge(query, pool.prints[row])
        one.judged, one.score = verdict.accepted, score(verdict)
    one.compared = int(np.count_nonzero(look))
    accepted, one.passed_first, one.judged_fully = pool.everything.accepted(query, look)
    one.false = [(pool.clips[place].path, pool.clips[pool.rows[wrong]].path) for wrong in accepted]
    if not one.baselines or not one.compared:
        return
    nearest, _ = pool.everything.nearest(query, look)
    one.wrong_score = score(judge(query, pool.prints[nearest])) if nearest >= 0 else NOWHERE
    one.classic_false = len(pool.classic.near(query, look))
    one.classic_wrong = pool.classic.nearest(query, look)[1]
    similar = alike(signature(copy), pool.signatures)
    one.mel_wrong = float(similar[look].max())
    if row is not None:
        one.classic, one.mel = pool.classic.distance(query, row), float(similar[row])


def _cross(one: Asked, clip: Clip, others: Pool, query: Query) -> None:
    """A word with all longer speech, or longer speech with all words: one may contain the other."""
    look = np.array([clip.text != others.clips[place].text for place in others.rows])
    one.crossed = int(np.count_nonzero(look))
    accepted, _, _ = others.everything.accepted(query, look)
    one.crossed_false = [(clip.path, others.clips[others.rows[wrong]].path) for wrong in accepted]


def _try(plan: Plan, part: int, confusable: Confusable) -> Iterator[Tried]:
    """All pairs made to be confused, the kind of trial first in what each is about."""
    if not confusable:
        return
    kinds = (
        ("one-word swaps", confusable.swap, plan.swaps),
        ("containment", confusable.containment, plan.swaps // 2),
        ("silence, tones, noise", confusable.nothing, plan.swaps // 2),
        (ADDED, confusable.added, plan.swaps // 2 if confusable.sentences else 0),
    )
    for kind, make, count in kinds:
        for number in tqdm(range(part, count, plan.parts), desc=kind, unit="pair", disable=part > 0, mininterval=2):
            tried = _tried(kind, make(number))
            if tried is not None:
                yield tried


def _tried(kind: str, pair: Pair) -> Tried | None:
    """None where one of both has no fingerprint although both should have: such a pair tells nothing."""
    source, query = hear(pair.stored), hear(pair.heard)
    tried = Tried((kind, *pair.about), pair.speaker, False)
    if source is None or query is None:
        return tried if source is not None and kind == "silence, tones, noise" else None
    stored = kept(source)
    tried.accepted = judge(query, stored).accepted
    everything = Everything([stored], whole, HK_THRESHOLD, every_frame)
    tried.classic = len(everything.near(query, np.ones(1, np.bool_))) > 0
    if pair.same is not None:
        same = hear(pair.same)
        tried.same_accepted = same is not None and judge(same, stored).accepted
    return tried

"""`refrain trace synth`: a trace that nobody recorded, for looking at reports and replays before there is traffic.

What is asked for comes from bench.speech_streams (a power law of phrases, sessions, drift, tides of topics), or from a
file of phrases; when, from a daily tide with bursts. A phrase is spoken in a voice and a mood, or heard: then a caller
may send the very same recording, a noisy copy of an earlier one, or say it anew. What became of each request is
simulated: two tiers of the gateway's own policy classes, a time to live, recall that finds noisy copies from some
similarity on, a new model on one day, a few callers that bypass or refresh. Times of answers are drawn, not measured: 1
ms from the first tier, 4 ms from the second, else what the answer costs and 3 ms more.

The same seed and options give the same trace.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.simulation import DEFAULT, POLICIES
from bench.speech_streams import SIZE_OF_ONE_SECOND, Stream, stream
from bench.trace_frames import NAMES, ROW, Rows
from gateway.cli import CommandError
from gateway.stats import (
    ABSENT,
    BYPASS,
    COALESCED,
    HIT_EXACT,
    HIT_FUZZY,
    MISS,
    NOT_LOOKED,
    SPARED,
    UNLIKE,
)  # fmt: skip

DAY_S: Final = 86_400
BEGIN_S: Final = 1_767_225_600
"""2026-01-01, midnight UTC."""
LETTERS_A_SECOND: Final = 14.0
MOODS: Final = 5
TEXT_AT_MOST: Final = 5_000
"""Bytes: smaller answers of the stream are transcripts, larger ones sound."""
ALIKE: Final = 0.8
"""Similarity from which recall finds a noisy copy."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a trace is like. Shares are from 0 to 1."""

    requests: int = 100_000
    days: float = 7.0
    tide: float = 0.8
    """How far the rate swings within a day: 0 not at all, 1 down to nothing at night."""
    bursts: int = 3
    """A day: a few minutes of five times the rate."""
    life_days: float = 20.0
    """For which a rank of the power law keeps its phrase."""
    voices: int = 6
    same: float = 0.5
    """Of what is heard: the very same recording as before."""
    noisy: float = 0.3
    """Of what is heard: an earlier recording, with noise. The rest is said anew."""
    bypass: float = 0.002
    refresh: float = 0.001
    new_model_day: float = 5.0
    """When a new voice model takes over; 0 for never."""
    ttl_days: float = 30.0
    first_tier: float = 0.05
    """Of the bytes of all distinct answers."""
    second_tier: float = 0.5
    policy: str = DEFAULT
    """Of both tiers."""


@dataclass(frozen=True)
class Asked:
    """What is asked for, request by request, before anything is known of answers."""

    phrase: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    """[k] of each phrase, as sound."""
    cost_ms: npt.NDArray[np.float64]
    """[k]"""
    heard: npt.NDArray[np.bool_]
    """[k] whether it is recognized, or else spoken."""
    rank: npt.NDArray[np.int64]
    """[k] how common it is, 0 the commonest: its place among the phrases from a file."""


@dataclass(frozen=True)
class Said:
    """Who says or wants what, request by request as they come in, before anything is known of answers; [n] each."""

    asked: Asked
    time_us: npt.NDArray[np.uint64]
    heard: npt.NDArray[np.bool_]
    voice: npt.NDArray[np.int64]
    mood: npt.NDArray[np.int64]
    version: npt.NDArray[np.bool_]
    """Whether the new model answers."""
    recording: npt.NDArray[np.int64]
    """Of the phrase; the number of the request that first sent it, counted from 1; 0 for text."""
    copied: npt.NDArray[np.int64]
    """Of which recording it is a noisy copy, else -1."""
    digest: npt.NDArray[np.uint64]


def said(shape: Shape, seed: int, phrases: Sequence[tuple[str, int]], rng: np.random.Generator) -> Said:
    """What the same shape and seed always make: a replay asks anew what it was. `rng`: fresh from the seed."""
    asked = _asked(shape, seed, phrases, rng)
    time_us = (_times(shape, rng) * 1e6).astype(np.uint64) + np.uint64(BEGIN_S * 1_000_000)
    heard = asked.heard[asked.phrase]
    voice, mood = _voices(shape, asked.phrase, heard, rng)
    day = (time_us / 1e6 - BEGIN_S) / DAY_S
    version = (day >= shape.new_model_day) & ~heard if shape.new_model_day else np.zeros(shape.requests, bool)
    recording, copied = _recordings(shape, asked.phrase, heard, rng)
    digest = _mixed(asked.phrase, recording, voice, mood, version)
    return Said(asked, time_us, heard, voice, mood, version, recording, copied, digest)


def synth(shape: Shape, seed: int, phrases: Sequence[tuple[str, int]] = ()) -> Rows:
    """The trace. `phrases`: text and count, the commonest first; counts of 0 leave their popularity to a power law."""
    rng = np.random.default_rng(seed)
    made = said(shape, seed, phrases, rng)
    asked, heard, voice, mood, version = made.asked, made.heard, made.voice, made.mood, made.version
    rows = np.zeros(shape.requests, ROW)
    rows["time_us"], rows["digest"] = made.time_us, made.digest
    rows["task"] = np.where(heard, NAMES["task"]["recognize"], NAMES["task"]["synthesize"])
    rows["input"] = _mixed(asked.phrase, made.recording)
    for name, values in (("voice", voice), ("emotion", mood)):
        rows[name] = np.where(heard, 0, _mixed(values, 1 if name == "voice" else 2) >> np.uint64(32))
    rows["engine"] = _mixed(heard, version, 3) >> np.uint64(32)
    rows["tenant"] = _mixed(asked.phrase % 10 == 0, 4) >> np.uint64(32)
    rows["language"] = _mixed(asked.phrase % 7 == 0, 5) >> np.uint64(32)
    seconds = asked.seconds[asked.phrase]
    spoken = (400 + SIZE_OF_ONE_SECOND * seconds).astype(np.uint32)
    rows["bytes_in"] = np.where(heard, 32_000 * seconds + 60, 30 + LETTERS_A_SECOND * seconds)
    rows["bytes_out"] = np.where(heard, 400 + 40 * seconds, spoken)
    rows["cost_ms"] = asked.cost_ms[asked.phrase]
    wish = rng.random(shape.requests)
    wishes = np.where(wish < shape.bypass, BYPASS, np.where(wish < shape.bypass + shape.refresh, NOT_LOOKED, 0))
    _Tiers(shape, rows).answer(rows, wishes, made.copied, rng)
    return rows


def _asked(shape: Shape, seed: int, phrases: Sequence[tuple[str, int]], rng: np.random.Generator) -> Asked:
    if any(count for _, count in phrases):
        shares = np.array([count for _, count in phrases], float)
        keys = rng.choice(len(phrases), shape.requests, p=shares / shares.sum())
        known = len(phrases)
        seconds, costs = np.zeros(known), np.zeros(known)
        heard = rng.random(known) < Stream().heard
    else:
        a_day = max(1, round(shape.requests / shape.days))
        made = stream(seed, Stream(requests=shape.requests, day=a_day, life=round(a_day * shape.life_days)))
        _, first, keys = np.unique(np.array(made.keys), return_index=True, return_inverse=True)
        sizes, costs = np.array(made.sizes)[first], np.array(made.costs)[first]
        heard = sizes < TEXT_AT_MOST
        seconds = np.where(heard, (sizes - 400) / 40, (sizes - 400) / SIZE_OF_ONE_SECOND)
        known = len(sizes)
    ranked = np.argsort(-np.bincount(keys, minlength=known), kind="stable")
    for rank, key in enumerate(ranked[: len(phrases)].tolist()):
        seconds[key] = len(phrases[rank][0]) / LETTERS_A_SECOND
        costs[key] = 30.0 * seconds[key]
    place = np.empty(known, np.int64)
    place[ranked] = np.arange(known)
    return Asked(keys, seconds, costs, heard, place)


def _times(shape: Shape, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Seconds since the beginning, rising: Poisson arrivals at a rate that swings with the day."""
    minutes = np.arange(round(shape.days * 1440) + 1)
    rate = 1 - shape.tide * np.cos(2 * np.pi * minutes / 1440)
    for begun in rng.integers(0, len(minutes), round(shape.bursts * shape.days)).tolist():
        rate[begun : begun + int(rng.integers(3, 20))] *= 5
    expected = np.concatenate([[0.0], np.cumsum(rate)])
    arrivals = np.cumsum(rng.exponential(1.0, shape.requests))
    found: npt.NDArray[np.float64] = np.interp(
        arrivals / arrivals[-1] * expected[-1], expected, np.arange(len(expected)) * 60.0
    )
    return found


def _voices(
    shape: Shape, phrase: npt.NDArray[np.int64], heard: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A phrase has its application's voice and mood nine times of ten."""
    count = len(phrase)
    usual_voice, usual_mood = phrase % 11 % shape.voices, phrase % 13 % 17 % MOODS
    voice = np.where(rng.random(count) < 0.9, usual_voice, rng.integers(0, shape.voices, count))
    mood = np.where(rng.random(count) < 0.9, usual_mood, rng.integers(0, MOODS, count))
    return np.where(heard, -1, voice), np.where(heard, -1, mood)


def _recordings(
    shape: Shape, phrase: npt.NDArray[np.int64], heard: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """[n] which recording of the phrase each request sends, 0 for text; and of which it is a noisy copy, else -1."""
    lots, takes = rng.random(len(phrase)), rng.random(len(phrase))
    recording, copied = np.zeros(len(phrase), np.int64), np.full(len(phrase), -1, np.int64)
    known: dict[int, list[int]] = {}
    for at in np.flatnonzero(heard).tolist():
        said = known.setdefault(int(phrase[at]), [])
        if said and lots[at] < shape.same + shape.noisy:
            old = said[int(takes[at] * len(said))]
            if lots[at] < shape.same:
                recording[at] = old
                continue
            copied[at] = old
        recording[at] = at + 1
        if copied[at] < 0:
            said.append(at + 1)
    return recording, copied


def _mixed(*columns: Any) -> npt.NDArray[np.uint64]:
    """A digest of some numbers, row by row: SplitMix64's finisher over their sum with odd factors."""
    with np.errstate(over="ignore"):
        x: npt.NDArray[np.uint64] = np.array(0x9E3779B97F4A7C15, np.uint64)
        for column in columns:
            x = (x ^ np.asarray(column).astype(np.int64).astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            x = x ^ (x >> np.uint64(29))
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


@dataclass
class _Tiers:
    """Two tiers of one policy, the second over the first, and what they hold since when."""

    shape: Shape
    rows: Rows
    stored: dict[int, float] = field(default_factory=dict)
    """When each digest's answer was made, ms."""

    def __post_init__(self) -> None:
        _, first = np.unique(self.rows["digest"], return_index=True)
        distinct = float(self.rows["bytes_out"][first].sum(dtype=np.uint64))
        make = POLICIES[self.shape.policy]
        self.first = make(max(1, round(distinct * self.shape.first_tier)))
        self.second = make(max(1, round(distinct * self.shape.second_tier)))

    def answer(
        self, rows: Rows, wishes: npt.NDArray[Any], copied: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> None:
        """Fills in what became of each request."""
        count = len(rows)
        alike = np.clip(1 - rng.gamma(4.0, 0.025, count), 0, 1)
        # Recording k was first sent by request k - 1.
        originals = rows["digest"][np.maximum(copied - 1, 0)].tolist()
        status, tier = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
        cause, similarity = np.zeros(count, np.uint8), np.zeros(count)
        spared = rng.random(count) < 0.99
        now = (rows["time_us"] / 1e3).tolist()
        columns = zip(
            rows["digest"].tolist(), rows["bytes_out"].tolist(), rows["cost_ms"].tolist(), wishes.tolist(), strict=True
        )
        for at, (digest, size, cost, wish) in enumerate(columns):
            if wish == BYPASS:
                status[at], cause[at] = BYPASS, NOT_LOOKED
                continue
            made = self.stored.get(digest)
            if wish == 0 and made is not None and now[at] - made < 0:
                status[at] = COALESCED
                continue
            found = self.look(digest, size, cost, now[at]) if wish == 0 else 0
            if found:
                status[at], tier[at], similarity[at] = HIT_EXACT, found, 1.0
                continue
            heard_before = copied[at] >= 0 and wish == 0 and self.has(originals[at], now[at])
            if heard_before and alike[at] >= ALIKE:
                status[at], tier[at], similarity[at] = HIT_FUZZY, 2, alike[at]
                continue
            recording = rows["voice"][at] == 0
            status[at] = MISS
            absent = SPARED if made is None and spared[at] else ABSENT
            cause[at] = NOT_LOOKED if wish else UNLIKE if recording else absent
            self.store(digest, size, cost, now[at] + cost)
        drawn = rng.lognormal(0, 0.35, count)
        hit = (status == HIT_EXACT) | (status == HIT_FUZZY)
        lookup = np.where(tier == 1, 0.02, np.where(cause == SPARED, 0.05, 1.0)) * drawn
        lookup[(status == HIT_FUZZY) | (cause == UNLIKE)] += 4.0
        latency = np.where(hit, np.where(tier == 1, 1.0, 4.0) * drawn, rows["cost_ms"] + 3.0 * drawn)
        rows["status"], rows["tier"], rows["cause"], rows["similarity"] = status, tier, cause, similarity
        rows["lookup_ms"] = np.where(status == BYPASS, 0.0, lookup)
        rows["latency_ms"] = latency
        rows["first_ms"] = latency
        rows["cost_ms"][status == COALESCED] = 0.0
        rows["input"][hit] = 0
        rows["time_us"] += (latency * 1e3).astype(np.uint64)
        rows.sort(order="time_us", kind="stable")

    def look(self, digest: int, size: int, cost: float, now: float) -> int:
        """The number of the tier that answers, 0 for none. An answer of the second is offered to the first."""
        if not self.has(digest, now):
            return 0
        if digest in self.first:
            self.first.touch(digest)
            return 1
        self.second.touch(digest)
        self.first.offer(digest, size, cost)
        return 2

    def has(self, digest: int, now: float) -> bool:
        made = self.stored.get(digest)
        return (
            made is not None
            and now - made < self.shape.ttl_days * DAY_S * 1e3
            and (digest in self.first or digest in self.second)
        )

    def store(self, digest: int, size: int, cost: float, made: float) -> None:
        self.stored[digest] = made
        self.second.offer(digest, size, cost)
        self.first.offer(digest, size, cost)


def read_phrases(path: Path) -> list[tuple[str, int]]:
    """Texts and counts: of a CSV with columns `text` and perhaps `count`, or of lines, then without counts.

    Raises `CommandError`.
    """
    try:
        if path.suffix != ".csv":
            return [(line, 0) for line in path.read_text("utf-8").splitlines() if line.strip()]
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [(row["text"], int(row.get("count") or 0)) for row in rows]
    except OSError as error:
        raise CommandError(f"--phrases {path}: {error.strerror}") from None
    except KeyError:
        raise CommandError(f"--phrases {path}: no column text; a CSV has the columns text and perhaps count") from None
    except ValueError as error:
        raise CommandError(f"--phrases {path}: {error}; allowed are lines, or CSV with text and count") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of `refrain trace synth`."""
    parser.add_argument("out", type=Path, help="*.rft.gz, *.parquet, *.csv or *.oracleGeneral")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--phrases", type=Path, metavar="FILE", help="lines, or CSV with text and count; else made up")
    for one in dataclasses.fields(Shape):
        kind = type(one.default)
        parser.add_argument(
            f"--{one.name.replace('_', '-')}", type=kind, default=one.default, metavar=kind.__name__[0].upper(),
            help="default %(default)s",
        )  # fmt: skip


def shape_of(arguments: argparse.Namespace) -> Shape:
    """Raises `CommandError` for what is out of range."""
    shape = Shape(**{one.name: getattr(arguments, one.name) for one in dataclasses.fields(Shape)})
    for name in ("tide", "same", "noisy", "bypass", "refresh", "first_tier", "second_tier"):
        if not 0 <= getattr(shape, name) <= 1:
            raise CommandError(f"--{name.replace('_', '-')} {getattr(shape, name):g}: allowed is 0 to 1")
    for name in ("requests", "days", "voices", "life_days", "ttl_days"):
        if not 0 < getattr(shape, name) < float("inf"):
            raise CommandError(f"--{name.replace('_', '-')} {getattr(shape, name):g}: it must be above 0")
    if shape.policy not in POLICIES:
        raise CommandError(f"--policy {shape.policy}: known are {', '.join(POLICIES)}")
    return shape


def pieces(rows: Rows, size: int = 1 << 17) -> Iterator[Rows]:
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))

"""Streams of requests as speech makes them, from a seed: a power law, sessions, drift and a tide; sizes and costs.

    python -m bench.speech_streams --seed 7 --requests 200000 --out stream.csv.gz

Callers come in sessions, several at a time. A turn of a session is, by lot, something never said before or again (a
name, a number), something said earlier in the same session, a phrase that all sessions share ("yes"), or one of the
session's topic; both kinds of phrases follow Zipf's law. Drift: each rank of the law is held by a phrase for `life`
requests, then by a new one. Tide: how many sessions begin in a topic rises and falls with a period of `day` requests,
each topic at its own hour. A phrase's size and cost are log-normal, drawn once.

The defaults are chosen after a stored log of 22,032 requests of spoken restaurant dialogues: 4,715 distinct phrases,
31.7 % of requests for the ten commonest and 59.9 % for the hundred commonest, exponent about 1.14.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from bench.policy_traces import Trace, write_trace
from gateway.arguments import new_file, whole

SIZE_OF_ONE_SECOND: Final = 54_000
"""Bytes of an answer that is a second of sound."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a stream is like. Lengths are in requests, shares from 0 to 1."""

    requests: int = 100_000
    exponent: float = 1.14
    shared: int = 300
    """Phrases that all sessions share."""
    topics: int = 12
    phrases: int = 1500
    """Phrases of one topic."""
    fresh: float = 0.1
    """Share of turns that are said once only."""
    again: float = 0.05
    """Share of turns that repeat one of the same session."""
    common: float = 0.65
    """Share of the other turns that are phrases of all sessions."""
    sessions: int = 40
    """Sessions at the same time."""
    turns: float = 8.0
    """Mean turns of a session."""
    life: int = 60_000
    """Requests for which a rank keeps its phrase; 0 for ever."""
    day: int = 25_000
    tide: float = 0.8
    """How far a topic's share of new sessions swings: 0 not at all, 1 down to none."""
    seconds: float = 1.8
    """Median length of a phrase as sound."""
    spread: float = 0.6
    """Standard deviation of the logarithm of sizes, and of the cost of a byte."""
    heard: float = 0.3
    """Share of phrases that are recognised and not spoken: small answers that cost as much."""


def _zipf(count: int, exponent: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    return np.asarray(np.cumsum(weights / weights.sum()))


def stream(seed: int, shape: Stream = Stream()) -> Trace:
    """The same stream for the same seed and shape, on any machine."""
    rng = np.random.default_rng(seed)
    count = shape.requests
    kind = rng.random(count)
    common = rng.random(count) < shape.common
    common_rank = np.searchsorted(_zipf(shape.shared, shape.exponent), rng.random(count))
    topic_rank = np.searchsorted(_zipf(shape.phrases, shape.exponent), rng.random(count))
    turn_of = rng.integers(shape.sessions, size=count)
    ends = rng.random(count) < 1 / shape.turns
    lots = rng.random((count, 2))
    # Ranks of all sessions first, then topic by topic; each begins its first phrase somewhere in its life.
    ranks = shape.shared + shape.topics * shape.phrases
    born = rng.random(ranks)

    hours = np.arange(shape.topics) / shape.topics
    said: list[list[int]] = [[] for _ in range(shape.sessions)]
    topic = [int(lot * shape.topics) for lot in rng.random(shape.sessions)]
    keys: list[int] = []
    names: dict[tuple[int, int], int] = {}
    fresh = 0
    for at in range(count):
        session = int(turn_of[at])
        mine = said[session]
        if kind[at] < shape.fresh:
            fresh += 1
            name = (-fresh, 0)
        elif kind[at] < shape.fresh + shape.again and mine:
            keys.append(mine[int(lots[at, 0] * len(mine))])
            continue
        else:
            rank = int(
                common_rank[at] if common[at] else shape.shared + topic[session] * shape.phrases + topic_rank[at]
            )
            name = (rank, int(at / shape.life + born[rank]) if shape.life else 0)
        key = names.setdefault(name, len(names))
        keys.append(key)
        mine.append(key)
        if ends[at]:
            mine.clear()
            share = 1 + shape.tide * np.cos(2 * np.pi * (at / shape.day + hours)) if shape.day else np.ones_like(hours)
            topic[session] = min(int(np.searchsorted(np.cumsum(share) / share.sum(), lots[at, 1])), shape.topics - 1)

    # A spoken second is so many bytes and costs some 30 ms; hearing it costs as much and leaves a line of text.
    seconds = shape.seconds * np.exp(shape.spread * rng.standard_normal(len(names)))
    costs = 30.0 * seconds * np.exp(shape.spread * rng.standard_normal(len(names)))
    sizes = np.where(rng.random(len(names)) < shape.heard, 400 + 40 * seconds, 400 + SIZE_OF_ONE_SECOND * seconds)
    at_key = np.asarray(keys)
    return Trace(f"stream {seed}", keys, sizes.astype(int)[at_key].tolist(), costs[at_key].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--out", type=new_file, required=True, help="CSV with key,size,cost_ms; .gz compresses it")
    for one in fields(Stream):
        kind = int if isinstance(one.default, int) else float
        parser.add_argument(f"--{one.name}", type=kind, default=one.default, metavar=kind.__name__.upper())
    options = vars(parser.parse_args())
    seed, out = options.pop("seed"), options.pop("out")
    write_trace(out, stream(seed, Stream(**options)))


if __name__ == "__main__":
    main()

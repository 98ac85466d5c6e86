"""How Redis should be told to forget: lfu-log-factor, lfu-decay-time and maxmemory-samples, on what L2 really sees.

    python -m bench.redis_lfu --json OUT [--requests N] [--seed S]

A stream of requests by Zipf's law, whose ranks drift, goes through a small LFU in front, as the device tier is. What
that misses goes to L2, and what it hits is told to L2 in batches, so counts there are low and heat comes late. Redis's
own rules (evict.c of Redis 7: logarithmic counts, decay by the minute, a sample and a pool of 16) are played by the
clock of the stream, since a real server's minutes can't be hurried; a real server, without decay, says whether they are
played right. Beside them an exact LFU of L2's size that sees every request and halves its counts once a day.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from bench.figures import Figure, Figures
from cache_tiers.embedded import _find_binary
from cache_tiers.fitness import LFU
from cache_tiers.policy.lfu import LfuPolicy
from gateway.arguments import new_file, whole

KEYS = 20_000
EXPONENT = 0.9
HOURS = 72.0
DRIFT = 0.01
"""Share of the keys that change places in an hour."""
IN_FRONT, BEHIND = 0.01, 0.1
"""Sizes of the two tiers, as shares of the keys."""
FACTORS, DECAYS, SAMPLES = (1, 10), (1, 60, 600, 1440, 0), (3, 5, 10)
HEAT_EVERY_S = 10.0
"""As gateway/app.py has it, which would take long to import."""
VALUE = bytes(1024)
GET, TOUCH = 0, 1


@dataclass(frozen=True, slots=True)
class Stream:
    """What comes to L2: keys, whether they are asked for or only told hot, and the minute."""

    keys: array[int]
    kinds: bytearray
    minutes: array[int]
    requests: int
    in_front: int
    """Requests answered before L2."""
    asked: np.ndarray
    """All requests' keys, for the exact LFU."""
    front: frozenset[int]
    """What is in front at the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=new_file, metavar="OUT")
    parser.add_argument("--requests", type=whole(1), default=300_000)
    parser.add_argument("--seed", type=whole(), default=1)
    arguments = parser.parse_args()
    figures = Figures({"keys": KEYS, "exponent": EXPONENT, "hours": HOURS, "drift": DRIFT, "seed": arguments.seed})
    stream = stream_behind(arguments.requests, arguments.seed)
    size = int(BEHIND * KEYS)
    ideal = exact(stream, size)
    figures.add(Figure("requests answered in front", stream.in_front / stream.requests, "share"))
    figures.add(Figure("exact LFU: requests answered", ideal, "share"))

    def play(factor: int, decay: int, samples: int) -> float:
        hits, _ = played(stream, size, factor, decay, samples)
        return (stream.in_front + hits) / stream.requests

    for tried in itertools.product(FACTORS, DECAYS):
        share = play(*tried, 5)
        name = "factor {}, decay {} min, 5 samples".format(*tried)
        figures.add(Figure(name, share, "share", baseline=ideal))
    factor, decay, samples = (int(LFU[name]) for name in ("lfu-log-factor", "lfu-decay-time", "maxmemory-samples"))
    for number in SAMPLES:
        share = play(factor, decay, number)
        figures.add(Figure(f"as shipped, {number} samples", share, "share", baseline=ideal))
    for heat in (True, False):
        hits, held = played(stream, size, factor, decay, samples, heat=heat)
        way = "as shipped" if heat else "as shipped, no heat flowing down"
        figures.add(Figure(way, (stream.in_front + hits) / stream.requests, "share", baseline=ideal))
        both = len(stream.front & held) / len(stream.front)
        figures.add(Figure(f"{way}: of what is in front, held behind too", both, "share"))
    real, room = on_redis(stream, factor, samples)
    same, _ = played(stream, room, factor, 0, samples, most=REAL_OPERATIONS)
    figures.add(Figure("a real server, no decay: gets answered", real, "share"))
    figures.add(Figure("the same played", same / gets_in(stream, REAL_OPERATIONS), "share", baseline=real))
    figures.write(arguments.json)


# ------------------------------------------------------------------------------------------------------ the stream


def stream_behind(requests: int, seed: int) -> Stream:
    rng = np.random.default_rng(seed)
    law = np.cumsum(np.arange(1, KEYS + 1) ** -EXPONENT)
    ranks = np.searchsorted(law / law[-1], rng.random(requests))
    places, asked = rng.permutation(KEYS), np.empty(requests, np.int64)
    for part in np.array_split(np.arange(requests), int(HOURS)):  # an hour each
        asked[part] = places[ranks[part]]
        moving = rng.choice(KEYS, int(DRIFT * KEYS), replace=False)
        places[moving] = places[rng.permutation(moving)]
    front: LfuPolicy[int] = LfuPolicy(int(IN_FRONT * KEYS))
    keys, kinds, minutes = array("q"), bytearray(), array("q")
    hot: dict[int, None] = {}
    in_front, told = 0, 0.0
    for number, key in enumerate(asked.tolist()):
        now = number / requests * HOURS * 3600
        minute = int(now // 60)
        if now - told >= HEAT_EVERY_S:
            told = now
            keys.extend(hot)
            kinds.extend([TOUCH] * len(hot))
            minutes.extend([minute] * len(hot))
            hot.clear()
        if key in front:
            front.touch(key)
            in_front += 1
            hot[key] = None
            continue
        front.offer(key, 1, 0.0)
        keys.append(key)
        kinds.append(GET)
        minutes.append(minute)
    return Stream(
        keys, kinds, minutes, requests, in_front, asked, frozenset(key for key in range(KEYS) if key in front)
    )


# ------------------------------------------------------------------------------------------------ the rules, played


def played(
    stream: Stream, size: int, factor: int, decay: int, samples: int, *, heat: bool = True, most: int | None = None
) -> tuple[int, frozenset[int]]:
    """Gets answered by Redis's rules for volatile-lfu, and the keys held at the end."""
    counts, since = [0] * KEYS, [0] * KEYS
    held: list[int] = []
    at = [-1] * KEYS  # where in `held`
    pool: list[tuple[int, int]] = []  # (count, key): the 16 seen with the least
    chance, pick = random.Random(2).random, random.Random(3).randrange
    hits = 0

    def count_now(key: int, minute: int) -> int:
        return max(0, counts[key] - (minute - since[key]) // decay) if decay else counts[key]

    for key, kind, minute in itertools.islice(zip(stream.keys, stream.kinds, stream.minutes, strict=True), most):
        if at[key] >= 0:
            if kind == TOUCH and not heat:
                continue
            hits += kind == GET
            count = count_now(key, minute)
            if count < 255 and chance() < 1 / (max(0, count - 5) * factor + 1):
                count += 1
            counts[key], since[key] = count, minute
        elif kind == GET:
            while len(held) >= size:
                for _ in range(samples):
                    candidate = held[pick(len(held))]
                    pool.append((count_now(candidate, minute), candidate))
                pool = sorted({candidate: count for count, candidate in pool}.items(), key=lambda item: item[1])[:16]
                pool = [(count, candidate) for candidate, count in pool]
                victim = next(candidate for _, candidate in pool if at[candidate] >= 0)
                pool = [item for item in pool if item[1] != victim and at[item[1]] >= 0]
                place, last = at[victim], held.pop()
                if last != victim:
                    held[place], at[last] = last, place
                at[victim] = -1
            at[key] = len(held)
            held.append(key)
            counts[key], since[key] = 5, minute
    return hits, frozenset(held)


def exact(stream: Stream, size: int) -> float:
    """Share of requests answered by an LFU of this size that sees each of them and halves its counts daily."""
    counts: dict[int, float] = {}
    held: set[int] = set()
    heap: list[tuple[float, int]] = []
    hits = 0
    for number, key in enumerate(stream.asked.tolist()):
        worth = 2.0 ** (number / stream.requests * HOURS / 24)  # a later one counts more, so none need be halved
        counts[key] = counts.get(key, 0.0) + worth
        if key in held:
            hits += 1
        else:
            if len(held) >= size:
                while True:
                    count, victim = heapq.heappop(heap)
                    if victim not in held:
                        continue
                    if count < counts[victim]:
                        heapq.heappush(heap, (counts[victim], victim))
                        continue
                    held.discard(victim)
                    break
            held.add(key)
            heapq.heappush(heap, (counts[key], key))
    return hits / stream.requests


# -------------------------------------------------------------------------------------------------- a real server

REAL_OPERATIONS = 60_000


def gets_in(stream: Stream, most: int) -> int:
    return stream.kinds[:most].count(GET)


def on_redis(stream: Stream, factor: int, samples: int) -> tuple[float, int]:
    """Share of the gets answered, and how many values it held at the end."""
    options: dict[str, str | int] = {"maxmemory-policy": "volatile-lfu", "lfu-log-factor": factor, "lfu-decay-time": 0}
    with redis_server(options | {"maxmemory-samples": samples}) as client:
        empty = client.info("memory")["used_memory"]
        client.config_set("maxmemory", empty + int(BEHIND * KEYS) * (len(VALUE) + 400))
        hits = 0
        for key, kind in itertools.islice(zip(stream.keys, stream.kinds, strict=True), REAL_OPERATIONS):
            if kind == TOUCH:
                client.touch(str(key))
            elif client.get(str(key)) is not None:
                hits += 1
            else:
                client.set(str(key), VALUE, ex=86_400)
        return hits / gets_in(stream, REAL_OPERATIONS), client.dbsize()


@contextmanager
def redis_server(options: dict[str, str | int]) -> Iterator[redis.Redis]:
    folder = Path(tempfile.mkdtemp(prefix="refrain-bench-"))
    binary, _ = _find_binary(folder)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [binary, "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(folder / "s"))
    try:
        while not (folder / "s").exists():
            time.sleep(0.01)
        yield client
    finally:
        client.close()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

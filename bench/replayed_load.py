"""What `bench.replayed` asks, and of whom: traces of real requests; gateways whose tiers are of a known size; a trace
asked one request after the other, by some callers at once with the cache and past it, or by `refrain replay`.

One after the other because then the order in which the gateway looks and stores is that of the trace, and a simulation
of it has to agree. By callers at once because a speed-up is of throughput, and the engines have as many workers as
there are cores.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import psutil
from tqdm import tqdm

from bench import fleet
from bench.broken_redis import RedisServer
from bench.open_loop import MESSAGE_OPTIONS
from bench.policy_traces import of_counts
from bench.processes import Gateway
from bench.replay_inputs import METHODS, Inputs, Item, sentence
from bench.replay_load import PAST, REPLIES
from bench.speech_streams import SIZE_OF_ONE_SECOND, Stream, stream
from bench.trace_synth import TEXT_AT_MOST, read_phrases
from cache_tiers.fitness import LFU

VOCODED: Final = 8
"""Of the spoken phrases of the stream, one in so many is asked for as a mel."""
CALLERS: Final = 4
"""Twice the cores of the machine that the figures are from: enough that its engines never wait for a caller."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A trace of real requests: things, and the order in which they are asked for."""

    name: str
    items: tuple[Item, ...]
    order: tuple[int, ...]

    @property
    def seen(self) -> list[int]:
        """The items that are asked for, by first appearance."""
        return list(dict.fromkeys(self.order))

    def cut(self, begin: int, end: int) -> Asked:
        return Asked(self.name, self.items, self.order[begin:end])


class Answer(NamedTuple):
    """What one request came to, as its caller saw it."""

    task: str
    status: int
    tier: str
    took_s: float
    entry: str
    """CacheInfo.entry_id."""
    size: int
    """Bytes of the message."""


def counted(path: Path, requests: int, seed: int) -> Asked:
    """Phrases as often as they were recorded, in random order; the first `requests` of that."""
    items = tuple(Item("synthesize", text) for text, _ in read_phrases(path))
    return Asked("phrase counts", items, tuple(of_counts(path, seed).keys[:requests]))


def restaurant(path: Path, requests: int, seed: int) -> Asked:
    """A stream of phrases that are heard, spoken or vocoded. What is short as sound has few words: of two phrases the
    shorter one gets the shorter text."""
    made = stream(seed, Stream(requests=requests))
    sizes = dict(zip(made.keys, made.sizes, strict=True))
    heard = {key: size < TEXT_AT_MOST for key, size in sizes.items()}
    seconds = {key: (size - 400) / (40 if heard[key] else SIZE_OF_ONE_SECOND) for key, size in sizes.items()}
    texts = list(dict.fromkeys(text for text, _ in read_phrases(path)))
    texts = sorted([*texts, *map(sentence, range(len(sizes) - len(texts)))], key=len)
    items: dict[int, Item] = {}
    for place, key in enumerate(sorted(sizes, key=seconds.__getitem__)):
        task = "recognize" if heard[key] else "synthesize" if key % VOCODED else "vocode"
        items[key] = Item(task, texts[place * len(texts) // len(sizes)])
    return Asked("restaurant-like", tuple(items[key] for key in range(len(items))), tuple(made.keys))


def one_by_one(target: str, asked: Asked, folder: Path, row: int = 0) -> list[Answer]:
    """Asks for all of it, each when the one before is answered. `folder` keeps what was spoken for it; `row` is that of
    the progress on the terminal. Raises `grpc.RpcError`."""

    def shown(values: Sequence[int], what: str) -> Iterable[int]:
        bar: Iterable[int] = tqdm(values, f"{asked.name}: {what}", position=row, leave=False, disable=None)
        return bar

    inputs, answers = Inputs(folder), []
    bodies = {at: inputs.request(asked.items[at]) for at in shown(asked.seen, "inputs")}
    with grpc.insecure_channel(target, options=MESSAGE_OPTIONS) as channel:
        calls = {task: channel.unary_unary(method, None, None) for task, method in METHODS.items()}
        for at in shown(asked.order, "requests"):
            task = asked.items[at].task
            begun = time.perf_counter()
            data = calls[task](bodies[at], timeout=120)
            took = time.perf_counter() - begun
            info = REPLIES[task].FromString(data).cache_info
            answers.append(Answer(task, info.status, info.tier, took, info.entry_id, len(data)))
    return answers


@dataclass(slots=True)
class House:
    """A gateway on a Redis of its own, both of a known size."""

    gateway: Gateway
    redis: RedisServer
    device_bytes: int
    """Of the first tier."""
    behind_bytes: int
    """Of the second, in bytes as the first counts them."""

    def busy_s(self) -> float:
        """Processor time of both so far."""
        times = [psutil.Process(one.process.pid).cpu_times() for one in (self.gateway, self.redis)]
        return sum(time.user + time.system for time in times)


@contextmanager
def house(folder: Path, name: str, device_bytes: int, behind_bytes: int, swell: float) -> Iterator[House]:
    """`swell`: bytes that Redis takes for a byte of answers. Zero sizes: no limit that matters."""
    redis = RedisServer(*(word for option, value in LFU.items() for word in (f"--{option}", value)))
    with ExitStack() as stack:
        stack.callback(redis.close)
        # The deadline is for a busy machine: a look-up that is given up would be a miss that no policy has made.
        tables: fleet.Tables = {
            "redis": {"get_deadline": "1 s"},
            "device": {"size": device_bytes or 256 << 20, "policy": "worth"},
        }
        gateway = fleet.start(folder, name, f"unix://{redis.socket}", tables)
        stack.callback(gateway.stop)
        if behind_bytes:
            redis.client.config_set("maxmemory", int(redis.client.info("memory")["used_memory"] + swell * behind_bytes))
        yield House(gateway, redis, device_bytes, behind_bytes)


def sized(place: House, traces: Sequence[Asked], inputs: Path, sample: int) -> tuple[list[int], float]:
    """Bytes of all distinct answers of each trace, and what Redis takes for one, by a sample of answers: of each task
    every n-th, in order of length."""
    found = []
    for asked in traces:
        every = sorted(asked.seen, key=lambda at: (asked.items[at].task, len(asked.items[at].text)))
        some = every
        if sample < len(every):
            some = [every[(2 * number + 1) * len(every) // (2 * sample)] for number in range(sample)]
        answers = one_by_one(place.gateway.target, Asked(f"{asked.name}: sizes", asked.items, tuple(some)), inputs)
        found.append(sum(answer.size for answer in answers) * len(every) // len(some))
    names = list(place.redis.client.scan_iter("refrain:v:*", 1000))
    taken = sum(int(place.redis.client.memory_usage(name, samples=0) or 0) for name in names)
    held = sum(int(place.redis.client.strlen(name)) for name in names)
    return found, taken / max(1, held)


async def at_once(target: str, asked: Asked, bodies: dict[int, bytes], *, past: bool, callers: int = CALLERS) -> float:
    """Seconds in which so many callers had all of it answered, each asking for the next as soon as it has an answer.
    `past`: past the cache. Raises `grpc.RpcError`."""

    async def call(rest: Iterator[int], calls: dict[str, Any]) -> None:
        for at in rest:
            task = asked.items[at].task
            await calls[task](bodies[at] + PAST[task] if past else bodies[at], timeout=120)

    async with grpc.aio.insecure_channel(target, options=MESSAGE_OPTIONS) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        calls = {task: channel.unary_unary(method, None, None) for task, method in METHODS.items()}
        rest = iter(asked.order)
        begun = time.perf_counter()
        await asyncio.gather(*(call(rest, calls) for _ in range(callers)))
        return time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class Round:
    """The same requests with the cache and past it."""

    cached_s: float
    past_s: float
    cached_busy_s: float
    """Processor time of the gateway and its Redis."""
    past_busy_s: float
    cached_first: bool


def rounds_of(place: House, asked: Asked, inputs: Path, begin: int, rounds: int) -> list[Round]:
    """What follows `begin` in so many parts; which way goes first changes with each."""
    spoken = Inputs(inputs)
    rest = asked.cut(begin, len(asked.order))
    bodies = {at: spoken.request(asked.items[at]) for at in rest.seen}
    length = len(rest.order) // rounds
    found = []
    for number in range(rounds):
        part = rest.cut(number * length, (number + 1) * length)
        took: dict[bool, tuple[float, float]] = {}
        for past in (False, True) if number % 2 else (True, False):
            busy_s = place.busy_s()
            seconds = asyncio.run(at_once(place.gateway.target, part, bodies, past=past))
            took[past] = seconds, place.busy_s() - busy_s
        found.append(Round(took[False][0], took[True][0], took[False][1], took[True][1], number % 2 == 1))
    return found


def replayed_at(target: str, phrases: Sequence[str], rate: float, seconds: float, folder: Path) -> dict[str, Any]:
    """The report of one `refrain replay` process that asks a target for speech that it has, at a rate.

    Raises `RuntimeError` with what it said where it fails.
    """
    trace, texts, out = folder / "hits.keys.txt", folder / "phrases.txt", folder / "replay.json"
    keys = len(phrases)
    trace.write_text("".join(f"{number % keys}\n" for number in range(round(rate * seconds))))
    texts.write_text("".join(f"{phrase}\n" for phrase in phrases))
    command = [sys.executable, "-m", "gateway.cli", "replay", str(trace), "--target", target, "--rate", f"{rate:g}"]
    command += ["--phrases", str(texts), "--spoken", str(folder), "--json", str(out), "--task", "synthesize"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 20 * seconds)
    if done.returncode:
        raise RuntimeError(f"refrain replay ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(out.read_text())
    return report

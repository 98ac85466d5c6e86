"""Gateways as faults and soaks need them: real processes with the same keys on one Redis, told by a settings file; what
to ask them; and what they say of themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.broken_redis import RedisServer, Relay
from bench.open_loop import ONE_TRY, Ask, Mode, Status, learned
from bench.processes import Gateway, start_gateway
from models.utterance import MEL_RATE
from protos.refrain.v1 import speech_pb2, speech_pb2_grpc

Tables = Mapping[str, Mapping[str, Any]]
SMALL: Tables = {"device": {"size": "256 KiB"}}
"""A device tier that holds a part of what is asked, so that answers come from Redis too."""
TEXTS = ("Yes.", "No, thank you.", "It is raining.", "Stop here.", "Ten past nine.", "Go on.", "A cup of tea.", "Left.")


def write_config(path: Path, redis_url: str, *more: Tables) -> Path:
    """A settings file for a gateway on that Redis, or on one of its own where that is empty. Those in one folder share
    their keys."""
    keys = {}
    for name in ("master", "digest"):
        keys[name] = path.parent / f"{name}.key"
        if not keys[name].exists():
            keys[name].touch(mode=0o600)
            keys[name].write_text(secrets.token_hex(32))
    tables: dict[str, dict[str, Any]] = {"keys": {name: str(at) for name, at in keys.items()}}
    if redis_url:
        tables["redis"] = {"url": redis_url}
    for each in more:
        for table, values in each.items():
            tables.setdefault(table, {}).update(values)
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def start(folder: Path, name: str, redis_url: str, *more: Tables, **how: Any) -> Gateway:
    """A gateway with a data folder of its own below `folder`. Raises as `start_gateway`, which takes `how`."""
    how.setdefault("timeout_s", 180.0)  # several at once, on a machine that may be busy
    config = write_config(folder / f"{name}.toml", redis_url, *more)
    return start_gateway(folder / name, "--config", str(config), **how)


def start_all(folder: Path, redis_url: str, configs: Mapping[str, Tables], **how: Any) -> list[Gateway]:
    """Several at once, by name and what their settings are beside. When one does not start, none stays."""
    with ThreadPoolExecutor(len(configs)) as starts:
        begun = [starts.submit(start, folder, name, redis_url, tables, **how) for name, tables in configs.items()]
    started = [each.result() for each in begun if each.exception() is None]
    if len(started) < len(begun):
        stop_all(started)
    return [each.result() for each in begun]


def stop_all(gateways: Sequence[Gateway]) -> None:
    """Together, for each takes its time to drain."""
    for gateway in gateways:
        gateway.process.terminate()
    for gateway in gateways:
        gateway.stop()


@dataclass(slots=True)
class Pair:
    """Two gateways on one Redis, and a relay in between: what a fault is done to."""

    redis: RedisServer
    relay: Relay
    one: Gateway
    other: Gateway

    async def share(self) -> None:
        """Returns when a new answer of the one gateway comes to the other from Redis: stored, announced and found."""
        await eventually(lambda: shared_by(self.one, self.other))


FAULTS: Mapping[str, Callable[[Pair], AbstractContextManager[None]]] = {
    "killed and restarted empty": lambda pair: pair.redis.killed(),
    "paused": lambda pair: pair.redis.paused(),
    "full": lambda pair: pair.redis.full(),
    "a replica without its master": lambda pair: pair.redis.read_only(),
    "slower than the deadline": lambda pair: pair.relay.slow(0.2),
    "slow within the deadline": lambda pair: pair.relay.slow(0.01),
    "silent": lambda pair: pair.relay.silent(),
    "cut off": lambda pair: pair.relay.cut(),
    "answering garbage": lambda pair: pair.relay.garbling(),
}
"""What Redis may do, for as long as the block lasts."""


@contextlib.contextmanager
def pair_in(folder: Path) -> Iterator[Pair]:
    """Started, and stopped afterwards."""
    with contextlib.ExitStack() as stack:
        redis = RedisServer()
        stack.callback(redis.close)
        relay = Relay(redis.socket)
        stack.callback(relay.close)
        write_config(folder / "keys.toml", relay.url)  # makes the keys, once for both
        tables = {**SMALL, "engines": {"queue": 64}}
        one, other = start_all(folder, relay.url, {"one": tables, "other": tables})
        stack.callback(stop_all, [one, other])
        yield Pair(redis, relay, one, other)


async def eventually(holds: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> None:
    """Asks again until it holds: for what other processes do, of which no event comes here. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


_rooms = itertools.count()


async def shared_by(one: Gateway, other: Gateway, looks: int = 10) -> bool:
    """Whether what one gateway computes now is soon found in Redis by the other."""
    request = say(f"Room {next(_rooms)}.")
    async with speech_of(one) as first, speech_of(other) as second:
        await first.Synthesize(request, timeout=60)
        request.cache_control.mode = Mode.ONLY_IF_CACHED
        for _ in range(looks):
            try:
                answer = await second.Synthesize(request, timeout=60)
                return bool(answer.cache_info.status == Status.HIT_EXACT)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.02)
    return False


@contextlib.asynccontextmanager
async def speech_of(*gateways: Gateway) -> AsyncIterator[Any]:
    """A stub for the first of them that is there, which tells what a call came to the first time."""
    target = "ipv4:" + ",".join(gateway.target for gateway in gateways)
    async with grpc.aio.insecure_channel(target, options=ONE_TRY) as channel:
        yield speech_pb2_grpc.SpeechStub(channel)


async def asks(target: str, seed: int = 7) -> list[Ask]:
    """Short requests of three tasks with the answers that the models alone give: texts, these as they are spoken, and
    mels."""
    said = await learned(target, [Ask(f"say {text!r}", "Synthesize", say(text)) for text in TEXTS])
    heard = [Ask(f"hear {text!r}", "Recognize", hear(ask.right)) for text, ask in zip(TEXTS, said, strict=True)]
    rng = np.random.default_rng(seed)
    mels = [rng.normal(-6.0, 1.0, (80, 40 + 4 * number)).clip(-11.5) for number in range(len(TEXTS))]
    sung = [Ask(f"vocode {number}", "Vocode", vocode(mel)) for number, mel in enumerate(mels)]
    return said + await learned(target, [*heard, *sung])


def mixed(known: Sequence[Ask]) -> list[Ask]:
    """Each three times, once of these computed anew: two thirds may be answered from memory, one must not."""
    times = [*known, *known, *(ask.by(Mode.REFRESH) for ask in known)]
    return [times[number] for number in np.random.default_rng(3).permutation(len(times))]


def say(text: str) -> speech_pb2.SynthesizeRequest:
    return speech_pb2.SynthesizeRequest(input={"text": text}, audio_config={"audio_encoding": speech_pb2.LINEAR16})


def vocode(mel: Any) -> speech_pb2.VocodeRequest:
    """Of a log-mel [80, T] with values within -11.6 to 5."""
    return speech_pb2.VocodeRequest(mel={"data": np.asarray(mel, "<f4").tobytes(), "bands": 80})


def hear(pcm: bytes) -> speech_pb2.RecognizeRequest:
    """Of what `say` was answered with: 16-bit samples at the models' own rate."""
    explicit = {"encoding": speech_pb2.LINEAR16, "sample_rate_hertz": MEL_RATE}
    return speech_pb2.RecognizeRequest(
        config=speech_pb2.RecognitionConfig(explicit_decoding_config=explicit), content=pcm
    )


def metrics(gateway: Gateway) -> dict[str, float]:
    """The lines under /metrics: name with labels to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.http_port}/metrics", timeout=10) as page:
        lines = [line.rpartition(" ") for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}

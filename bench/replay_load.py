"""Sending a plan: each request when it is due, from processes that measure themselves too.

Times count from the moment a request was due, so a target that stands still is seen to by all that had to wait
("coordinated omission" is the name of not doing so: Tene, "How not to measure latency"). They go into HdrHistograms,
which add up exactly, over processes and over machines. A sender knows how late it was itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from bench.open_loop import answer_of
from bench.replay_inputs import METHODS
from bench.replay_judge import Judge, Judged, Kin, Pairing
from gateway.stats import STATUSES
from protos.refrain.v1 import speech_pb2

MICROSECONDS: Final = 120_000_000
"""The longest time that is told apart: two minutes."""
REPLIES: Final[dict[str, Any]] = {
    "recognize": speech_pb2.RecognizeResponse,
    "synthesize": speech_pb2.SynthesizeResponse,
    "vocode": speech_pb2.VocodeResponse,
}
PAST: Final[dict[str, bytes]] = {
    task: kind(cache_control={"mode": speech_pb2.CacheControl.BYPASS}).SerializeToString()
    for task, kind in (
        ("recognize", speech_pb2.RecognizeRequest),
        ("synthesize", speech_pb2.SynthesizeRequest),
        ("vocode", speech_pb2.VocodeRequest),
    )
}
"""What makes a request go past the cache when it is written behind it: messages that follow each other merge."""
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
)
Source = tuple[str, str, str]
"""Task, status and tier of an answer; or task, "ERROR" and the name of the gRPC status."""


def histogram() -> Any:
    """Of microseconds, three digits."""
    return HdrHistogram(1, MICROSECONDS, 3)


@dataclass(frozen=True, slots=True)
class Share:
    """What one process is to send."""

    target: str
    token: str
    due_s: npt.NDArray[np.float64]
    asks: npt.NDArray[np.int32]
    tasks: Sequence[str]
    """Of each item; as `requests`."""
    requests: Sequence[bytes]
    connections: int
    warmup_s: float
    deadline_s: float
    kin: Kin
    """Of the items."""
    pairing: Pairing
    """Of each request."""


@dataclass(slots=True)
class Result:
    """What came of it, as far as it went. Histograms are HdrHistogram's own compressed text."""

    sent: int = 0
    warm: Counter[Source] = field(default_factory=Counter)
    """Requests of the warm-up, which nothing else counts."""
    latency: dict[Source, str] = field(default_factory=dict)
    control: dict[Source, str] = field(default_factory=dict)
    """The same of what was sent past the cache to compare."""
    late: str = ""
    """How long after it was due a request was sent."""
    gaps: str = ""
    """By how much the time between two requests was not what it was to be."""
    judged: Judged = field(default_factory=Judged)
    answers: dict[int, bytes] = field(default_factory=dict)
    """Of each item the digest of the first answer."""
    differing: Counter[int] = field(default_factory=Counter)
    """Answers to an item that were not that."""
    cpu_share: float = 0.0
    """Of one core, that this process used."""
    first_s: float = 0.0
    last_s: float = 0.0
    """When the first and the last counted request of the load was sent, from the beginning."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a process says of itself as it goes."""

    sent: int
    answered: int
    hits: int
    errors: int
    latency: str
    """Since the last time."""


class Sender:
    """One process's part."""

    def __init__(self, share: Share, pipe: Connection) -> None:
        self._share, self._pipe = share, pipe
        self._begin = 0.0
        self._latency: dict[Source, Any] = {}
        self._control: dict[Source, Any] = {}
        self._late, self._gaps, self._lately = histogram(), histogram(), histogram()
        self._last_late = 0.0
        self._past = share.pairing.past.tolist()
        self._judge = Judge(share.tasks, share.kin, share.requests, share.pairing)
        self._result = Result()
        self._answered = self._hits = self._errors = 0
        self._stopped = False
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> Result:
        share = self._share
        async with contextlib.AsyncExitStack() as stack:
            calls = [await self._calls(stack) for _ in range(share.connections)]
            self._begin = await asyncio.to_thread(self._agree)
            telling = asyncio.create_task(self._keep_telling())
            asyncio.get_running_loop().add_reader(self._pipe.fileno(), self.stop)
            used, begun = time.process_time(), time.monotonic()
            for number, (due_s, ask) in enumerate(zip(share.due_s.tolist(), share.asks.tolist(), strict=True)):
                wait = self._begin + due_s - time.monotonic()
                if wait <= 0 and not number % 16:
                    await asyncio.sleep(0)  # behind: answers are read all the same
                while wait > 0 and not self._stopped:
                    await asyncio.sleep(min(wait, 0.25))
                    wait = self._begin + due_s - time.monotonic()
                if self._stopped:
                    break
                self._send(calls[number % len(calls)][share.tasks[ask]], due_s, ask, number)
            if self._open:
                await asyncio.wait(self._open, timeout=share.deadline_s + 1)
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._result.cpu_share = (time.process_time() - used) / max(time.monotonic() - begun, 1e-9)
            telling.cancel()
        self._result.latency = {source: counted.encode().decode() for source, counted in self._latency.items()}
        self._result.control = {source: counted.encode().decode() for source, counted in self._control.items()}
        self._result.late, self._result.gaps = self._late.encode().decode(), self._gaps.encode().decode()
        self._result.judged = self._judge.result()
        return self._result

    def _agree(self) -> float:
        """Says that this process could begin, and waits for the moment at which all do."""
        self._pipe.send(None)
        begin: float = self._pipe.recv()
        return begin

    def stop(self) -> None:
        """Sends no more; what is under way is waited for."""
        self._stopped = True

    async def _calls(self, stack: contextlib.AsyncExitStack) -> dict[str, Any]:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._share.target, options=_OPTIONS))
        await asyncio.wait_for(channel.channel_ready(), 30)
        return {task: channel.unary_unary(METHODS[task], None, None) for task in METHODS}

    def _send(self, call: Any, due_s: float, ask: int, number: int) -> None:
        sent_s = time.monotonic() - self._begin
        late_s = sent_s - due_s
        if due_s >= self._share.warmup_s:
            self._late.record_value(min(MICROSECONDS, max(1, int(late_s * 1e6))))
            if number:
                self._gaps.record_value(min(MICROSECONDS, max(1, int(abs(late_s - self._last_late) * 1e6))))
            if not self._past[number]:
                self._result.first_s = self._result.first_s or sent_s
                self._result.last_s = sent_s
        self._last_late = late_s
        self._result.sent += 1
        task = asyncio.create_task(self._ask(call, due_s, ask, number))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _ask(self, call: Any, due_s: float, ask: int, number: int) -> None:
        share, task, past = self._share, self._share.tasks[ask], self._past[number]
        request = share.requests[ask] + PAST[task] if past else share.requests[ask]
        answer = None
        metadata = (("authorization", f"Bearer {share.token}"),) if share.token else ()
        try:
            data = await call(request, metadata=metadata, timeout=share.deadline_s)
            took = time.monotonic() - self._begin - due_s
            reply = REPLIES[task].FromString(data)
            source = (task, STATUSES[reply.cache_info.status], reply.cache_info.tier)
            answer = answer_of(reply)
            self._hits += source[1].startswith("HIT")
            if not past:
                self._compare(ask, answer)
        except grpc.aio.AioRpcError as error:
            took = time.monotonic() - self._begin - due_s
            source = (task, "ERROR", error.code().name)
            self._errors += not past
        self._answered += not past
        if due_s < share.warmup_s:
            self._result.warm[source] += 1
            if answer is not None:
                self._judge.heard(ask, source[1], answer)
            return
        latency = self._control if past else self._latency
        counted = latency.get(source) or latency.setdefault(source, histogram())
        micros = min(MICROSECONDS, max(1, int(took * 1e6)))
        counted.record_value(micros)
        if answer is not None:
            self._judge.answered(number, ask, source[1], micros, due_s + took, answer)
        if not past:
            self._lately.record_value(micros)

    def _compare(self, ask: int, answer: bytes) -> None:
        digest = hashlib.blake2b(answer, digest_size=8).digest()
        if self._result.answers.setdefault(ask, digest) != digest:
            self._result.differing[ask] += 1

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            lately, self._lately = self._lately.encode().decode(), histogram()
            self._pipe.send(Glance(self._result.sent, self._answered, self._hits, self._errors, lately))


def send(share: Share, pipe: Connection) -> None:
    """The whole of one process: tells that it is ready, is told when to begin, tells `Glance`s, and at last the
    `Result` or an exception. Anything else it is told stops it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what becomes of an interrupted replay

    try:
        pipe.send(asyncio.run(Sender(share, pipe).run()))
    except Exception as error:
        pipe.send(error)


@dataclass(slots=True)
class Worker:
    """A process as its parent sees it."""

    process: Any
    pipe: Connection
    glance: Glance = field(default_factory=lambda: Glance(0, 0, 0, 0, ""))
    result: Result | None = None

    def told(self) -> Any:
        """The next thing it tells. Raises what it raised."""
        told = self.pipe.recv()
        if isinstance(told, Exception):
            raise told
        return told


def start(shares: Sequence[Share]) -> list[Worker]:
    """A process for each share, connected and waiting to be told when to begin."""
    spawn = multiprocessing.get_context("spawn")
    workers = []
    for share in shares:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=send, args=(share, theirs), daemon=True)
        process.start()
        theirs.close()
        workers.append(Worker(process, ours))
    for worker in workers:
        worker.told()
    return workers

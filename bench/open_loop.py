"""Open-loop load: requests whose right answers are known, each sent when the schedule says so, whatever became of those
before. Times count from the scheduled moment, so that a server that stands still is seen to (Schroeder et al., "Open
versus closed: a cautionary tale", NSDI 2006).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from protos.refrain.v1 import speech_pb2, speech_pb2_grpc

Mode = speech_pb2.CacheControl.Mode
Status = speech_pb2.CacheInfo.Status
DETAILS = "grpc-status-details-bin"
MESSAGE_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
ONE_TRY = (*MESSAGE_OPTIONS, ("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500))
"""Of a channel that tells what a call came to the first time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, and what has to come back."""

    name: str
    method: str
    """Of the Speech service."""
    request: Any
    right: bytes = b""

    def by(self, mode: int) -> Ask:
        """The same with another cache mode; the right answer stays."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        request.cache_control.mode = mode
        return replace(self, request=request)


def answer_of(response: Any) -> bytes:
    """What a caller wanted: the sound, or the words."""
    if isinstance(response, speech_pb2.RecognizeResponse):
        return "\n".join(result.alternatives[0].transcript for result in response.results).encode()
    return bytes(response.audio_content)


@dataclass(slots=True)
class Attempt:
    """What one request came to."""

    ask: Ask
    due_s: float
    """The scheduled moment, from the beginning of the load."""
    took_s: float = 0.0
    """From that moment to the end of the answer."""
    code: str = "OK"
    message: str = ""
    right: bool = False
    status: int = 0
    tier: str = ""
    retry_s: float | None = None
    """What google.rpc.RetryInfo says, where the answer is an error that has one."""

    def __str__(self) -> str:
        what = f"{self.code} {self.message}" if self.code != "OK" else "right" if self.right else "a WRONG answer"
        return f"{self.ask.name} at {self.due_s:.3f} s: {what} after {self.took_s * 1e3:.0f} ms"


@dataclass(slots=True)
class Report:
    """All attempts of a load, or of a part of it."""

    attempts: list[Attempt] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.attempts)

    def where(self, wanted: Callable[[Attempt], bool]) -> Report:
        return Report([attempt for attempt in self.attempts if wanted(attempt)])

    @property
    def codes(self) -> Counter[str]:
        return Counter(attempt.code for attempt in self.attempts)

    def latency_s(self, share: float) -> float:
        """The quantile of the times taken."""
        return float(np.quantile([attempt.took_s for attempt in self.attempts], share))

    def check(self, *allowed: str) -> None:
        """Raises `AssertionError`, which names the requests, unless each answer is right or an error that is `allowed`
        by its status name."""
        assert self.attempts, "nothing was asked"
        wrong = [each for each in self.attempts if not each.right and each.code not in allowed]
        lines = "\n".join(f"  {attempt}" for attempt in wrong[:10])
        assert not wrong, f"{len(wrong)} of {len(self.attempts)} requests failed or were answered wrongly:\n{lines}"


async def attempt(
    stub: Any, ask: Ask, due_s: float = 0.0, begun: float | None = None, deadline_s: float = 60.0
) -> Attempt:
    """Sends it now. `begun`: the beginning of the load by time.monotonic()."""
    begun = time.monotonic() - due_s if begun is None else begun
    made = Attempt(ask, due_s)
    try:
        response = await getattr(stub, ask.method)(ask.request, timeout=deadline_s)
        made.right = answer_of(response) == ask.right
        made.status, made.tier = response.cache_info.status, response.cache_info.tier
    except grpc.aio.AioRpcError as error:
        made.code, made.message, made.retry_s = error.code().name, error.details() or "", retry_delay(error)
    made.took_s = time.monotonic() - begun - due_s
    return made


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds of the error's google.rpc.RetryInfo; None where it has none."""
    metadata: Any = error.trailing_metadata() or ()
    data = dict(metadata).get(DETAILS)
    if data is None:
        return None
    for detail in status_pb2.Status.FromString(data).details:
        told = error_details_pb2.RetryInfo()
        if detail.Unpack(told):
            delay: Duration = told.retry_delay
            return delay.ToTimedelta().total_seconds()
    return None


async def learned(target: str, asks: Sequence[Ask]) -> list[Ask]:
    """The asks with the answers that the models alone give, by BYPASS."""
    async with grpc.aio.insecure_channel(target, options=ONE_TRY) as channel:
        stub = speech_pb2_grpc.SpeechStub(channel)
        answers = [await getattr(stub, ask.method)(ask.by(Mode.BYPASS).request, timeout=60) for ask in asks]
    return [replace(ask, right=answer_of(answer)) for ask, answer in zip(asks, answers, strict=True)]


class Load:
    """A load under way."""

    def __init__(self, stub: Any, asks: Iterator[Ask], rate: float, deadline_s: float) -> None:
        self.stub = stub
        """To whom the next requests go; may be changed meanwhile."""
        self.report = Report()
        """Of what has been answered so far."""
        self.begun = time.monotonic()
        self._asks, self._rate, self._deadline_s = asks, rate, deadline_s
        self._open: set[asyncio.Task[None]] = set()
        self._more = asyncio.Event()
        self._sender = asyncio.create_task(self._send(), name="open-loop")

    def now(self) -> float:
        """Seconds since the beginning, as in `Attempt.due_s`."""
        return time.monotonic() - self.begun

    async def _send(self) -> None:
        for number in itertools.count():
            due_s = number / self._rate
            await asyncio.sleep(max(0.0, due_s - self.now()))
            task = asyncio.create_task(self._one(next(self._asks), due_s))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, ask: Ask, due_s: float) -> None:
        self.report.attempts.append(await attempt(self.stub, ask, due_s, self.begun, self._deadline_s))
        self._more.set()

    async def answered(self, count: int, seconds: float = 60.0) -> Report:
        """Waits until `count` requests that are sent from now on have been answered, and returns what these came to.
        Raises `TimeoutError` when that takes longer than `seconds`."""
        since = self.now()
        async with asyncio.timeout(seconds):
            while len(part := self.report.where(lambda each: each.due_s >= since)) < count:
                self._more.clear()
                await self._more.wait()
        return part

    async def stop(self) -> None:
        """Sends no more, and waits for what is open."""
        self._sender.cancel()
        await asyncio.gather(self._sender, *self._open, return_exceptions=True)


@contextlib.asynccontextmanager
async def steady(target: str, asks: Sequence[Ask], rate: float, deadline_s: float = 60.0) -> AsyncIterator[Load]:
    """`rate` requests a second, one of `asks` after the other, for as long as the block lasts; all answered after it.
    Without retries of the client's, unless it has not sent them."""
    async with grpc.aio.insecure_channel(target, options=ONE_TRY) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        load = Load(speech_pb2_grpc.SpeechStub(channel), itertools.cycle(asks), rate, deadline_s)
        try:
            yield load
        finally:
            await load.stop()

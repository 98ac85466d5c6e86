"""Many connections with open streams each: every one is opened, held, and answered in the end; what the server holds
for them is its resident memory before and after.

`hold` starts this program several times, since one process that speaks for thousands of callers is no measure of a
server, and leads them through three steps by a line on their standard input each: connect, open, finish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.processes import Gateway
from protos.refrain.v1 import speech_pb2, speech_pb2_grpc

CALLERS = 4
"""Processes."""
AT_ONCE = 20
"""Connections that a process opens, or begins streams on, at a time; and streams that it ends."""
FIRST_BYTES = 3_200
"""A tenth of a second of 16 kHz LINEAR16."""
SETTLED_S = 2.0
"""Before memory is read: what was sent is taken in meanwhile, and what was in use before is given back."""


@dataclass(frozen=True, slots=True)
class Held:
    answered: int
    errors: int
    connection_bytes: float
    """Resident memory of the gateway for one connection."""
    stream_bytes: float
    """The same for an open stream that has been sent its config and the first tenth of a second of sound."""
    request_bytes: int
    seconds: float
    """From the first connection to the last answer."""


def hold(gateway: Gateway, request: Path, connections: int, streams: int, *, burst: bool = False) -> Held:
    """`request`: a file with a serialised RecognizeRequest, whose sound each stream sends. `burst`: all but those of
    the first caller connect in one moment, and all streams begin in one, rather than in pace."""
    raise_open_files(2 * connections)
    callers = min(CALLERS, connections)
    process = psutil.Process(gateway.process.pid)
    command = [sys.executable, "-m", "bench.held_streams", "--target", gateway.target, "--request", str(request)]
    memory: list[int] = []
    began = time.monotonic()
    with ExitStack() as stack:
        helpers: list[subprocess.Popen[str]] = []
        for number in range(callers):
            share = connections // callers + (number < connections % callers)
            options = ["--connections", str(share), "--streams", str(streams), *(["--burst"] if burst else [])]
            helper = subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            helpers.append(stack.enter_context(helper))
            stack.callback(helper.kill)
        done: list[dict[str, int]] = []
        # The first caller connects before the first reading: what the start had left unused is given back then.
        for step, told in (("connect", helpers[:1]), ("connect", helpers[1:]), ("open", helpers), ("finish", helpers)):
            for helper in told:
                assert helper.stdin is not None
                print(step, file=helper.stdin, flush=True)
            for helper in told:
                assert helper.stdout is not None
                line = helper.stdout.readline()
                if not line:
                    raise RuntimeError(f"a caller ended at '{step}'")
                done.append(json.loads(line))
            if step != "finish":
                time.sleep(SETTLED_S)
                memory.append(process.memory_info().rss)
    seconds = time.monotonic() - began
    some, connected, opened = memory
    later = connections - -(-connections // callers)
    return Held(
        answered=sum(step.get("answered", 0) for step in done),
        errors=sum(step["errors"] for step in done),
        connection_bytes=(connected - some) / max(later, 1),
        stream_bytes=(opened - connected) / (connections * streams),
        request_bytes=request.stat().st_size,
        seconds=seconds,
    )


def raise_open_files(wanted: int) -> None:
    """Lets this process, and those it starts, have `wanted` files open, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 256), hard))


class Ended(Exception):
    """A call that was to be written to had ended already; the text says with what."""


class Caller:
    """One process's share of the connections."""

    def __init__(
        self, target: str, request: speech_pb2.RecognizeRequest, connections: int, streams: int, *, burst: bool
    ) -> None:
        self._target, self._request, self._count, self._streams = target, request, connections, streams
        self._burst = burst
        self._stubs: list[Any] = []
        self._calls: list[Any] = []

    @property
    def _at_once(self) -> int:
        return self._count if self._burst else AT_ONCE

    async def connect(self) -> dict[str, int]:
        """Opens the connections, and has each answer one call."""
        options = [("grpc.use_local_subchannel_pool", 1)]  # or all would share one connection
        channels = [grpc.aio.insecure_channel(self._target, options) for _ in range(self._count)]
        self._stubs = [speech_pb2_grpc.SpeechStub(channel) for channel in channels]
        return {"errors": await _failed(map(_answers, self._stubs), self._at_once)}

    async def open(self) -> dict[str, int]:
        """Begins the streams, and returns when the server has answered a call that came after them."""
        return {"errors": await _failed(map(self._begin, self._stubs), self._at_once)}

    async def finish(self) -> dict[str, int]:
        """Sends the rest, and reads the answers."""
        errors = await _failed(map(self._end, self._calls), AT_ONCE)
        return {"errors": errors, "answered": len(self._calls) - errors}

    async def _begin(self, stub: Any) -> bool:
        calls = [stub.StreamingRecognize() for _ in range(self._streams)]
        self._calls += calls
        await asyncio.gather(*map(self._say_first, calls))
        return await _answers(stub)

    async def _say_first(self, call: Any) -> None:
        config = speech_pb2.StreamingRecognitionConfig(config=self._request.config)
        await _write(call, speech_pb2.StreamingRecognizeRequest(streaming_config=config))
        await _write(call, speech_pb2.StreamingRecognizeRequest(audio=self._request.content[:FIRST_BYTES]))

    async def _end(self, call: Any) -> bool:
        await _write(call, speech_pb2.StreamingRecognizeRequest(audio=self._request.content[FIRST_BYTES:]))
        await call.done_writing()
        answers = [answer async for answer in call]
        return bool(answers) and answers[-1].cache_info.status == speech_pb2.CacheInfo.HIT_EXACT


async def _write(call: Any, request: speech_pb2.StreamingRecognizeRequest) -> None:
    try:
        await call.write(request)
    except asyncio.InvalidStateError:
        raise Ended(f"{await call.code()}: {await call.details()}") from None


async def _answers(stub: Any) -> bool:
    return bool((await stub.ListModels(speech_pb2.ListModelsRequest())).models)


async def _failed(work: Iterable[Coroutine[Any, Any, bool]], at_once: int) -> int:
    """How many came to nothing, of work done by so many at a time; says why, once for each reason."""
    room = asyncio.Semaphore(at_once)
    reasons: Counter[str] = Counter()

    async def one(task: Coroutine[Any, Any, bool]) -> bool:
        async with room:
            try:
                return await task
            except grpc.aio.AioRpcError as error:
                reasons[f"{error.code()}: {error.details()}"] += 1
            except Ended as error:
                reasons[str(error)] += 1
            return False

    failed = sum(not good for good in await asyncio.gather(*map(one, work)))
    for reason, count in reasons.items():
        print(f"{count} times {reason}", file=sys.stderr)
    return failed


async def steps(caller: Caller) -> None:
    """Does what each line of the standard input names, and says on a line what came of it."""
    async for step in _lines():
        print(json.dumps(await getattr(caller, step)()), flush=True)
        if step == "finish":
            return


async def _lines() -> AsyncIterator[str]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--burst", action="store_true")
    args = parser.parse_args()
    raise_open_files(2 * args.connections)
    request = speech_pb2.RecognizeRequest.FromString(args.request.read_bytes())
    asyncio.run(steps(Caller(args.target, request, args.connections, args.streams, burst=args.burst)))


if __name__ == "__main__":
    main()

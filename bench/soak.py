"""Whether a gateway that is used for long grows: in memory, file handles, threads or tasks.

    python -m bench.soak --minutes 30 --json OUT [--plot FILE.svg]

Mixed traffic at a modest rate: repeated and new requests, fuzzy ones, streams, callers that leave, erasures; and a
Redis that is killed and comes back empty every few minutes. What is sampled is fitted over the second half, when the
tiers are full, by the median of all slopes (Theil and Sen), which a single peak does not move.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from scipy import stats
from tqdm import tqdm

from bench import fleet
from bench.broken_redis import RedisServer
from bench.figures import Figure, Figures
from bench.open_loop import ONE_TRY, Mode
from bench.processes import Gateway
from gateway.arguments import new_file, real
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

SAMPLE_S = 10.0
REDIS_RESTART_S = 240.0
GROWTH = 0.02
"""Of the median, over the second half: what counts as none. Allocators and the collector breathe."""
SMALL_TIERS: fleet.Tables = {"device": {"size": "12 MiB"}, "tenants.default": {"require_proof": False}}
"""Full within minutes, so that the second half shows what stays when nothing more is to be kept."""


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    memory_mb: float
    handles: float
    threads: float
    tasks: float


SERIES = {"memory_mb": "resident memory", "handles": "file handles", "threads": "threads", "tasks": "tasks"}


class Traffic:
    """What is asked, by a rate each. `rng` decides everything."""

    def __init__(self, gateway: Gateway, channel: grpc.aio.Channel, rng: np.random.Generator) -> None:
        self.speech: Any = speech_pb2_grpc.SpeechStub(channel)
        self.admin: Any = cache_pb2_grpc.CacheAdminStub(channel)
        self.outcomes: Counter[str] = Counter()
        self._rng = rng
        self._recordings: list[bytes] = []
        self._open: set[asyncio.Task[None]] = set()

    async def learn(self) -> None:
        """Recordings to be heard later."""
        for text in fleet.TEXTS:
            answer = await self.speech.Synthesize(fleet.say(text), timeout=60)
            self._recordings.append(answer.audio_content)

    async def run(self, seconds: float, rate: float) -> None:
        """An open loop: a slow gateway is asked no less."""
        kinds: list[tuple[float, str, Callable[[], Awaitable[object]]]] = [
            (0.34, "repeated", self._repeated),
            (0.30, "new", self._new),
            (0.12, "fuzzy", self._fuzzy),
            (0.08, "streamed text", self._streamed_text),
            (0.06, "streamed mel", self._streamed_mel),
            (0.08, "cancelled", self._cancelled),
            (0.02, "erased", self._erased),
        ]
        shares = [share for share, _, _ in kinds]
        begun = time.monotonic()
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            _, name, ask = kinds[int(self._rng.choice(len(kinds), p=shares))]
            task = asyncio.create_task(self._one(name, ask))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        await asyncio.gather(*self._open)

    async def _one(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            await ask()
            self.outcomes[f"{name}: OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.outcomes[f"{name}: {error.code().name}"] += 1
        except asyncio.CancelledError:
            self.outcomes[f"{name}: left"] += 1

    def _mel(self) -> speech_pb2.VocodeRequest:
        frames = int(self._rng.integers(30, 90))
        return fleet.vocode(self._rng.normal(-6.0, 1.0, (80, frames)).clip(-11.5))

    async def _repeated(self) -> None:
        text = fleet.TEXTS[min(int(self._rng.zipf(1.5)) - 1, len(fleet.TEXTS) - 1)]
        await self.speech.Synthesize(fleet.say(text), timeout=60)

    async def _new(self) -> None:
        await self.speech.Vocode(self._mel(), timeout=60)

    async def _fuzzy(self) -> None:
        samples = np.frombuffer(self._recordings[self._rng.integers(len(self._recordings))], "<i2").astype(np.float32)
        noise = self._rng.normal(0, np.sqrt(np.mean(samples**2)) / 30, len(samples))
        request = fleet.hear(np.clip(0.8 * samples + noise, -32_767, 32_767).astype("<i2").tobytes())
        request.cache_control.match = speech_pb2.CacheControl.Match.FUZZY
        await self.speech.Recognize(request, timeout=60)

    async def _streamed_text(self) -> None:
        async def requests() -> AsyncIterator[speech_pb2.StreamingSynthesizeRequest]:
            yield speech_pb2.StreamingSynthesizeRequest(streaming_config={})
            for text in self._rng.choice(fleet.TEXTS, 2):
                yield speech_pb2.StreamingSynthesizeRequest(input={"text": f"{text} "})

        async for _ in self.speech.StreamingSynthesize(requests(), timeout=60):
            pass

    async def _streamed_mel(self) -> None:
        async def requests() -> AsyncIterator[speech_pb2.StreamingVocodeRequest]:
            yield speech_pb2.StreamingVocodeRequest(streaming_config={})
            yield speech_pb2.StreamingVocodeRequest(mel=self._mel().mel)

        async for _ in self.speech.StreamingVocode(requests(), timeout=60):
            pass

    async def _cancelled(self) -> None:
        request = self._mel()
        request.cache_control.mode = Mode.BYPASS if self._rng.random() < 0.5 else Mode.DEFAULT
        call = self.speech.Vocode(request, timeout=60)
        await asyncio.sleep(float(self._rng.uniform(0.0, 0.03)))
        call.cancel()
        await call

    async def _erased(self) -> None:
        subject = f"person {self._rng.integers(1 << 30)}"
        request = self._mel()
        request.cache_control.subject_id = subject
        await self.speech.Vocode(request, timeout=60)
        await self.admin.Erase(cache_pb2.EraseRequest(subject_id=subject), timeout=60)


async def watched(gateway: Gateway, samples: list[Sample], seconds: float) -> None:
    """Adds a sample every while."""
    process = psutil.Process(gateway.process.pid)
    begun = time.monotonic()
    with tqdm(total=int(seconds), desc="soak", unit="s") as bar:
        while (at_s := time.monotonic() - begun) < seconds:
            page = await asyncio.to_thread(fleet.metrics, gateway)
            memory = process.memory_info().rss / 1e6
            samples.append(
                Sample(at_s, memory, process.num_fds(), process.num_threads(), page.get("refrain_tasks", np.nan))
            )
            bar.update(int(at_s) - bar.n)
            await asyncio.sleep(SAMPLE_S)


async def restarted(redis: RedisServer) -> None:
    """Kills Redis and has it come back empty, again and again."""
    while True:
        await asyncio.sleep(REDIS_RESTART_S)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(3.0)
        # In this thread, since the kernel ends the server with the thread that started it.
        redis.start()


async def soak(gateway: Gateway, redis: RedisServer, seconds: float, rate: float) -> tuple[list[Sample], Counter[str]]:
    samples: list[Sample] = []
    async with grpc.aio.insecure_channel(gateway.target, options=ONE_TRY) as channel:
        traffic = Traffic(gateway, channel, np.random.default_rng(11))
        await traffic.learn()
        restarts = asyncio.create_task(restarted(redis))
        try:
            await asyncio.gather(watched(gateway, samples, seconds), traffic.run(seconds, rate))
        finally:
            restarts.cancel()
    return samples, traffic.outcomes


def judge(samples: list[Sample], figures: Figures) -> None:
    """Growth over the second half, as a share of its median."""
    rows = np.array([astuple(sample) for sample in samples])
    late = rows[rows[:, 0] >= rows[-1, 0] / 2]
    for column, (_, name) in enumerate(SERIES.items(), 1):
        slope, _, low, high = stats.theilslopes(late[:, column], late[:, 0])
        level, span_s = float(np.median(late[:, column])), float(late[-1, 0] - late[0, 0])
        figures.context[f"{name}, slope an hour"] = {
            "median": float(slope) * 3600, "95 % from": float(low) * 3600, "to": float(high) * 3600,
        }  # fmt: skip
        figures.add(
            Figure(f"growth of {name} in the second half", float(slope) * span_s / level, "share", None, GROWTH)
        )
        figures.add(Figure(f"{name}, median of the second half", level, "MB" if name == "resident memory" else "count"))


def draw(samples: list[Sample], restarts_s: list[float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = np.array([astuple(sample) for sample in samples])
    picture, axes = plt.subplots(len(SERIES), 1, sharex=True, figsize=(9, 8), layout="constrained")
    for column, (axis, name) in enumerate(zip(axes, SERIES.values(), strict=True), 1):
        axis.plot(rows[:, 0] / 60, rows[:, column], linewidth=1.2)
        for at_s in restarts_s:
            axis.axvline(at_s / 60, color="0.8", linewidth=0.8, zorder=0)
        axis.set_ylabel(f"{name}, MB" if name == "resident memory" else name)
        axis.set_ylim(0, None)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("minutes; a grey line is a Redis killed and started again, empty")
    picture.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=real(above=True), default=30.0)
    parser.add_argument("--rate", type=real(above=True), default=4.0, help="requests a second")
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--plot", type=new_file, help="draw the samples here")
    parser.add_argument("--log", type=new_file, help="the gateway's log")
    args = parser.parse_args()
    figures = Figures()
    seconds = args.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer("--maxmemory", "64mb")
        try:
            gateway = fleet.start(Path(folder), "one", f"unix://{redis.socket}", SMALL_TIERS, log=args.log)
            try:
                samples, outcomes = asyncio.run(soak(gateway, redis, seconds, args.rate))
            finally:
                gateway.stop()
        finally:
            redis.close()
    allowed = ("OK", "left", "CANCELLED")
    # While Redis is away an erasure has to fail aloud; nothing else may.
    failed = sum(n for what, n in outcomes.items() if not what.endswith(allowed) and what != "erased: UNAVAILABLE")
    figures.context |= {"minutes": args.minutes, "rate": args.rate, "outcomes": dict(sorted(outcomes.items()))}
    figures.context["samples"] = [astuple(sample) for sample in samples]
    figures.add(Figure("requests", sum(outcomes.values()), "requests"))
    figures.add(Figure("requests that failed", failed, "requests", None, 0))
    judge(samples, figures)
    figures.write(args.json)
    if args.plot is not None:
        draw(samples, list(np.arange(REDIS_RESTART_S, seconds, REDIS_RESTART_S + 3.0)), args.plot)


if __name__ == "__main__":
    main()

"""What the machine under a gateway does: its private Redis is killed, its disk is full, its clock jumps. One gateway
for all of it, on a small disk of its own, with a clock that can be set.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from bench import fleet
from bench.fleet import eventually, metrics, speech_of
from bench.open_loop import Ask, Mode, attempt, steady
from bench.processes import Gateway
from tests.faults.conftest import asked

DAY_S = 86_400
DISK = "64m"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
MAY_MOUNT = (
    shutil.which("unshare") is not None and not subprocess.run(["unshare", "-rm", "true"], check=False).returncode
)
WITH_ITS_OWN = "import runpy; runpy.run_module('gateway.cli', run_name='__main__')"
WITH_A_FAKED_CLOCK = f"import os; del os.environ['LD_PRELOAD']; {WITH_ITS_OWN}"
"""Of the gateway alone: Redis's allocator and libfaketime wait for each other now and then, for ever."""
needs_disk = pytest.mark.skipif(
    not MAY_MOUNT, reason="a small disk takes a mount namespace, which this user may not have"
)
needs_clock = pytest.mark.skipif(
    FAKETIME is None, reason="a clock that jumps takes libfaketime: apt-get install faketime"
)


@dataclass
class Alone:
    gateway: Gateway
    folder: Path
    """Of its data, as the gateway sees it."""
    clock: Path

    def set_clock(self, ahead_s: int) -> None:
        """Of the gateway, against ours and its Redis's."""
        before = self.clock.with_suffix(".new")
        before.write_text(f"{ahead_s:+d}\n")
        before.rename(self.clock)

    @property
    def disk(self) -> Path:
        """The same folder, as it is seen from here."""
        return Path(f"/proc/{self.gateway.process.pid}/root{self.folder}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    folder = tmp_path_factory.mktemp("alone")
    clock, data = folder / "clock", folder / "one"
    data.mkdir()
    clock.write_text("+0\n")
    program = [sys.executable, "-c", WITH_A_FAKED_CLOCK if FAKETIME else WITH_ITS_OWN]
    if MAY_MOUNT:
        mounted = f'mount -t tmpfs -o size={DISK} none "$0" && exec "$@"'
        program = ["unshare", "-rm", "sh", "-c", mounted, str(data), *program]
    faked = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    tables = {"device": {"size": "64 KiB"}}  # so that every answer but the last few comes from Redis
    gateway = fleet.start(
        folder, "one", "", tables, program=program, environment=faked if FAKETIME else {}, log=folder / "log"
    )
    yield Alone(gateway, data, clock)
    gateway.stop()


async def stores(alone: Alone, asks: list[Ask]) -> bool:
    """Whether what is computed now can be had from Redis."""
    async with speech_of(alone.gateway) as speech:
        for ask in asks:
            await attempt(speech, ask.by(Mode.REFRESH))
        found = [await attempt(speech, ask.by(Mode.ONLY_IF_CACHED)) for ask in asks]
    return any(attempt.tier == "redis" for attempt in found)


async def test_a_private_redis_that_is_killed_is_started_again_with_what_it_had(
    alone: Alone, asks: list[Ask], rate: float
) -> None:
    gateway = psutil.Process(alone.gateway.process.pid)

    async def kept() -> bool:
        """All of it, of which the gateway's own memory holds two or three."""
        async with speech_of(alone.gateway) as speech:
            return all([(await attempt(speech, ask.by(Mode.ONLY_IF_CACHED))).right for ask in asks])

    async def another() -> bool:
        return [child.pid for child in gateway.children()] not in ([], [before])

    await asked(alone.gateway, asks)
    await eventually(kept)
    (before,) = [child.pid for child in gateway.children()]
    async with steady(alone.gateway.target, [ask.by(Mode.BYPASS) for ask in asks], rate / 2) as load:
        await load.answered(5)
        os.kill(before, signal.SIGKILL)
        await eventually(another)
        await load.answered(5)
    load.report.check()
    await eventually(kept)


@needs_disk
async def test_a_full_disk_costs_the_trace_and_what_redis_would_keep_and_no_answer(
    alone: Alone, asks: list[Ask], mixed: list[Ask], rate: float
) -> None:
    filler = alone.disk / "filler"

    async def losing() -> bool:
        return metrics(alone.gateway)["refrain_trace_dropped_total"] > 0

    async with steady(alone.gateway.target, mixed, rate) as load:
        await load.answered(5)
        fill(filler)
        await eventually(losing)
        await load.answered(20)
        filler.unlink()
        await eventually(lambda: stores(alone, asks[:4]))
    load.report.check()


@needs_clock
async def test_a_clock_that_jumps_ends_only_what_has_an_end_and_fails_nothing(
    alone: Alone, asks: list[Ask], mixed: list[Ask], rate: float
) -> None:
    ending, staying = fleet.say("Until tomorrow."), fleet.say("For ever.")
    ending.cache_control.ttl.FromSeconds(DAY_S)
    async with steady(alone.gateway.target, mixed, rate) as load, speech_of(alone.gateway) as speech:

        async def age_s(request: Any) -> float:
            """Below 0 where it is not there."""
            request.cache_control.mode = Mode.ONLY_IF_CACHED
            try:
                return float(
                    (await speech.Synthesize(request, timeout=60)).cache_info.age.ToTimedelta().total_seconds()
                )
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND, error
                return -1.0

        async def is_age(request: Any, least_s: float, most_s: float) -> bool:
            return least_s <= await age_s(request) <= most_s

        for request in (ending, staying):
            await speech.Synthesize(request, timeout=60)
        alone.set_clock(2 * DAY_S)
        await eventually(lambda: is_age(staying, 2 * DAY_S, 3 * DAY_S))
        assert await age_s(ending) == -1.0
        await load.answered(10)
        alone.set_clock(-2 * DAY_S)
        await eventually(lambda: is_age(staying, 0, DAY_S))
        await load.answered(10)
        await eventually(lambda: stores(alone, asks[:4]))
        alone.set_clock(0)
        await eventually(lambda: stores(alone, asks[:4]))
        assert await age_s(staying) >= 0
    load.report.check()
    assert metrics(alone.gateway)['refrain_tier_breaker_open{tier="redis"}'] == 0


def fill(path: Path) -> None:
    """Until the disk has no byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(os.urandom(1) * size)
            except OSError:
                continue

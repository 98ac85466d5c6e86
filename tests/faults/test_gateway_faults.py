"""Gateways that come and go on one Redis: killed, replaced, told to stop, and of another release. Callers who know more
than one notice nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import fleet
from bench.broken_redis import RedisServer
from bench.fleet import eventually, shared_by, speech_of
from bench.open_loop import Ask, Mode, Report, Status, attempt, steady
from bench.processes import Gateway
from gateway.client import RefrainCallError, RefrainClient
from tests.faults.conftest import asked

NEXT_RELEASE = (sys.executable, "-m", "tests.faults.of_version", "2", "3", "4")
"""With another key version, and other forms of sealed values."""


@dataclass
class Three:
    folder: Path
    redis: RedisServer
    running: list[Gateway]

    @property
    def one(self) -> Gateway:
        return self.running[0]

    @property
    def other(self) -> Gateway:
        return self.running[1]

    @property
    def newer(self) -> Gateway:
        """Of the next release."""
        return self.running[2]

    def start_again(self) -> None:
        """The first, on its old data folder."""
        self.running[0] = fleet.start(self.folder, "one", f"unix://{self.redis.socket}", fleet.SMALL)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("three")
    redis = RedisServer()
    url = f"unix://{redis.socket}"
    try:
        running = fleet.start_all(folder, url, {"one": fleet.SMALL, "other": fleet.SMALL})
        try:
            running.append(fleet.start(folder, "newer", url, fleet.SMALL, program=NEXT_RELEASE))
            yield Three(folder, redis, running)
        finally:
            fleet.stop_all(running)
    finally:
        redis.close()


async def only_cached(gateway: Gateway, asks: list[Ask]) -> Report:
    async with speech_of(gateway) as speech:
        return Report([await attempt(speech, ask.by(Mode.ONLY_IF_CACHED)) for ask in asks])


async def test_releases_with_other_keys_share_a_redis_and_leave_each_other_alone(three: Three, asks: list[Ask]) -> None:
    def values() -> set[bytes]:
        return set(three.redis.client.scan_iter("refrain:v:*", count=1000))

    few = asks[::6]
    await asked(three.one, few)
    await eventually(lambda: all_in_redis(three.other, few))
    older = {name: three.redis.client.get(name) for name in values()}
    assert (await only_cached(three.newer, few)).codes == {"NOT_FOUND": len(few)}
    await asked(three.newer, few)

    async def both_stored() -> bool:
        return len(values()) == len(older) + len(few)

    await eventually(both_stored)
    assert {name: three.redis.client.get(name) for name in older} == older
    assert all(attempt.status == Status.HIT_EXACT for attempt in (await asked(three.newer, few)).attempts)
    assert (await only_cached(three.one, few)).codes == {"OK": len(few)}


def test_an_erasure_reaches_both_releases(three: Three) -> None:
    text = "This is about me."
    with RefrainClient(three.one.target) as first, RefrainClient(three.newer.target) as second:
        for client in (first, second):
            client.synthesize(text, subject_id="me")
            assert client.synthesize(text).info.status == "HIT_EXACT"
        assert len(first.erase(subject_id="me").acknowledged) >= 3
        for client in (first, second):
            with pytest.raises(RefrainCallError, match="NOT_FOUND"):
                client.synthesize(text, mode="ONLY_IF_CACHED")


async def test_one_is_killed_and_the_other_goes_on(three: Three, mixed: list[Ask], rate: float) -> None:
    async with steady(three.other.target, mixed, rate) as load, speech_of(three.one) as speech:
        await load.answered(5)
        lost = [asyncio.ensure_future(attempt(speech, ask.by(Mode.REFRESH))) for ask in mixed[:5]]
        three.one.process.kill()
        three.one.process.wait()
        await load.answered(20)
        # Those whose gateway was killed are told so, and nobody is told a lie.
        Report(await asyncio.gather(*lost)).check("UNAVAILABLE")
        await asyncio.to_thread(three.start_again)
        await eventually(lambda: shared_by(three.one, three.other))
    load.report.check()


async def test_an_upgrade_with_traffic_fails_no_call(three: Three, mixed: list[Ask], rate: float) -> None:
    """The last of this file, for it ends the older release."""
    async with speech_of(three.other, three.newer) as both, steady(three.one.target, mixed, rate) as load:
        load.stub = both
        await load.answered(10)
        stopping = asyncio.create_task(asyncio.to_thread(three.other.stop))
        await load.answered(20)
        await stopping
        await load.answered(10)
    load.report.check()
    assert three.other.process.returncode == 0


async def all_in_redis(gateway: Gateway, asks: list[Ask]) -> bool:
    return (await only_cached(gateway, asks)).codes == {"OK": len(asks)}

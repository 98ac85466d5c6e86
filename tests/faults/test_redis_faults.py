"""Whatever Redis does, every request is answered rightly meanwhile, and answers are shared again soon after."""

from __future__ import annotations

import asyncio

import pytest

from bench.fleet import FAULTS, Pair, eventually, metrics
from bench.open_loop import Ask, Status, steady
from gateway.client import RefrainCallError, RefrainClient


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_request_fails_or_is_answered_wrongly_and_sharing_comes_back(
    pair: Pair, mixed: list[Ask], rate: float, fault: str
) -> None:
    await pair.share()
    async with steady(pair.one.target, mixed, rate) as load:
        await load.answered(5)
        with FAULTS[fault](pair):
            during = await load.answered(30)
        await pair.share()
        await load.answered(5)
    load.report.check()
    statuses = {attempt.status for attempt in during.attempts}
    assert {Status.MISS, Status.HIT_EXACT} <= statuses, "asked of memory and of the models"


async def test_a_redis_that_is_gone_is_left_alone_and_said_to_be_and_only_erasures_fail(
    pair: Pair, mixed: list[Ask], rate: float
) -> None:
    async def left_alone() -> bool:
        return metrics(pair.one)['refrain_tier_breaker_open{tier="redis"}'] == 1

    async with steady(pair.one.target, mixed, rate) as load:
        with pair.redis.killed():
            await eventually(left_alone)
            with RefrainClient(pair.one.target) as client, pytest.raises(RefrainCallError, match="UNAVAILABLE"):
                await asyncio.to_thread(client.erase, subject_id="me")
        await pair.share()
        assert not await left_alone()
    load.report.check()

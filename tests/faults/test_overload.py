"""More misses than the engines can compute: who is refused is told when to come back, the others are answered."""

from __future__ import annotations

import psutil

from bench.fleet import Pair
from bench.open_loop import Ask, Mode, steady
from tests.faults.conftest import asked

REFUSED = "RESOURCE_EXHAUSTED"


async def test_what_is_too_much_is_refused_with_a_delay_and_memory_stays(
    pair: Pair, asks: list[Ask], rate: float
) -> None:
    process = psutil.Process(pair.one.process.pid)
    before = process.memory_info().rss
    sung = [ask.by(Mode.BYPASS) for ask in asks if ask.method == "Vocode"]
    async with steady(pair.one.target, sung, max(100.0, 20 * rate)) as load:
        while REFUSED not in load.report.codes:
            await load.answered(20)
        peak = process.memory_info().rss
    load.report.check(REFUSED)
    refused = load.report.where(lambda attempt: attempt.code == REFUSED)
    assert all(attempt.retry_s is not None and attempt.retry_s > 0 for attempt in refused.attempts)
    assert len(refused) < len(load.report)
    assert peak < before + (256 << 20)
    await asked(pair.one, asks)

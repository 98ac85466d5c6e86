"""Models that raise, do not end or want too much memory: the request that has them do so ends with an error that says
which it is, and all others are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest

from bench import fleet
from bench.fleet import eventually, speech_of
from bench.open_loop import Ask, learned, steady
from bench.processes import Gateway
from tests.faults import models

WORKERS = 2
STEP_LIMIT_S = 3.0
RATE = 10.0
"""Requests a second; these models take no time to speak of."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("troubled")
    models.troubled_vocoder(folder / "models" / "troubled")
    engines = {"models_dir": str(folder / "models"), "workers": WORKERS, "step_limit": STEP_LIMIT_S}
    gateway = fleet.start(folder, "one", "", {"engines": engines})
    yield gateway
    if gateway.process.poll() is None:
        gateway.stop()


@pytest.fixture(scope="module")
def good(gateway: Gateway) -> list[Ask]:
    """What the vocoder can sing, and texts, which it sings too: half from memory, half anew."""
    asks = [Ask(f"vocode {n}", "Vocode", fleet.vocode(models.mel(models.SINGS, seed=n))) for n in range(8)]
    asks += [Ask(f"say {text!r}", "Synthesize", fleet.say(text)) for text in fleet.TEXTS[:4]]
    known = asyncio.run(learned(gateway.target, asks))
    assert len({ask.right for ask in known}) == len(known)
    return fleet.mixed(known)


def trouble(kind: float, seed: int = 0) -> Any:
    return fleet.vocode(models.mel(kind, seed=seed))


async def code_of(speech: Any, request: Any, timeout: float | None = 60.0) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await speech.Vocode(request, timeout=timeout)
    return raised.value.code(), raised.value.details() or ""


@pytest.mark.parametrize("kind", [models.RAISES, models.HOGS], ids=["raises", "wants petabytes"])
async def test_a_model_that_fails_fails_its_own_request_alone(gateway: Gateway, good: list[Ask], kind: float) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    async with steady(gateway.target, good, RATE) as load, speech_of(gateway) as speech:
        ended = await asyncio.gather(*(code_of(speech, trouble(kind, seed)) for seed in range(6)))
        await load.answered(10)
    load.report.check()
    assert set(ended) == {(grpc.StatusCode.INTERNAL, "the vocode engine could not answer")}
    assert psutil.Process(gateway.process.pid).memory_info().rss < before + (256 << 20)


async def test_models_that_do_not_end_are_broken_off_at_the_deadlines_of_their_calls(
    gateway: Gateway, good: list[Ask]
) -> None:
    async with steady(gateway.target, good, RATE) as load, speech_of(gateway) as speech:
        # In every thread there is, and in line for the next.
        calls = (code_of(speech, trouble(models.HANGS, seed), timeout=1.0) for seed in range(2 * WORKERS))
        assert {code for code, _ in await asyncio.gather(*calls)} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        await load.answered(10)
    load.report.check()


async def test_one_that_does_not_end_and_has_no_deadline_is_broken_off_all_the_same(
    gateway: Gateway, good: list[Ask]
) -> None:
    async with steady(gateway.target, good, RATE) as load, speech_of(gateway) as speech:
        ended = await code_of(speech, trouble(models.HANGS, 10), timeout=None)
        await load.answered(10)
    load.report.check()
    assert ended == (grpc.StatusCode.INTERNAL, "the vocode engine did not answer within 3 s")


async def test_one_that_its_caller_has_left_stops_working(gateway: Gateway, good: list[Ask]) -> None:
    process = psutil.Process(gateway.process.pid)

    async def idle() -> bool:
        before = process.cpu_times()
        await asyncio.sleep(0.2)
        after = process.cpu_times()
        return after.user + after.system - before.user - before.system < 0.1

    async with speech_of(gateway) as speech:
        calls = [speech.Vocode(trouble(models.HANGS, seed)) for seed in range(20, 20 + WORKERS)]
        await eventually(lambda: flights(gateway, WORKERS))
        for call in calls:
            call.cancel()
        await eventually(lambda: flights(gateway, 0), STEP_LIMIT_S)
        await eventually(idle)


async def flights(gateway: Gateway, count: int) -> bool:
    return (await asyncio.to_thread(fleet.metrics, gateway))["refrain_flights"] == count


async def test_a_gateway_whose_models_do_not_end_stops_when_told(gateway: Gateway) -> None:
    """The last of this file, for it ends the gateway."""
    async with speech_of(gateway) as speech:
        calls = [speech.Vocode(trouble(models.HANGS, seed)) for seed in range(30, 30 + WORKERS)]
        await eventually(lambda: flights(gateway, WORKERS))
        await asyncio.to_thread(gateway.stop)
        assert gateway.process.returncode == 0
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, grpc.aio.AioRpcError) for error in ended)

"""The consistency contract as callers see it: restart, several gateways on one Redis, erasure, Redis out of order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from cache_tiers import embedded
from cache_tiers.link import Unavailable
from gateway import app
from protos.refrain.v1 import cache_pb2
from tests.cache_tiers.conftest import Server, until
from tests.gateway.rig import Status, gateway, hear, noise, say

SUBJECT = {"subject_id": "caller 7"}


async def test_memory_survives_a_restart(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        first = await rig.speech.Synthesize(say())
    async with gateway(tmp_path) as rig:
        again = await rig.speech.Synthesize(say())
        assert (again.cache_info.status, again.cache_info.tier) == (Status.HIT_EXACT, "redis")
        assert again.audio_content == first.audio_content
        hot = await rig.speech.Synthesize(say())
        assert (hot.cache_info.status, hot.cache_info.tier) == (Status.HIT_EXACT, "device")
        assert rig.speaker.runs == 0


async def test_a_second_gateway_on_the_same_folder_is_refused_clearly(tmp_path: Path) -> None:
    async with gateway(tmp_path):
        with pytest.raises(Exception, match=r"another|in use|owner"):
            async with gateway(tmp_path):
                pass


async def test_gateways_on_one_redis_share_answers(tmp_path: Path, redis_server: Server) -> None:
    one, two = _both(tmp_path, redis_server)
    async with (
        gateway(one, **_shared(redis_server, tmp_path)) as a,
        gateway(two, **_shared(redis_server, tmp_path)) as b,
    ):
        await a.speech.Synthesize(say())
        await a.running.tier.drain()
        answer = await b.speech.Synthesize(say())
        assert (answer.cache_info.status, answer.cache_info.tier) == (Status.HIT_EXACT, "redis")
        assert b.speaker.runs == 0


async def test_an_erased_subject_is_gone_from_every_gateway(tmp_path: Path, redis_server: Server) -> None:
    one, two = _both(tmp_path, redis_server)
    async with (
        gateway(one, **_shared(redis_server, tmp_path)) as a,
        gateway(two, **_shared(redis_server, tmp_path)) as b,
    ):
        theirs, others = say("Mine.", cache_control=SUBJECT), say("Not mine.")
        for request in (theirs, others):
            await a.speech.Synthesize(request)
        await a.running.tier.drain()
        for request in (theirs, others):
            assert (await b.speech.Synthesize(request)).cache_info.status == Status.HIT_EXACT
        erased = await a.admin.Erase(cache_pb2.EraseRequest(subject_id="caller 7"))
        assert len(erased.acknowledged) == 2
        for rig in (a, b):
            assert (await rig.speech.Synthesize(others)).cache_info.status == Status.HIT_EXACT
        assert (await b.speech.Synthesize(theirs)).cache_info.status == Status.MISS


async def test_an_answer_in_the_making_is_not_stored_after_its_subject_was_erased(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        rig.speaker.open.clear()
        call = asyncio.ensure_future(rig.speech.Synthesize(say(cache_control=SUBJECT)))
        await rig.speaker.started.wait()
        await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="caller 7"))
        rig.speaker.open.set()
        assert (await call).cache_info.status == Status.MISS
        await rig.running.tier.drain()
        assert (await rig.speech.Synthesize(say(cache_control=SUBJECT))).cache_info.status == Status.MISS


async def test_an_erased_voice_is_gone_and_others_stay(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        for name in ("anna", "bert"):
            await rig.speech.Synthesize(say(voice={"name": name}))
        await rig.running.tier.drain()
        await rig.admin.Erase(cache_pb2.EraseRequest(voice="anna"))
        assert (await rig.speech.Synthesize(say(voice={"name": "anna"}))).cache_info.status == Status.MISS
        assert (await rig.speech.Synthesize(say(voice={"name": "bert"}))).cache_info.status == Status.HIT_EXACT


@pytest.mark.parametrize("what", ["entry_id", "voice", "engine", "everything"])
async def test_what_is_invalidated_is_computed_anew(tmp_path: Path, what: str) -> None:
    async with gateway(tmp_path) as rig:
        info = (await rig.speech.Synthesize(say())).cache_info
        await rig.running.tier.drain()
        values = {"entry_id": info.entry_id, "voice": "anna", "engine": info.engine, "everything": True}
        await rig.admin.Invalidate(cache_pb2.InvalidateRequest(**{what: values[what]}))
        assert (await rig.speech.Synthesize(say())).cache_info.status == Status.MISS


@pytest.mark.parametrize("what", ["entry_id", "voice", "everything"])
async def test_what_is_invalidated_before_it_is_written_stays_away(tmp_path: Path, what: str) -> None:
    async with gateway(tmp_path) as rig:
        for n in range(10):
            request = say(f"Text {n}.")
            info = (await rig.speech.Synthesize(request)).cache_info
            values = {"entry_id": info.entry_id, "voice": "anna", "everything": True}
            await rig.admin.Invalidate(cache_pb2.InvalidateRequest(**{what: values[what]}))
            await rig.running.tier.drain()
            assert (await rig.speech.Synthesize(request)).cache_info.status == Status.MISS


async def test_invalidating_everything_says_how_much_that_was(tmp_path: Path) -> None:
    tokens = {"alpha-token": "alpha", "beta-token": "beta"}
    alpha, beta = ((("authorization", f"Bearer {name}-token"),) for name in ("alpha", "beta"))
    async with gateway(tmp_path, tokens=tokens) as rig:
        for n in range(5):
            await rig.speech.Synthesize(say(f"Text {n}."), metadata=alpha)
        await rig.speech.Synthesize(say("Another's."), metadata=beta)
        await rig.running.tier.drain()
        everything = cache_pb2.InvalidateRequest(everything=True)
        assert (await rig.admin.Invalidate(everything, metadata=alpha)).dropped == 5
        assert (await rig.admin.Invalidate(everything, metadata=alpha)).dropped == 0
        assert (await rig.speech.Synthesize(say("Another's."), metadata=beta)).cache_info.status == Status.HIT_EXACT


async def test_erasures_are_acknowledged_while_the_private_redis_rewrites_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "COMPACT_AFTER", 0.01)
    async with gateway(tmp_path) as rig:
        call = rig.running.tier._link.call
        await call("CONFIG", "SET", "rdb-key-save-delay", 200_000)
        for n in range(5):
            request = cache_pb2.EraseRequest(subject_id=f"caller {n}")
            assert len((await rig.admin.Erase(request)).acknowledged) == 1
            await asyncio.sleep(0.03)
        assert (await call("INFO", "persistence"))["aof_rewrite_in_progress"]
    monkeypatch.setattr(embedded, "COMPACT_AFTER", 0.0)
    async with gateway(tmp_path) as rig:  # which drops all five anew
        assert len((await rig.admin.Erase(request)).acknowledged) == 1


async def test_a_gateway_that_was_killed_keeps_no_erasure_of_the_next_one_waiting(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        link = rig.running.tier._link
        await link.call("ZADD", link.names.gateways, int(2e12), "killed")  # it could not leave
    async with gateway(tmp_path) as rig:
        erased = await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="caller 7"))
        assert len(erased.acknowledged) == 1


async def test_warming_computes_once_and_says_what_failed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        requests = [say("One."), say("Two."), say("\u0007")]
        warmed = await rig.admin.Warm(cache_pb2.WarmRequest(requests=requests))
        assert (warmed.computed, warmed.already_cached, len(warmed.failures)) == (2, 0, 1)
        assert "requests[2]" in warmed.failures[0]
        warmed = await rig.admin.Warm(cache_pb2.WarmRequest(requests=requests[:2]))
        assert (warmed.computed, warmed.already_cached) == (0, 2)
        assert (await rig.speech.Synthesize(say("Two."))).cache_info.status == Status.HIT_EXACT


async def test_while_redis_stands_still_requests_are_answered_and_erasure_fails_aloud(
    tmp_path: Path, redis_server: Server
) -> None:
    shared = _shared(redis_server, tmp_path)
    shared["redis"]["get_deadline"] = 0.05
    async with gateway(tmp_path / "a", **shared) as rig:
        await rig.speech.Synthesize(say("Before."))
        with redis_server.paused():
            assert (await rig.speech.Synthesize(say("Before."))).cache_info.status == Status.HIT_EXACT
            assert (await rig.speech.Synthesize(say("During."))).cache_info.status == Status.MISS
            assert (await rig.speech.Synthesize(say("During."))).cache_info.status == Status.HIT_EXACT
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="caller 7"))
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_invalidating_while_redis_stands_still_fails_aloud(tmp_path: Path, redis_server: Server) -> None:
    async with gateway(tmp_path / "a", **_shared(redis_server, tmp_path)) as rig:
        info = (await rig.speech.Synthesize(say())).cache_info
        await rig.running.tier.drain()
        for what in ({"entry_id": info.entry_id}, {"voice": "anna"}, {"everything": True}):
            with redis_server.paused(), pytest.raises(grpc.aio.AioRpcError) as error:
                await rig.admin.Invalidate(cache_pb2.InvalidateRequest(**what))
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_invalidating_everything_says_when_a_gateway_has_not_dropped_it(
    tmp_path: Path, redis_server: Server
) -> None:
    async with gateway(tmp_path / "a", **_shared(redis_server, tmp_path)) as rig:
        link = rig.running.tier._link
        await link.call("ZADD", link.names.gateways, int(2e12), "another, cut off")
        with pytest.raises(grpc.aio.AioRpcError, match="another, cut off") as error:
            await rig.admin.Invalidate(cache_pb2.InvalidateRequest(everything=True))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_work_done_again_and_again_survives_any_failure_and_never_runs_twice_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "FIRST_RETRY_S", 0.001)
    outcomes = [Unavailable("a test's"), ValueError("a test's"), None, OSError("a test's"), None]
    running = done = 0

    async def work() -> None:
        nonlocal running, done
        assert running == 0
        running += 1
        try:
            await asyncio.sleep(0.002)
            outcome = outcomes.pop(0) if outcomes else None
            if outcome is not None:
                raise outcome
            done += 1
        finally:
            await asyncio.sleep(0.002)
            running -= 1

    repeated = app._Repeated(work, "a test's", 0.001)
    for _ in range(3):
        repeated.ask()
        await asyncio.sleep(0.001)
    await until(lambda: not outcomes and done >= 4)
    await repeated.close()


async def test_recognition_of_one_tenants_recording_is_not_recalled_for_another(tmp_path: Path) -> None:
    tokens = {"alpha-token": "alpha", "beta-token": "beta"}
    async with gateway(tmp_path, tokens=tokens) as rig:
        request = hear(noise(), cache_control={"match": "FUZZY"})
        await rig.speech.Recognize(request, metadata=(("authorization", "Bearer alpha-token"),))
        other = await rig.speech.Recognize(request, metadata=(("authorization", "Bearer beta-token"),))
        assert other.cache_info.status == Status.MISS


def _both(tmp_path: Path, server: Server) -> tuple[Path, Path]:
    return tmp_path / "a", tmp_path / "b"


def _shared(server: Server, tmp_path: Path) -> dict[str, dict[str, object]]:
    """Settings of gateways that share a Redis, and so their keys."""
    keys = {"master": str(tmp_path / "master.key"), "digest": str(tmp_path / "digest.key")}
    return {"redis": {"url": server.url}, "keys": keys}

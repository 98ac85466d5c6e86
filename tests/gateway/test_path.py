"""The way of a request through a whole gateway: what is computed, what is remembered, what is shared."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from cache_tiers.entry import CacheKey
from gateway import app
from gateway.admission import Slots
from gateway.errors import DETAILS_KEY
from models.engine import ERRAND, Busy, EngineError, Errand, TooLate
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.cache_tiers.conftest import until
from tests.gateway.rig import Rig, Status, gateway, hear, noise, say

CONTROL = speech_pb2.CacheControl
OLD = {"max_age": {"nanos": 1}}
"""Whatever is stored is older."""


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


async def test_the_second_equal_request_is_an_exact_hit_with_the_same_audio(rig: Rig) -> None:
    first = await rig.speech.Synthesize(say())
    second = await rig.speech.Synthesize(say())
    assert first.cache_info.status == Status.MISS
    assert second.cache_info.status == Status.HIT_EXACT
    assert second.cache_info.tier == "device"
    assert second.cache_info.similarity == 1.0
    assert second.cache_info.engine == rig.speaker.info.identity
    assert (first.audio_content, first.audio_config) == (second.audio_content, second.audio_config)
    assert rig.speaker.runs == 1


@pytest.mark.parametrize(
    "other",
    [
        say("Hello there!"),
        say(voice={"name": "bert"}),
        say(voice={"emotion": "cheerful"}),
        say(audio_config={"speaking_rate": 1.2}),
        say(audio_config={"audio_encoding": "WAV"}),
        say(audio_config={"sample_rate_hertz": 16_000}),
    ],
)
async def test_whatever_can_change_the_answer_is_in_the_key(rig: Rig, other: speech_pb2.SynthesizeRequest) -> None:
    await rig.speech.Synthesize(say())
    assert (await rig.speech.Synthesize(other)).cache_info.status == Status.MISS


async def test_what_is_the_same_by_default_shares_its_key(rig: Rig) -> None:
    await rig.speech.Synthesize(say())
    spelt_out = say("  Hello   there. ", voice={"name": "anna", "emotion": "neutral"}, model="tone-speaker")
    assert (await rig.speech.Synthesize(spelt_out)).cache_info.status == Status.HIT_EXACT


async def test_32_equal_requests_at_once_run_the_engine_once(rig: Rig) -> None:
    rig.speaker.open.clear()
    calls = [asyncio.ensure_future(rig.speech.Synthesize(say())) for _ in range(32)]
    await rig.speaker.started.wait()
    rig.speaker.open.set()
    answers = await asyncio.gather(*calls)
    assert rig.speaker.runs == 1
    statuses = [answer.cache_info.status for answer in answers]
    assert statuses.count(Status.MISS) == 1
    assert set(statuses) <= {Status.MISS, Status.COALESCED, Status.HIT_EXACT}
    assert len({answer.audio_content for answer in answers}) == 1


async def test_a_caller_that_leaves_does_not_break_those_who_follow(rig: Rig) -> None:
    rig.speaker.open.clear()
    leader = rig.speech.Synthesize(say())
    await rig.speaker.started.wait()
    follower = asyncio.ensure_future(rig.speech.Synthesize(say()))
    while rig.running.cache.stats.coalesced == 0:
        await asyncio.sleep(0)  # lets the gateway, on this same loop, take the follower in
    leader.cancel()
    rig.speaker.open.set()
    assert (await follower).cache_info.status == Status.COALESCED
    assert rig.speaker.runs == 1


async def test_an_engine_whose_line_is_full_says_when_to_come_back(rig: Rig) -> None:
    rig.ear.fail = Busy(2.5)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rig.speech.Recognize(hear(noise()))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = from_trailers(error.value)
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5
    rig.ear.fail = None
    assert (await rig.speech.Recognize(hear(noise()))).cache_info.status == Status.MISS


async def test_work_that_would_begin_too_late_is_a_passed_deadline(rig: Rig) -> None:
    rig.speaker.fail = TooLate("later than that")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rig.speech.Synthesize(say())
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_who_followed_a_hurried_call_takes_its_place(rig: Rig) -> None:
    """The deadline that passed was not the follower's."""
    begin = rig.speaker.begin

    async def late_at_first() -> None:
        await begin()
        if rig.speaker.runs == 1:
            raise TooLate("for the first")

    rig.speaker.begin = late_at_first
    rig.speaker.open.clear()
    leader = asyncio.ensure_future(rig.speech.Synthesize(say()))
    await rig.speaker.started.wait()
    follower = asyncio.ensure_future(rig.speech.Synthesize(say()))
    while rig.running.cache.stats.coalesced == 0:
        await asyncio.sleep(0)
    rig.speaker.open.set()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await leader
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await follower).cache_info.status == Status.MISS
    assert rig.speaker.runs == 2


async def test_a_stream_that_followed_a_hurried_call_takes_its_place_too(rig: Rig) -> None:
    """Whole and streamed recognition share their flights; a stream has all the time it wants."""
    begin, sound = rig.ear.begin, hear(noise())

    async def late_at_first() -> None:
        await begin()
        if rig.ear.runs == 1:
            raise TooLate("for the first")

    rig.ear.begin = late_at_first
    rig.ear.open.clear()
    leader = asyncio.ensure_future(rig.speech.Recognize(sound))
    await rig.ear.started.wait()
    config = speech_pb2.StreamingRecognizeRequest(streaming_config={"config": sound.config})
    stream = rig.speech.StreamingRecognize(iter([config, speech_pb2.StreamingRecognizeRequest(audio=sound.content)]))
    while rig.running.cache.stats.coalesced == 0:
        await asyncio.sleep(0)
    rig.ear.open.set()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await leader
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answers = [answer async for answer in stream]
    assert (len(answers), answers[-1].cache_info.status, rig.ear.runs) == (2, Status.MISS, 2)


async def test_engines_are_told_the_deadline_and_whether_somebody_listens(rig: Rig) -> None:
    told: list[Errand] = []
    begin = rig.speaker.begin

    async def noted() -> None:
        told.append(ERRAND.get())
        await begin()

    rig.speaker.begin = noted
    await rig.speech.Synthesize(say())
    await rig.speech.Synthesize(say("Within a minute."), timeout=60.0)
    config = speech_pb2.StreamingSynthesizeRequest(streaming_config=speech_pb2.StreamingSynthesizeConfig())
    text = speech_pb2.StreamingSynthesizeRequest(input={"text": "As it comes."})
    async for _ in rig.speech.StreamingSynthesize(iter([config, text])):
        pass
    assert [errand.early for errand in told] == [False, False, True]
    assert told[0].deadline == math.inf
    assert 0.0 < told[1].deadline - time.monotonic() < 61.0


def from_trailers(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status of a failed call."""
    (data,) = [value for name, value in error.trailing_metadata() if name == DETAILS_KEY]
    return status_pb2.Status.FromString(data)


async def test_bypass_neither_reads_nor_writes(rig: Rig) -> None:
    bypass = {"mode": CONTROL.BYPASS}
    assert (await rig.speech.Synthesize(say(cache_control=bypass))).cache_info.status == Status.BYPASS
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.MISS
    assert (await rig.speech.Synthesize(say(cache_control=bypass))).cache_info.status == Status.BYPASS
    assert rig.speaker.runs == 3


async def test_refresh_computes_anew_and_replaces(rig: Rig) -> None:
    await rig.speech.Synthesize(say())
    refreshed = await rig.speech.Synthesize(say(cache_control={"mode": CONTROL.REFRESH}))
    assert refreshed.cache_info.status == Status.MISS
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.HIT_EXACT
    assert rig.speaker.runs == 2


async def test_only_if_cached_never_runs_an_engine(rig: Rig) -> None:
    cached = {"mode": CONTROL.ONLY_IF_CACHED}
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rig.speech.Synthesize(say(cache_control=cached))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    await rig.speech.Synthesize(say())
    assert (await rig.speech.Synthesize(say(cache_control=cached))).cache_info.status == Status.HIT_EXACT
    assert rig.speaker.runs == 1


async def test_no_store_reads_but_does_not_write(rig: Rig) -> None:
    await rig.speech.Synthesize(say(cache_control={"no_store": True}))
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.MISS
    assert (await rig.speech.Synthesize(say(cache_control={"no_store": True}))).cache_info.status == Status.HIT_EXACT


async def test_an_answer_older_than_max_age_is_computed_anew(rig: Rig) -> None:
    await rig.speech.Synthesize(say())
    fresh = await rig.speech.Synthesize(say(cache_control={"max_age": {"nanos": 1}}))
    assert fresh.cache_info.status == Status.MISS
    any_age = await rig.speech.Synthesize(say(cache_control={"max_age": {"seconds": 3600}}))
    assert any_age.cache_info.status == Status.HIT_EXACT


async def test_32_who_find_an_answer_too_old_at_once_run_the_engine_once(rig: Rig) -> None:
    await rig.speech.Synthesize(say())
    rig.speaker.open.clear()
    rig.speaker.started.clear()
    calls = [asyncio.ensure_future(rig.speech.Synthesize(say(cache_control=OLD))) for _ in range(32)]
    await rig.speaker.started.wait()
    await until(lambda: rig.running.cache.stats.coalesced == 31)
    rig.speaker.open.set()
    statuses = [answer.cache_info.status for answer in await asyncio.gather(*calls)]
    assert rig.speaker.runs == 2
    assert (statuses.count(Status.MISS), statuses.count(Status.COALESCED)) == (1, 31)


async def test_an_old_answer_that_comes_from_redis_is_too_old_for_who_follows(rig: Rig) -> None:
    """A follower may want a younger one than its leader found."""
    await rig.speech.Synthesize(say())
    await until(lambda: rig.running.tier.stats.stored == 1)
    rig.running.cache.device.drop_where(lambda key: True)
    rig.speaker.open.clear()
    requests = [say(), *(say(cache_control=OLD) for _ in range(3))]
    calls = [asyncio.ensure_future(rig.speech.Synthesize(request)) for request in requests]
    await until(lambda: rig.running.cache.stats.coalesced == 2)
    rig.speaker.open.set()
    statuses = [answer.cache_info.status for answer in await asyncio.gather(*calls)]
    assert statuses[0] == Status.HIT_EXACT
    assert rig.speaker.runs == 2
    assert (statuses.count(Status.MISS), statuses.count(Status.COALESCED)) == (1, 2)


async def test_a_failing_engine_is_internal_says_nothing_of_itself_and_is_not_remembered(rig: Rig) -> None:
    rig.speaker.fail = EngineError("secret path /models")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rig.speech.Synthesize(say())
    assert error.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.value.details())
    rig.speaker.fail = None
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.MISS


async def test_an_empty_transcript_is_answered_and_not_stored(rig: Rig) -> None:
    silence_then_noise = np.concatenate([np.zeros(8_000, np.float32), noise(0.4)])
    for _ in range(2):
        answer = await rig.speech.Recognize(hear(silence_then_noise))
        assert not answer.results
        assert answer.cache_info.status == Status.MISS
    assert rig.ear.runs == 2


async def test_recognize_whole_and_streaming_share_their_entry(rig: Rig) -> None:
    request = hear(noise())
    whole = await rig.speech.Recognize(request)
    streamed = [answer async for answer in rig.speech.StreamingRecognize(_pieces(request))]
    assert streamed[-1].cache_info.status == Status.HIT_EXACT
    assert streamed[0].results[0].is_final
    assert streamed[0].results[0].alternatives == whole.results[0].alternatives
    assert rig.ear.runs == 1


async def test_interim_results_come_first_and_only_the_final_one_is_stored(rig: Rig) -> None:
    request = hear(noise())
    answers = [answer async for answer in rig.speech.StreamingRecognize(_pieces(request, interim=True))]
    results = [answer.results[0] for answer in answers if answer.results]
    assert [result.is_final for result in results] == [False] * (len(results) - 1) + [True]
    assert len(results) > 1
    assert answers[-1].cache_info.status == Status.MISS
    assert (await rig.speech.Recognize(request)).cache_info.status == Status.HIT_EXACT
    assert rig.ear.runs == 1


async def _pieces(request: speech_pb2.RecognizeRequest, interim: bool = False) -> AsyncIterator[Any]:
    config = {"config": request.config, "interim_results": interim}
    yield speech_pb2.StreamingRecognizeRequest(streaming_config=config)
    for start in range(0, len(request.content), 4_001):  # an odd size: pieces need not end with a sample
        yield speech_pb2.StreamingRecognizeRequest(audio=request.content[start : start + 4_001])


async def test_streamed_text_is_answered_and_remembered_by_the_sentence(rig: Rig) -> None:
    first = await _speak(rig, ["It is ", "late. Good", " night."])
    again = await _speak(rig, ["Good night."])
    assert [info.status for info in first.infos] == [Status.MISS, Status.MISS]
    assert [info.status for info in again.infos] == [Status.HIT_EXACT]
    assert first.audio.endswith(again.audio)
    assert rig.speaker.runs == 2


class _Spoken:
    def __init__(self, answers: list[Any]) -> None:
        self.audio = b"".join(answer.audio_content for answer in answers)
        self.infos = [answer.cache_info for answer in answers if answer.HasField("cache_info")]


async def _speak(rig: Rig, pieces: list[str]) -> _Spoken:
    async def requests() -> AsyncIterator[Any]:
        yield speech_pb2.StreamingSynthesizeRequest(streaming_config={"voice": {"name": "anna"}})
        for piece in pieces:
            yield speech_pb2.StreamingSynthesizeRequest(input={"text": piece})

    return _Spoken([answer async for answer in rig.speech.StreamingSynthesize(requests())])


async def test_a_streamed_mel_is_answered_at_half_close_and_replayed(rig: Rig) -> None:
    mel = np.full((80, 40), -4.0, "<f4")

    async def requests() -> AsyncIterator[Any]:
        yield speech_pb2.StreamingVocodeRequest(streaming_config={})
        for start in (0, 15):
            piece = np.ascontiguousarray(mel[:, start : 15 if start == 0 else 40])
            yield speech_pb2.StreamingVocodeRequest(mel={"data": piece.tobytes(), "bands": 80})

    first = _Spoken([answer async for answer in rig.speech.StreamingVocode(requests())])
    second = _Spoken([answer async for answer in rig.speech.StreamingVocode(requests())])
    whole = await rig.speech.Vocode(speech_pb2.VocodeRequest(mel={"data": mel.tobytes(), "bands": 80}))
    assert first.audio == second.audio == whole.audio_content
    assert [info.status for info in (*first.infos, *second.infos)] == [Status.MISS, Status.HIT_EXACT]


async def test_answers_that_only_redis_has_are_found_by_the_request_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path, device={"size": 1_000}) as rig:  # too small for any answer
        first = await rig.speech.Synthesize(say())
        await rig.running.tier.drain()
        answers = [await rig.speech.Synthesize(say()) for _ in range(4)]
        assert {(answer.cache_info.status, answer.cache_info.tier) for answer in answers} == {
            (Status.HIT_EXACT, "redis")
        }
        assert {answer.audio_content for answer in answers} == {first.audio_content}
        assert len({answer.cache_info.entry_id for answer in answers}) == 1
        assert rig.speaker.runs == 1
        kept = say(cache_control={"mode": CONTROL.ONLY_IF_CACHED})
        for _ in range(2):
            assert (await rig.speech.Synthesize(kept)).cache_info.tier == "redis"
        assert await rig.running.tier.delete(CacheKey("default", bytes.fromhex(first.cache_info.entry_id[1:])))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.speech.Synthesize(kept)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        again = await rig.speech.Synthesize(say())
        assert (again.cache_info.status, again.audio_content) == (Status.MISS, first.audio_content)
        assert rig.speaker.runs == 2


async def test_a_recording_heard_again_is_answered_by_its_bytes_for_its_own_tenant_and_options(tmp_path: Path) -> None:
    sound = noise(3.0)
    offsets = hear(sound, config={"features": {"enable_word_time_offsets": True}})
    async with gateway(tmp_path, tokens={"a": "alice", "b": "bob"}) as rig:
        alice, bob = ((("authorization", f"Bearer {token}"),) for token in "ab")
        for _ in range(3):
            answer = await rig.speech.Recognize(hear(sound), metadata=alice)
        assert answer.cache_info.status == Status.HIT_EXACT
        assert (await rig.speech.Recognize(hear(sound), metadata=bob)).cache_info.status == Status.MISS
        timed = await rig.speech.Recognize(offsets, metadata=alice)
        assert timed.cache_info.status == Status.MISS
        assert timed.results[0].alternatives[0].words[0].HasField("end_offset")
        assert rig.ear.runs == 3
        for _ in range(2):
            fresh = await rig.speech.Recognize(hear(sound, cache_control={"mode": CONTROL.BYPASS}), metadata=alice)
            assert fresh.cache_info.status == Status.BYPASS


async def test_counts_add_up(rig: Rig) -> None:
    for _ in range(3):
        await rig.speech.Synthesize(say())
    await rig.speech.Synthesize(say(cache_control={"mode": CONTROL.BYPASS}))
    await rig.speech.Recognize(hear(noise()))
    with pytest.raises(grpc.aio.AioRpcError):
        await rig.speech.Synthesize(say(""))
    stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
    assert sum(row.requests for row in stats.outcomes) == 5
    assert stats.failed == 1
    by_status = {(row.task, row.status): row.requests for row in stats.outcomes}
    assert by_status == {
        ("synthesize", Status.MISS): 1,
        ("synthesize", Status.HIT_EXACT): 2,
        ("synthesize", Status.BYPASS): 1,
        ("recognize", Status.MISS): 1,
    }
    saved = next(row.saved_compute for row in stats.outcomes if row.status == Status.HIT_EXACT)
    assert saved.seconds + saved.nanos > 0


async def test_more_callers_than_the_queue_holds_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with gateway(tmp_path, engines={"workers": 1, "queue": 1}) as rig:
        rig.speaker.open.clear()
        running = asyncio.ensure_future(rig.speech.Synthesize(say("One.")))
        await rig.speaker.started.wait()
        others = [asyncio.ensure_future(rig.speech.Synthesize(say(f"Number {n}."))) for n in range(2, 5)]
        done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            error = call.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "try again in" in str(error.details())
        rig.speaker.open.set()
        assert (await running).cache_info.status == Status.MISS
        await asyncio.gather(*waiting, return_exceptions=True)


@contextlib.asynccontextmanager
async def no_room(tmp_path: Path, *known: str, **tables: Any) -> AsyncIterator[tuple[Rig, asyncio.Task[Any]]]:
    """A gateway that knows some texts, and whose only worker is held up by "One.", with no place to wait."""
    async with gateway(tmp_path, engines={"workers": 1, "queue": 0}, **tables) as rig:
        for text in known:
            await rig.speech.Synthesize(say(text))
        await rig.running.tier.drain()
        rig.speaker.open.clear()
        rig.speaker.started.clear()
        running = asyncio.ensure_future(rig.speech.Synthesize(say("One.")))
        await rig.speaker.started.wait()
        yield rig, running
        rig.speaker.open.set()
        await running


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = error_details_pb2.RetryInfo()
    assert from_trailers(caught.value).details[0].Unpack(told)
    assert told.retry_delay.ToTimedelta().total_seconds() > 0
    return caught.value


async def test_with_no_room_only_what_an_engine_must_answer_is_refused(tmp_path: Path) -> None:
    async with no_room(tmp_path, "Known.") as (rig, running):
        runs = rig.speaker.runs
        anew = [say("Known.", cache_control={"mode": mode}) for mode in (CONTROL.BYPASS, CONTROL.REFRESH)]
        for request in (say("New."), say("Known.", cache_control=OLD), *anew):
            await refusal(rig.speech.Synthesize(request))
        assert rig.speaker.runs == runs
        assert len(rig.running.cache.flights) == 1
        assert (await rig.speech.Synthesize(say("Known."))).cache_info.status == Status.HIT_EXACT
        follower = asyncio.ensure_future(rig.speech.Synthesize(say("One.")))
        await until(lambda: rig.running.cache.stats.coalesced)
        rig.speaker.open.set()
        assert (await running).cache_info.status == Status.MISS
        assert (await follower).cache_info.status == Status.COALESCED
        assert (await rig.speech.Synthesize(say("New."))).cache_info.status == Status.MISS


async def test_with_no_room_what_redis_has_is_answered(tmp_path: Path) -> None:
    async with no_room(tmp_path, "Known.", device={"size": 1_000}) as (rig, _):
        info = (await rig.speech.Synthesize(say("Known."))).cache_info
        assert (info.status, info.tier) == (Status.HIT_EXACT, "redis")


async def test_with_no_room_what_looks_nowhere_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """So what is wrong with it is told once there is room."""
    wrong = say("Two.", voice={"name": "nobody"}, cache_control={"mode": CONTROL.BYPASS})
    large = hear(noise(10.0), cache_control={"mode": CONTROL.BYPASS})  # parsed in a thread
    async with no_room(tmp_path) as (rig, running):
        await refusal(rig.speech.Synthesize(wrong))
        await refusal(rig.speech.Recognize(large))
        rig.speaker.open.set()
        await running
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.speech.Synthesize(wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_who_collects_an_answer_holds_one_slot_and_who_hears_it_takes_one_for_each_step(tmp_path: Path) -> None:
    taken: list[bool] = []

    class Counted(Slots):
        def slot(self, **asked: Any) -> Any:
            taken.append(asked.get("admitted", False))
            return super().slot(**asked)

    with mock.patch.object(app, "Slots", Counted):
        async with gateway(tmp_path) as rig:
            whole = await rig.speech.Synthesize(say("One.", audio_config={"audio_encoding": speech_pb2.LINEAR16}))
            assert taken == [False]
            heard = await _speak(rig, ["One."])
    assert heard.audio == whole.audio_content
    assert taken == [False, False, True, True]  # two chunks and the end


TOKENS = {"alpha-token": "alpha", "beta-token": "beta"}


def _as(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_tenants_share_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path, tokens=TOKENS) as rig:
        await rig.speech.Synthesize(say(), metadata=_as("alpha-token"))
        other = await rig.speech.Synthesize(say(), metadata=_as("beta-token"))
        own = await rig.speech.Synthesize(say(), metadata=_as("alpha-token"))
        assert other.cache_info.status == Status.MISS
        assert own.cache_info.status == Status.HIT_EXACT
        stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest(), metadata=_as("beta-token"))
        assert sum(row.requests for row in stats.outcomes) == 1


@pytest.mark.parametrize("metadata", [(), _as("wrong"), (("authorization", "alpha-token"),)])
async def test_without_a_known_token_nothing_is_served(tmp_path: Path, metadata: Any) -> None:
    async with gateway(tmp_path, tokens=TOKENS) as rig:
        for call in (
            rig.speech.Synthesize(say(), metadata=metadata),
            rig.speech.ListVoices(speech_pb2.ListVoicesRequest(), metadata=metadata),
            rig.admin.GetStats(cache_pb2.GetStatsRequest(), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert rig.speaker.runs == 0

"""Streams through a whole gateway: what the engine hears of them, what they may hold, and when they must end."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soundfile
from google.rpc import error_details_pb2, status_pb2

from gateway.audio import AudioCollector
from gateway.budget import Budget
from gateway.errors import Overloaded
from gateway.keys import TenantKeys
from gateway.wire import messages
from models.utterance import MEL_BANDS, Samples, Transcript
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc
from tests.gateway.conftest import threaded
from tests.gateway.rig import Rig, Status, gateway, hear, noise, say

LINEAR16 = {"explicit_decoding_config": {"encoding": "LINEAR16", "sample_rate_hertz": 16_000}}
AUTO: dict[str, Any] = {"auto_decoding_config": {}}
StreamOf = speech_pb2.StreamingRecognizeRequest


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


def _config(config: dict[str, Any] = LINEAR16, **fields: Any) -> Any:
    return StreamOf(streaming_config={"config": config, "interim_results": True, **fields})


async def _sent(first: Any, pieces: Iterable[bytes]) -> AsyncIterator[Any]:
    yield first
    for piece in pieces:
        yield StreamOf(audio=piece)


def _pcm(samples: Samples) -> bytes:
    return bytes(hear(samples).content)


def _cut(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


async def _heard(rig: Rig, first: Any, pieces: Iterable[bytes]) -> tuple[list[str], Any]:
    """All transcripts in order, and the last message."""
    answers = [answer async for answer in rig.speech.StreamingRecognize(_sent(first, pieces))]
    return [result.alternatives[0].transcript for answer in answers for result in answer.results], answers[-1]


def _watched(rig: Rig) -> list[int]:
    """The sizes of the pieces that the streaming recognizer is given from now on."""
    sizes: list[int] = []
    stream = rig.ear.stream

    async def listen(chunks: AsyncIterator[Samples]) -> AsyncGenerator[Transcript, None]:
        async def counted() -> AsyncIterator[Samples]:
            async for chunk in chunks:
                sizes.append(len(chunk))
                yield chunk

        async for transcript in stream(counted()):
            yield transcript

    rig.ear.stream = listen
    return sizes


# ------------------------------------------------------------------------------------------------ what is heard


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS")])
async def test_a_recording_in_a_container_is_read_whole_also_where_interim_results_are_asked_for(
    rig: Rig, form: str, subtype: str
) -> None:
    file = io.BytesIO()
    soundfile.write(file, noise(1.0), 16_000, subtype=subtype, format=form)
    whole = speech_pb2.RecognizeRequest(config=AUTO, content=file.getvalue())
    words, last = await _heard(rig, _config(AUTO), _cut(file.getvalue(), 1_000))
    assert words == ["16000 samples"]
    assert last.cache_info.status == Status.MISS
    again = await rig.speech.Recognize(whole)
    assert again.cache_info.status == Status.HIT_EXACT
    assert again.results[0].alternatives[0].transcript == words[0]


async def test_resampled_sound_is_heard_to_its_end(rig: Rig) -> None:
    """What the resampler holds back until the caller half-closes belongs to the recording too."""
    config = {"explicit_decoding_config": {"encoding": "LINEAR16", "sample_rate_hertz": 44_100}}
    content = _pcm(noise(1.0))
    words, _ = await _heard(rig, _config(config), _cut(content, 3_000))
    whole = await rig.speech.Recognize(
        speech_pb2.RecognizeRequest(config=config, content=content, cache_control={"mode": "BYPASS"})
    )
    assert words[-1] == whole.results[0].alternatives[0].transcript


async def test_words_of_a_part_are_not_taken_for_those_of_the_whole(rig: Rig) -> None:
    async def hasty(chunks: AsyncIterator[Samples]) -> AsyncGenerator[Transcript, None]:
        yield rig.ear.heard(await anext(chunks))

    rig.ear.stream = hasty
    words, last = await _heard(rig, _config(), _cut(_pcm(noise(2.0)), 4_000))
    assert words == ["32000 samples"]
    assert last.cache_info.status == Status.MISS


async def test_only_if_cached_runs_no_engine_for_interim_results_either(rig: Rig) -> None:
    sizes = _watched(rig)
    first = _config(cache_control={"mode": "ONLY_IF_CACHED"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _heard(rig, first, [_pcm(noise())])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert (sizes, rig.ear.runs) == ([], 0)
    await rig.speech.Recognize(hear(noise()))
    _, last = await _heard(rig, first, [_pcm(noise())])
    assert last.cache_info.status == Status.HIT_EXACT
    assert (sizes, rig.ear.runs) == ([], 1)


@pytest.mark.parametrize(("seconds", "size"), [(0.25, 2), (0.5, 641), (3.7, 1 << 20), (12.34, 100_000)])
async def test_the_recognizer_is_given_pieces_of_a_tenth_to_one_second_however_messages_are_cut(
    rig: Rig, seconds: float, size: int
) -> None:
    sizes = _watched(rig)
    words, _ = await _heard(rig, _config(), _cut(_pcm(noise(seconds)), size))
    assert sum(sizes) == int(seconds * 16_000)
    assert all(1_600 <= size <= 16_000 for size in sizes[:-1])
    assert sizes[-1] <= 16_000
    assert words[-1] == f"{sum(sizes)} samples"


# ------------------------------------------------------------------------------------------- what it costs, and whom


async def test_the_time_the_engine_took_while_the_caller_spoke_is_what_a_hit_saves(rig: Rig) -> None:
    begin = rig.ear.begin

    async def slowly() -> None:
        await begin()
        await asyncio.sleep(0.3)

    async def speaking() -> AsyncIterator[Any]:
        yield _config()
        yield StreamOf(audio=_pcm(noise(0.5)))
        await asyncio.sleep(3.0)  # the caller's time, which nobody saves
        yield StreamOf(audio=_pcm(noise(0.5, 1)))

    rig.ear.begin = slowly
    assert [answer async for answer in rig.speech.StreamingRecognize(speaking())]
    both = hear(np.concatenate([noise(0.5), noise(0.5, 1)]))
    info = (await rig.speech.Recognize(both)).cache_info
    assert info.status == Status.HIT_EXACT
    assert 300 <= info.saved_compute.ToMilliseconds() < 3_000
    stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
    assert sum(outcome.compute.ToMilliseconds() for outcome in stats.outcomes) >= 300


async def test_a_caller_who_is_silent_keeps_no_engine_from_others(tmp_path: Path) -> None:
    async with gateway(tmp_path, engines={"workers": 1, "queue": 1}) as rig:
        done = asyncio.Event()

        async def pausing() -> AsyncIterator[Any]:
            yield _config()
            yield StreamOf(audio=_pcm(noise(0.5)))
            await done.wait()

        call = rig.speech.StreamingRecognize(pausing())
        assert (await call.read()).results
        assert (await rig.speech.Synthesize(say())).audio_content
        done.set()
        answer = await call.read()
        while not answer.cache_info.status:
            answer = await call.read()
        assert answer.cache_info.status == Status.MISS


async def test_interim_results_wait_their_turn_and_are_refused_when_the_queue_is_full(tmp_path: Path) -> None:
    async with gateway(tmp_path, engines={"workers": 1, "queue": 0}) as rig:
        rig.speaker.open.clear()
        running = asyncio.ensure_future(rig.speech.Synthesize(say()))
        await rig.speaker.started.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _heard(rig, _config(), [_pcm(noise())])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        rig.speaker.open.set()
        assert (await running).audio_content


# -------------------------------------------------------------------------------------------------- limits


async def test_a_stream_that_goes_quiet_is_ended(tmp_path: Path) -> None:
    async with gateway(tmp_path, listen={"stream_patience": 0.3}) as rig:
        never = asyncio.Event()

        async def quiet() -> AsyncIterator[Any]:
            yield speech_pb2.StreamingSynthesizeRequest(streaming_config={})
            await never.wait()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.speech.StreamingSynthesize(quiet()).read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no message for 0.3 s" in (caught.value.details() or "")


async def test_streams_together_hold_no_more_than_they_may_and_give_it_back(tmp_path: Path) -> None:
    async with gateway(tmp_path, listen={"max_stream_bytes": 1 << 20}) as rig:
        most = _cut(_pcm(noise(25.0)), 100_000)  # 800,000 bytes
        never = asyncio.Event()

        async def holding() -> AsyncIterator[Any]:
            async for message in _sent(_config(), most):
                yield message
            await never.wait()

        holder = rig.speech.StreamingRecognize(holding())
        while (await holder.read()).results[0].alternatives[0].transcript != "piece 25":
            pass
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _heard(rig, _config(), most)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1048576 bytes" in (caught.value.details() or "")
        assert _retry_s(caught.value) == 1.0
        holder.cancel()
        async with asyncio.timeout(20):
            while await _refused(rig, most):  # until the gateway has noticed
                await asyncio.sleep(0.02)


async def _refused(rig: Rig, pieces: list[bytes]) -> bool:
    try:
        words, _ = await _heard(rig, _config(), pieces)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return True
    assert words[-1] == "400000 samples"
    return False


def _retry_s(error: Any) -> float:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    return float(info.retry_delay.ToMilliseconds() / 1e3)


def test_a_budget_is_shared_and_given_back() -> None:
    budget = Budget(100)
    with budget.share() as one:
        one.keeps(60)
        with budget.share() as other:
            other.keeps(40)
            with pytest.raises(Overloaded):
                other.keeps(41)
        assert budget.held == 60
        one.keeps(10)
        assert budget.held == 10
    assert budget.held == 0


async def test_a_config_as_long_as_sound_is_refused(rig: Rig) -> None:
    for first in (_config({"language_codes": ["en-US"] * 20_000}), StreamOf(audio=bytes(100_000))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _heard(rig, first, [])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------------------------------- large messages, lost callers


class Threads:
    """Notes in which threads something is called."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, work: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(threading.current_thread().name)
            return work(*args, **kwargs)

        return noted

    @property
    def none_is_the_loop(self) -> bool:
        return bool(self.seen) and threading.current_thread().name not in self.seen


async def test_a_large_request_is_parsed_decoded_and_hashed_off_the_event_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, hashing = Threads(), Threads()
    monkeypatch.setattr(messages, "parse", parsing.note(messages.parse))
    monkeypatch.setattr(TenantKeys, "input_digest", hashing.note(TenantKeys.input_digest))
    mel = np.full((MEL_BANDS, 1_000), -4.0, "<f4").tobytes()
    await rig.speech.Recognize(hear(noise(10.0)))
    await rig.speech.Vocode(speech_pb2.VocodeRequest(mel={"data": mel, "bands": MEL_BANDS}))
    assert parsing.none_is_the_loop
    assert hashing.none_is_the_loop
    await rig.speech.Recognize(hear(noise(1.0)))
    assert not parsing.none_is_the_loop  # which costs a small one less than a thread does


async def test_a_large_message_of_a_stream_is_taken_in_off_the_event_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushing, hashing = Threads(), Threads()
    monkeypatch.setattr(AudioCollector, "push", pushing.note(AudioCollector.push))
    monkeypatch.setattr(TenantKeys, "input_digest", hashing.note(TenantKeys.input_digest))
    await _heard(rig, _config(), [_pcm(noise(10.0))])
    assert pushing.none_is_the_loop
    assert hashing.none_is_the_loop


async def test_callers_who_leave_are_counted(rig: Rig) -> None:
    rig.speaker.open.clear()
    with pytest.raises(grpc.aio.AioRpcError):
        await rig.speech.Synthesize(say("Too slow."), timeout=0.5)
    await _counted(rig, 1)
    unary = rig.speech.Synthesize(say("Never mind."))
    await asyncio.sleep(0.1)
    unary.cancel()
    await _counted(rig, 2)
    rig.speaker.started.clear()
    stream = rig.speech.StreamingSynthesize(_saying("Hello there. "))
    await rig.speaker.started.wait()
    stream.cancel()
    await _counted(rig, 3)


async def _saying(text: str) -> AsyncIterator[Any]:
    """A stream that goes on."""
    yield speech_pb2.StreamingSynthesizeRequest(streaming_config={})
    yield speech_pb2.StreamingSynthesizeRequest(input={"text": text})
    await asyncio.Event().wait()


async def test_callers_who_leave_in_the_middle_of_a_stream_leave_nothing_behind(rig: Rig) -> None:
    """Some while an answer is on its way, when gRPC has let go of the call: touching its context then was a crash."""
    for number in range(30):
        stream = rig.speech.StreamingSynthesize(_saying(f"Hello number {number}. "))
        await stream.read()
        stream.cancel()
    assert (await rig.speech.Synthesize(say())).audio_content
    async with asyncio.timeout(20):
        while rig.running.cache.device.stats.leased_bytes or len(rig.running.cache.flights):
            await asyncio.sleep(0.02)


def test_callers_whose_time_was_up_before_their_turn_have_left_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their address is gone with them; they are not taken for strangers, nor their absence for an error."""
    with threaded(tmp_path) as rig, grpc.insecure_channel(f"127.0.0.1:{rig.running.port}") as channel:
        stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        held, go = threading.Event(), threading.Event()

        async def hold() -> None:
            held.set()
            go.wait(30)  # the event loop: nobody's call is taken up meanwhile

        rig.speaker.begin = hold
        first = stub.Synthesize.future(say())
        assert held.wait(30)
        config = speech_pb2.StreamingSynthesizeRequest(streaming_config={})
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.StreamingSynthesize(iter([config]), timeout=0.05))
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        go.set()
        assert first.result(30).audio_content
        admin: Any = cache_pb2_grpc.CacheAdminStub(channel)  # type: ignore[no-untyped-call]
        longest = time.monotonic() + 20
        while admin.GetStats(cache_pb2.GetStatsRequest()).failed < 3:
            assert time.monotonic() < longest, "those who left are not counted as the tenant's"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def _counted(rig: Rig, failed: int) -> None:
    """Waits for the gateway to have noticed."""
    seen = 0
    async with asyncio.timeout(20):
        while seen < failed:
            await asyncio.sleep(0.02)
            seen = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).failed
    assert seen == failed

"""What is wrong with a request is said by field, value and what is allowed; nothing is stored; the server serves on.

Through real gRPC, so that what gRPC itself refuses is seen as callers see it.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc
from tests.gateway.rig import Rig, hear, noise, say

INVALID = grpc.StatusCode.INVALID_ARGUMENT
AUTO = {"auto_decoding_config": {}}


def _wav(samples: Any, rate: int = 16_000, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=form)
    return file.getvalue()


def _auto(content: bytes) -> speech_pb2.RecognizeRequest:
    return speech_pb2.RecognizeRequest(config=AUTO, content=content)


def _pcm(content: bytes, rate: int = 16_000, encoding: int = speech_pb2.LINEAR16) -> speech_pb2.RecognizeRequest:
    explicit = {"encoding": encoding, "sample_rate_hertz": rate}
    return speech_pb2.RecognizeRequest(config={"explicit_decoding_config": explicit}, content=content)


def _mel(frames: int = 40, value: float = -4.0, **fields: Any) -> speech_pb2.VocodeRequest:
    data = np.full((80, frames), value, "<f4").tobytes()
    return speech_pb2.VocodeRequest(mel={"data": data, "bands": 80, **fields})


def _bad_audio() -> Iterator[tuple[str, speech_pb2.RecognizeRequest, str]]:
    sound = noise(1.0)
    nan = sound.copy()
    nan[100] = np.nan
    wav = _wav(sound)
    yield "empty", _pcm(b""), "content"
    yield "silent", hear(np.zeros(16_000, np.float32)), "content"
    yield "half a sample", _pcm(b"\1\2\3" * 1_667), "content"
    yield "0.05 s", hear(noise(0.05)), "content"
    yield (
        "more than 10 min",
        _pcm(np.tile(np.array([100, -100], "<i1"), 8_000 * 601 // 2).tobytes(), 8_000, 4),
        "content",
    )
    yield "NaN", _auto(_wav(nan, subtype="FLOAT")), "content"
    yield "truncated flac", _auto(_wav(sound, form="FLAC")[:2_000]), "content"
    yield "truncated header", _auto(wav[:20]), "content"
    yield "random bytes", _auto(random.Random(1).randbytes(5_000)), "content"
    yield "mislabelled", _pcm(wav, 16_000, speech_pb2.FLAC), "content"
    yield "wrong rate", _pcm(wav, 8_000, speech_pb2.WAV), "config.explicit_decoding_config.sample_rate_hertz"
    yield "no rate", _pcm(wav, 0), "config.explicit_decoding_config.sample_rate_hertz"
    yield "a rate too high", _pcm(wav, 96_000), "config.explicit_decoding_config.sample_rate_hertz"
    yield "an unknown encoding", _pcm(wav, 16_000, 99), "config.explicit_decoding_config.encoding"
    yield "an unknown model", hear(sound, config={"model": "whisper-9"}), "config.model"
    yield "an unknown language", hear(sound, config={"language_codes": ["xx-XX"]}), "config.language_codes"
    control = {"min_similarity": float("nan")}
    yield "a similarity of NaN", hear(sound, cache_control=control), "cache_control.min_similarity"


def _bad_text() -> Iterator[tuple[str, speech_pb2.SynthesizeRequest, str]]:
    yield "empty", say(""), "input.text"
    yield "blank", say(" \n\t "), "input.text"
    yield "100,000 characters", say("a" * 100_000), "input.text"
    yield "control characters", say("a\x00b\x1bc"), "input.text"
    yield "emoji only", say("🙂🙃"), "input.text"
    yield "a sign alone", say("™"), "input.text"
    yield "more than any request needs", say("é" * 1_000_000), "input.text"
    yield "right to left", say("שלום עולם"), "input.text"
    yield "an unknown voice", say(voice={"name": "nobody"}), "voice.name"
    yield "an unknown emotion", say(voice={"emotion": "hungry"}), "voice.emotion"
    yield "an unknown model", say(model="none"), "model"
    yield "an embedding too short", say(voice={"embedding": {"values": [1.0] * 7}}), "voice.embedding.values"
    yield "an embedding of zeros", say(voice={"embedding": {"values": [0.0] * 256}}), "voice.embedding.values"
    yield "an embedding with NaN", say(voice={"embedding": {"values": [float("nan")] * 256}}), "voice.embedding.values"
    yield "an embedding near nobody", say(voice={"embedding": {"values": [1.0] * 256}}), "voice.embedding"
    yield "too fast", say(audio_config={"speaking_rate": 9.0}), "audio_config.speaking_rate"
    yield "a rate too low", say(audio_config={"sample_rate_hertz": 100}), "audio_config.sample_rate_hertz"
    yield "an unknown mode", say(cache_control={"mode": 77}), "cache_control.mode"
    yield "a negative ttl", say(cache_control={"ttl": {"seconds": -1}}), "cache_control.ttl"
    yield "a long subject", say(cache_control={"subject_id": "x" * 129}), "cache_control.subject_id"


def _bad_mel() -> Iterator[tuple[str, speech_pb2.VocodeRequest, str]]:
    yield "empty", speech_pb2.VocodeRequest(mel={"bands": 80}), "mel.data"
    yield "other bands", _mel(bands=64), "mel.bands"
    yield "another rate", _mel(sample_rate_hertz=24_000), "mel.sample_rate_hertz"
    yield "another hop", _mel(hop_length=128), "mel.hop_length"
    yield "not whole frames", speech_pb2.VocodeRequest(mel={"data": b"\0" * 322, "bands": 80}), "mel.data"
    yield "out of range", _mel(value=90.0), "mel.data"
    yield "NaN", _mel(value=float("nan")), "mel.data"
    yield "infinite", _mel(value=float("-inf")), "mel.data"


CASES = [
    *(("Recognize", *case) for case in _bad_audio()),
    *(("Synthesize", *case) for case in _bad_text()),
    *(("Vocode", *case) for case in _bad_mel()),
]


@pytest.mark.parametrize(("method", "what", "request_", "field"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_a_bad_request_is_refused_by_field(
    served: Rig, channel: grpc.Channel, method: str, what: str, request_: Any, field: str
) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    runs = served.speaker.runs + served.ear.runs + served.singer.runs
    stores = served.running.cache.stats.stored
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_)
    error: Any = caught.value
    assert error.code() is INVALID
    violations = _violations(error)
    assert [violation.field for violation in violations] == [field]
    assert "allowed" in violations[0].description
    assert field in error.details()
    assert len(error.details()) < 1_500
    assert (served.speaker.runs + served.ear.runs + served.singer.runs, served.running.cache.stats.stored) == (
        runs,
        stores,
    )
    assert stub.Synthesize(say("Still here.")).audio_content


def _violations(error: Any) -> list[Any]:
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(packed)
    request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(request)
    return list(request.field_violations)


def test_a_message_over_the_size_limit_is_resource_exhausted(channel: grpc.Channel) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Recognize(_pcm(bytes(7 << 20)))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.Synthesize(say("Still here.")).audio_content


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [speech_pb2.StreamingRecognizeRequest(audio=b"1234")],
        [speech_pb2.StreamingRecognizeRequest(streaming_config={"config": AUTO})] * 2,
        [speech_pb2.StreamingRecognizeRequest(streaming_config={"config": AUTO})],
    ],
    ids=["nothing", "sound first", "config twice", "no sound"],
)
def test_a_stream_in_the_wrong_order_is_refused(channel: grpc.Channel, messages: list[Any]) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(iter(messages)))
    error: Any = caught.value
    assert error.code() is INVALID


def _field(number: int, content: bytes) -> bytes:
    """A message with nothing but a field that holds another one (protobuf encoding guide)."""
    length, size = len(content), bytearray()
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes((number << 3 | 2, *size, length)) + content


def _oversized() -> Iterator[tuple[str, bytes]]:
    """Messages that would weigh many times more when parsed than they do as bytes, or that nobody needs so long."""
    warm = cache_pb2.WarmRequest(requests=[speech_pb2.SynthesizeRequest()] * 100_000)
    yield "CacheAdmin/Warm", warm.SerializeToString()
    erase = cache_pb2.EraseRequest(subject_id="x" * 100_000)
    yield "CacheAdmin/Erase", erase.SerializeToString()
    listing = speech_pb2.ListVoicesRequest(language_code="x" * 100_000)
    yield "Speech/ListVoices", listing.SerializeToString()
    languages = speech_pb2.RecognizeRequest(config={"language_codes": [""] * 100_000}, content=b"1234")
    yield "Speech/Recognize", languages.SerializeToString()
    yield "CacheAdmin/ExplainRecall", languages.SerializeToString()
    many = speech_pb2.RecognizeRequest(config={}, content=bytes(100_000)).SerializeToString() + b"\x20\x00" * 5_000
    yield "Speech/Recognize", many
    turns = b"\x0a\x00\x12\x00" * 50_000  # either decoding of a sample, or either voice, each one made anew
    yield "Speech/EmbedVoice", _field(1, turns)
    yield "Speech/Synthesize", _field(2, turns)
    yield "Speech/Synthesize", _field(2, _field(5, turns))


@pytest.mark.parametrize(("method", "data"), [*_oversized()], ids=lambda value: value if isinstance(value, str) else "")
def test_a_message_that_would_grow_when_parsed_is_refused_before_it_is(
    channel: grpc.Channel, method: str, data: bytes
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/refrain.v1.{method}")(data)
    error: Any = caught.value
    assert error.code() is INVALID
    assert "at most 65536 bytes" in error.details()


UNARY = {
    "Speech": ("Recognize", "Synthesize", "Vocode", "EmbedVoice", "ListVoices", "ListModels"),
    "CacheAdmin": ("Warm", "Invalidate", "Erase", "ReportWrongHit", "ExplainRecall", "GetStats"),
}
STREAMS = ("StreamingRecognize", "StreamingSynthesize", "StreamingVocode")
ANSWERED = (INVALID, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(data=st.binary(max_size=300))
def test_random_bytes_get_an_answer_from_every_unary_call(channel: grpc.Channel, data: bytes) -> None:
    for service, methods in UNARY.items():
        for method in methods:
            call = channel.unary_unary(f"/refrain.v1.{service}/{method}")
            try:
                call(data, timeout=20)
            except grpc.RpcError as error:
                assert error.code() in ANSWERED, f"{method} {data!r}: {error}"  # type: ignore[attr-defined]


@PROPERTY
@given(messages=st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_get_an_answer_from_every_stream(channel: grpc.Channel, messages: list[bytes]) -> None:
    for method in STREAMS:
        call = channel.stream_stream(f"/refrain.v1.Speech/{method}")
        try:
            list(call(iter(messages), timeout=20))
        except grpc.RpcError as error:
            assert error.code() in ANSWERED, f"{method} {messages!r}: {error}"  # type: ignore[attr-defined]


@PROPERTY
@given(content=st.binary(max_size=2_000), encoding=st.integers(0, 6), rate=st.sampled_from([0, 8_000, 16_000, 48_000]))
def test_random_sound_gets_an_answer(channel: grpc.Channel, content: bytes, encoding: int, rate: int) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    try:
        stub.Recognize(_pcm(content, rate, encoding), timeout=20)
    except grpc.RpcError as error:
        assert error.code() is INVALID, str(error)  # type: ignore[attr-defined]


@PROPERTY
@given(
    content=st.binary(max_size=2_000) | st.integers(0, 40_000).map(lambda count: b"\1\40" * count),
    encoding=st.integers(0, 6),
    rate=st.sampled_from([0, 8_000, 16_000, 48_000]),
    dimensions=st.sampled_from([0, 8, 256]) | st.integers(-(2**31), 2**31 - 1),
)
def test_a_random_voice_or_example_gets_an_answer(
    channel: grpc.Channel, content: bytes, encoding: int, rate: int, dimensions: int
) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    explicit = {"encoding": encoding, "sample_rate_hertz": rate}
    sample = speech_pb2.VoiceSample(content=content, explicit_decoding_config=explicit if encoding else None)
    control = {"match": speech_pb2.CacheControl.FUZZY}
    for call, request in (
        (stub.EmbedVoice, speech_pb2.EmbedVoiceRequest(recording=sample, dimensions=dimensions)),
        (stub.Synthesize, say(voice={"emotion_audio": sample}, cache_control=control)),
    ):
        try:
            call(request, timeout=20)
        except grpc.RpcError as error:
            assert error.code() is INVALID, str(error)  # type: ignore[attr-defined]


@PROPERTY
@given(values=st.sampled_from([8, 256]).flatmap(lambda n: st.lists(st.floats(width=32), min_size=n, max_size=n)))
def test_a_random_embedding_gets_an_answer(channel: grpc.Channel, values: list[float]) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    control = {"match": speech_pb2.CacheControl.FUZZY}
    try:
        stub.Synthesize(say(voice={"embedding": {"values": values}}, cache_control=control), timeout=20)
    except grpc.RpcError as error:
        assert error.code() is INVALID, str(error)  # type: ignore[attr-defined]


def test_an_expired_deadline_and_a_cancelled_call_leave_the_server_serving(served: Rig, channel: grpc.Channel) -> None:
    stub: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Synthesize(say("Too late."), timeout=-1.0)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = stub.Synthesize.future(say("Never mind."))
    call.cancel()
    assert stub.Synthesize(say("Still here.")).audio_content


def test_health_and_reflection_know_the_services(channel: grpc.Channel) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "refrain.v1.Speech", "refrain.v1.CacheAdmin"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"refrain.v1.Speech", "refrain.v1.CacheAdmin", "grpc.health.v1.Health"} <= set(services)


def test_stats_stub_is_served(channel: grpc.Channel) -> None:
    stub: Any = cache_pb2_grpc.CacheAdminStub(channel)  # type: ignore[no-untyped-call]
    assert stub.GetStats(cache_pb2.GetStatsRequest()).tiers

"""The wire: each field is checked and refused by name, equal requests decode equal, a frame merges with its suffix."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import wire
from gateway.audio import Encoding, Output, encode, waveform
from gateway.errors import BadField, NotServed, RefrainError, TooLarge
from gateway.wire.messages import parse
from gateway.wire.requests import EMBEDDING_LENGTHS, MEL_FRAMES
from models.utterance import Mel, Text, Transcript, Waveform, Word
from protos.refrain.v1 import cache_pb2
from protos.refrain.v1 import speech_pb2 as pb

LIMITS = wire.Limits(
    models={
        "recognize": ("ear", "ear-2"),
        "synthesize": ("mouth", "mouth-2"),
        "vocode": ("throat",),
        "embed": ("nose",),
    },
    languages=("en-US", "en-GB"),
    voices=frozenset({"amy", "bob"} | {f"v{i:02}" for i in range(20)}),
    emotions=frozenset({"neutral", "cheerful"}),
)
PCM = np.rint(9_000 * np.sin(np.arange(8_000) / 9)).astype("<i2").tobytes()
FLAC = encode(waveform(PCM).samples, 16_000, Output(Encoding.FLAC, 16_000))
MEL = np.linspace(-11.5, 2.0, 80 * 7).astype("<f4").tobytes()
L16 = {"encoding": 1, "sample_rate_hertz": 16_000}
Fields = dict[str, Any]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def recognize(config: Fields | None = None, content: bytes = PCM, control: Fields | None = None) -> pb.RecognizeRequest:
    fields: Fields = {"explicit_decoding_config": L16} | (config or {})
    return pb.RecognizeRequest(config=pb.RecognitionConfig(**fields), content=content, cache_control=control)


def synthesize(text: str = "Hello there", **fields: Any) -> pb.SynthesizeRequest:
    return pb.SynthesizeRequest(input=pb.SynthesisInput(text=text), **fields)


def vocode(mel: Fields | None = None, **fields: Any) -> pb.VocodeRequest:
    values: Fields = {"data": MEL, "bands": 80} | (mel or {})
    return pb.VocodeRequest(mel=pb.MelSpectrogram(**values), **fields)


def embed(sample: Fields | None = None, content: bytes = PCM, **fields: Any) -> pb.EmbedVoiceRequest:
    values: Fields = {"explicit_decoding_config": L16} | (sample or {})
    return pb.EmbedVoiceRequest(recording=pb.VoiceSample(content=content, **values), **fields)


def decode(message: Message) -> wire.Decoded:
    return DECODERS[type(message)](message, LIMITS)


DECODERS: dict[type[Message], Callable[..., wire.Decoded]] = {
    pb.RecognizeRequest: wire.decode_recognize,
    pb.SynthesizeRequest: wire.decode_synthesize,
    pb.VocodeRequest: wire.decode_vocode,
    pb.EmbedVoiceRequest: wire.decode_embed,
    pb.StreamingRecognitionConfig: wire.decode_streaming_recognize_config,
    pb.StreamingSynthesizeConfig: wire.decode_streaming_synthesize_config,
    pb.StreamingVocodeConfig: wire.decode_streaming_vocode_config,
}


# ------------------------------------------------------------------------------------------------------- accepted


def test_embed() -> None:
    decoded = wire.Decoded(PCM, None, "", 1.0, "", "", None, 16, wire.DEFAULT_CONTROL, 0.5)
    assert decode(embed(dimensions=16)) == decoded
    whole = decode(embed(model="nose"))
    assert (whole.model, whole.features) == ("nose", 256)
    with pytest.raises(NotServed, match="no voice encoder"):
        wire.decode_embed(embed(), wire.Limits())


def test_a_mood_by_example_is_left_to_be_heard() -> None:
    example = {"explicit_decoding_config": L16, "content": PCM}
    decoded = decode(synthesize(voice={"name": "amy", "emotion_audio": example}))
    assert (decoded.voice, decoded.emotion, decoded.example) == ("amy", "", PCM)
    named = decode(synthesize(voice={"emotion": "cheerful", "emotion_audio": {"content": b"no sound"}}))
    assert (named.emotion, named.example) == ("cheerful", b"")


def test_recognize() -> None:
    request = recognize({"language_codes": ["EN-gb"], "model": "ear-2", "features": {"enable_word_confidence": True}})
    assert decode(request) == wire.Decoded(
        PCM, None, "", 1.0, "en-GB", "ear-2", None, wire.CONFIDENCE, wire.DEFAULT_CONTROL, 0.5
    )


def test_synthesize() -> None:
    request = synthesize(
        " Hello\n there ",
        voice={"name": "amy", "language_code": "en", "emotion": "cheerful"},
        audio_config={"audio_encoding": 2, "sample_rate_hertz": 16_000, "speaking_rate": 1.25},
    )
    assert decode(request) == wire.Decoded(
        b"Hello there",
        "amy",
        "cheerful",
        1.25,
        "en-US",
        "",
        Output(Encoding.WAV, 16_000),
        0,
        wire.DEFAULT_CONTROL,
        0,
    )


def test_vocode() -> None:
    decoded = decode(vocode(model="throat"))
    assert replace(decoded, input_seconds=0) == wire.Decoded(
        MEL, None, "", 1.0, "", "throat", Output(Encoding.LINEAR16, 22_050), 0, wire.DEFAULT_CONTROL, 0
    )
    assert decoded.input_seconds == pytest.approx(7 * 256 / 22_050)


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        (synthesize("caf\u00e9  now"), synthesize("cafe\u0301 now\n")),
        (synthesize(), synthesize(voice={"emotion": "neutral", "language_code": "en-us"})),
        (synthesize(), synthesize(audio_config={"audio_encoding": 1, "sample_rate_hertz": 22_050, "speaking_rate": 1})),
        (synthesize(), synthesize(cache_control={})),
        (
            synthesize(audio_config={"audio_encoding": 4}),
            synthesize(audio_config={"audio_encoding": 4, "sample_rate_hertz": 8_000}),
        ),
        (
            recognize(),
            recognize({"explicit_decoding_config": None, "auto_decoding_config": {}}, FLAC),
        ),
        (vocode(), vocode({"sample_rate_hertz": 22_050, "hop_length": 256})),
    ],
)
def test_what_means_the_same_decodes_the_same(spelt: Message, meant: Message) -> None:
    assert decode(spelt) == decode(meant)


@pytest.mark.parametrize("length", EMBEDDING_LENGTHS)
def test_embeddings_of_every_nested_length(length: int) -> None:
    decoded = decode(synthesize(voice={"embedding": {"values": [0.5] * length}}))
    assert decoded.voice == (0.5,) * length


def test_control() -> None:
    control = {"mode": 3, "no_store": True, "match": 2, "ttl": {"seconds": 90, "nanos": 500_000_000}, "max_age": {}}
    control |= {"min_similarity": 0.75, "session_id": "s", "subject_id": "p" * 128}
    want = wire.Control(wire.Mode.ONLY_IF_CACHED, True, wire.Match.FUZZY, 90.5, 0.0, 0.75, "s", "p" * 128)
    assert decode(synthesize(cache_control=control)).control == want
    assert decode(synthesize(cache_control={"ttl": {}})).control.ttl_s is None


def test_contents_are_made_from_what_was_hashed() -> None:
    wave = wire.utterance_content("recognize", PCM)
    assert isinstance(wave, Waveform)
    assert (wave.rate, wave.seconds, wave.samples.dtype.name) == (16_000, 0.5, "float32")
    assert wire.utterance_content("synthesize", "caf\u00e9".encode()) == Text("caf\u00e9")
    mel = wire.utterance_content("vocode", MEL)
    assert isinstance(mel, Mel)
    assert mel.frames.shape == (80, 7)
    assert mel.frames.astype("<f4").tobytes() == MEL


def test_enums_are_numbered_as_in_the_proto() -> None:
    assert {m.name: int(m) for m in wire.Mode} == dict(pb.CacheControl.Mode.items())
    assert [int(m) for m in wire.Match] == list(pb.CacheControl.Match.values())
    assert {s.name: int(s) for s in wire.Status} == {n: v for n, v in pb.CacheInfo.Status.items() if v}


# -------------------------------------------------------------------------------------------------------- refused

NAN = math.nan
CONFIG = "config.explicit_decoding_config"


def explicit(**fields: Any) -> pb.RecognizeRequest:
    return recognize({"explicit_decoding_config": L16 | fields})


def output(**fields: Any) -> pb.SynthesizeRequest:
    return synthesize(audio_config=fields)


def control(**fields: Any) -> pb.SynthesizeRequest:
    return synthesize(cache_control=fields)


def embedding(*values: float) -> pb.SynthesizeRequest:
    return synthesize(voice={"embedding": {"values": values}})


def mel(values: Any = None, **fields: Any) -> pb.VocodeRequest:
    return vocode(fields if values is None else {"data": np.asarray(values, "<f4").tobytes()} | fields)


REFUSED: list[tuple[Message, str, str]] = [
    (recognize(content=b""), "content", "empty"),
    (recognize(content=PCM[:-1]), "content", "truncated"),
    (recognize(content=bytes(16_000)), "content", "digital silence"),
    (pb.RecognizeRequest(content=PCM), "content", CONFIG),
    (explicit(encoding=0), f"{CONFIG}.encoding", "LINEAR16, WAV, FLAC, MULAW, OGG_OPUS"),
    (explicit(encoding=77), f"{CONFIG}.encoding", "77"),
    (explicit(sample_rate_hertz=0), f"{CONFIG}.sample_rate_hertz", "required for LINEAR16"),
    (explicit(sample_rate_hertz=7_999), f"{CONFIG}.sample_rate_hertz", "8000 to 48000 Hz"),
    (explicit(sample_rate_hertz=-1, encoding=2), f"{CONFIG}.sample_rate_hertz", "-1"),
    (explicit(audio_channel_count=3), f"{CONFIG}.audio_channel_count", "1 or 2"),
    (recognize({"language_codes": ["de-DE"]}), "config.language_codes", "en-GB, en-US"),
    (recognize({"language_codes": ["en-US", "en-GB"]}), "config.language_codes", "at most one"),
    (recognize({"model": "mouth"}), "config.model", "ear, ear-2"),
    (synthesize(""), "input.text", "1 to 5000 bytes"),
    (synthesize("x" * 100_000), "input.text", "(100000 characters)"),
    (synthesize("bell\a"), "input.text", "U+0007"),
    (synthesize("\N{GRINNING FACE}" * 3), "input.text", "Latin letters or digits"),
    (synthesize("\u05e9\u05dc\u05d5\u05dd"), "input.text", "nothing this voice can speak"),
    (pb.SynthesizeRequest(), "input.text", "''"),
    (synthesize(voice={"name": "eve"}), "voice.name", "amy, bob, v00"),
    (synthesize(voice={"name": "eve"}), "voice.name", "and 12 more"),
    (synthesize(voice={"emotion": "Cheerful"}), "voice.emotion", "cheerful, neutral"),
    (synthesize(voice={"language_code": "e"}), "voice.language_code", "en-GB, en-US"),
    (synthesize(model="ear"), "model", "mouth, mouth-2"),
    (embedding(), "voice.embedding.values", "0 numbers"),
    (embedding(*[1.0] * 255), "voice.embedding.values", "255 numbers"),
    (embedding(*[0.0] * 256), "voice.embedding.values", "not all zero"),
    (embedding(*[1.0] * 7, NAN), "voice.embedding.values", "finite"),
    (embedding(*[1.0] * 7, -math.inf), "voice.embedding.values", "finite"),
    (output(audio_encoding=6), "audio_config.audio_encoding", "6"),
    (output(audio_encoding=-1), "audio_config.audio_encoding", "-1"),
    (output(sample_rate_hertz=48_001), "audio_config.sample_rate_hertz", "8000 to 48000 Hz, or 0"),
    (output(sample_rate_hertz=22_050, audio_encoding=5), "audio_config.sample_rate_hertz", "8000, 12000, 16000"),
    (output(speaking_rate=0.4), "audio_config.speaking_rate", "0.5 to 2"),
    (output(speaking_rate=NAN), "audio_config.speaking_rate", "nan"),
    (output(speaking_rate=-1), "audio_config.speaking_rate", "-1"),
    (control(mode=9), "cache_control.mode", "DEFAULT, BYPASS, REFRESH, ONLY_IF_CACHED"),
    (control(match=9), "cache_control.match", "EXACT or FUZZY"),
    (control(ttl={"seconds": 366 * 86_400 + 1}), "cache_control.ttl", "366 days"),
    (control(ttl={"seconds": -1}), "cache_control.ttl", "-1 s"),
    (control(ttl={"seconds": 1, "nanos": -5}), "cache_control.ttl", "-5 ns"),
    (control(max_age={"seconds": -1}), "cache_control.max_age", "0 s to 315576000000 s"),
    (control(max_age={"seconds": 2**63 - 1}), "cache_control.max_age", "0 s to 315576000000 s"),
    (control(min_similarity=NAN), "cache_control.min_similarity", "nan"),
    (control(min_similarity=1.01), "cache_control.min_similarity", "0 to 1"),
    (control(session_id="s" * 129), "cache_control.session_id", "128 bytes"),
    (control(subject_id="\u00e9" * 65), "cache_control.subject_id", "128 bytes"),
    (pb.VocodeRequest(), "mel.bands", "80"),
    (mel(bands=79), "mel.bands", "79"),
    (mel(data=b""), "mel.data", "empty"),
    (mel(data=MEL[:-4]), "mel.data", "320 bytes for each"),
    (mel(np.zeros((MEL_FRAMES + 1, 80))), "mel.data", f"1 to {MEL_FRAMES} frames"),
    (mel([0.0] * 79 + [NAN]), "mel.data", "NaN"),
    (mel([0.0] * 79 + [-math.inf]), "mel.data", "infinite"),
    (mel([0.0] * 79 + [5.1]), "mel.data", "holds 0 to 5.1; allowed: natural logarithms within -11.6 to 5"),
    (mel([0.0] * 79 + [-12.0]), "mel.data", "holds -12 to 0"),
    (mel(sample_rate_hertz=16_000), "mel.sample_rate_hertz", "22050, or 0"),
    (mel(hop_length=160), "mel.hop_length", "256, or 0"),
    (vocode(audio_config={"speaking_rate": 1.5}), "audio_config.speaking_rate", "0 or 1"),
    (
        pb.StreamingSynthesizeConfig(audio_config={"audio_encoding": 3}),
        "streaming_config.audio_config.audio_encoding",
        "LINEAR16 or MULAW",
    ),
    (pb.StreamingVocodeConfig(model="x"), "streaming_config.model", "throat"),
    (
        pb.StreamingRecognitionConfig(config={"explicit_decoding_config": {"encoding": 4}}),
        f"streaming_config.{CONFIG}.sample_rate_hertz",
        "required for MULAW",
    ),
    (pb.StreamingRecognitionConfig(cache_control={"mode": 4}), "streaming_config.cache_control.mode", "4"),
]


@pytest.mark.parametrize(
    ("request_", "field", "says"), REFUSED, ids=[f"{f}-{i}" for i, (_, f, _) in enumerate(REFUSED)]
)
def test_bad_fields_are_refused_by_name(request_: Message, field: str, says: str) -> None:
    with pytest.raises(BadField) as caught:
        decode(request_)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_more_is_parsed_than_a_message_can_need() -> None:
    """Large fields may be as large as gRPC lets through; what lies beside them may not."""
    request = recognize(content=bytes(1 << 20))
    assert parse(pb.RecognizeRequest, request.SerializeToString()) == request
    warm = cache_pb2.WarmRequest(requests=[synthesize("x" * 5_000)] * 1_000)
    assert parse(cache_pb2.WarmRequest, warm.SerializeToString()) == warm
    refused: list[tuple[type[Message], Message, str]] = [
        (pb.SynthesizeRequest, synthesize("x" * 70_000), "input.text"),
        (pb.RecognizeRequest, recognize({"language_codes": [""] * 40_000}, bytes(1 << 20)), "config"),
        (pb.VocodeRequest, vocode({"data": bytes(20 << 20)}), "mel"),
        (cache_pb2.WarmRequest, cache_pb2.WarmRequest(requests=[pb.SynthesizeRequest()] * 40_000), "requests"),
        (cache_pb2.WarmRequest, cache_pb2.WarmRequest(requests=[synthesize("x" * 90_000)] * 100), "requests"),
        (cache_pb2.EraseRequest, cache_pb2.EraseRequest(subject_id="x" * 70_000), "request"),
    ]
    for kind, message, field in refused:
        with pytest.raises(BadField, match="the message is too long") as caught:
            parse(kind, message.SerializeToString())
        assert caught.value.field == field


@QUICK
@given(head=st.binary(max_size=40), fill=st.sampled_from([0, 2, 8, 0x0A, 0x12, 0x80, 0xFF]))
def test_long_messages_of_any_bytes_are_parsed_or_refused(head: bytes, fill: int) -> None:
    for kind in (pb.RecognizeRequest, pb.VocodeRequest, cache_pb2.WarmRequest):
        with contextlib.suppress(BadField):
            parse(kind, head + bytes([fill]) * 70_000)


def test_what_is_costly_to_decode_is_known_before() -> None:
    assert not wire.costly(recognize())
    assert not wire.costly(explicit(encoding=77))
    assert wire.costly(pb.RecognizeRequest(content=b"fLaC"))


# ------------------------------------------------------------------------------------------------------ any bytes

NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 5, 8_000, 16_000, 22_050]), st.integers(-(2**31), 2**31 - 1))
REALS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(width=32))
LENGTHS = st.fixed_dictionaries({"seconds": st.integers(-(2**63), 2**63 - 1), "nanos": NUMBERS})
CONTROLS = st.fixed_dictionaries(
    {},
    optional={
        "mode": NUMBERS,
        "match": NUMBERS,
        "ttl": LENGTHS,
        "max_age": LENGTHS,
        "min_similarity": REALS,
        "session_id": st.text(),
        "subject_id": st.text(),
    },
)
OUTPUTS = st.fixed_dictionaries(
    {}, optional={"audio_encoding": NUMBERS, "sample_rate_hertz": NUMBERS, "speaking_rate": REALS}
)
SAMPLES = st.fixed_dictionaries(
    {"content": st.one_of(st.binary(), st.builds(lambda: PCM))},
    optional={
        "explicit_decoding_config": st.one_of(
            st.just(L16), st.fixed_dictionaries({}, optional={"encoding": NUMBERS, "sample_rate_hertz": NUMBERS})
        )
    },
)
VOICES = st.one_of(
    st.fixed_dictionaries({}, optional={"name": st.text(), "language_code": st.text(), "emotion": st.text()}),
    st.builds(lambda sample: {"emotion_audio": sample}, SAMPLES),
    st.builds(lambda values: {"embedding": {"values": values}}, st.lists(REALS, max_size=16)),
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "explicit_decoding_config": st.fixed_dictionaries(
            {}, optional={"encoding": NUMBERS, "sample_rate_hertz": NUMBERS, "audio_channel_count": NUMBERS}
        ),
        "language_codes": st.lists(st.text(), max_size=2),
        "model": st.text(),
    },
)
MELS = st.fixed_dictionaries(
    {"data": st.one_of(st.binary(min_size=320, max_size=320), st.binary(), st.builds(lambda: MEL))},
    optional={"bands": st.one_of(st.just(80), NUMBERS), "sample_rate_hertz": NUMBERS, "hop_length": NUMBERS},
)
MESSAGES = st.one_of(
    st.builds(synthesize, st.text(), voice=VOICES, audio_config=OUTPUTS, model=st.text(), cache_control=CONTROLS),
    st.builds(recognize, CONFIGS, st.one_of(st.binary(), st.builds(lambda: PCM)), CONTROLS),
    st.builds(vocode, MELS, audio_config=OUTPUTS, cache_control=CONTROLS),
    st.builds(lambda sample, size: pb.EmbedVoiceRequest(recording=sample, dimensions=size), SAMPLES, NUMBERS),
)


def answered_or_refused(message: Message) -> None:
    try:
        decoded = decode(message)
    except RefrainError:
        return
    assert isinstance(decoded, wire.Decoded)


@QUICK
@given(data=st.binary(max_size=200), kind=st.sampled_from(list(DECODERS)))
def test_random_bytes_are_decoded_or_refused(data: bytes, kind: type[Message]) -> None:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return
    answered_or_refused(message)


@settings(QUICK, max_examples=120)
@given(message=MESSAGES)
def test_random_fields_are_decoded_or_refused(message: Message) -> None:
    answered_or_refused(message)


# -------------------------------------------------------------------------------------------------------- streams


def test_streamed_sound_completes_to_what_the_whole_decodes_to() -> None:
    config = pb.StreamingRecognitionConfig(config=recognize().config)
    collector = wire.audio_collector(config, LIMITS)
    for start in range(0, len(PCM), 999):
        collector.push(PCM[start : start + 999])
    decoded = wire.decode_streaming_recognize_config(config, LIMITS)
    assert decoded.canonical == b""
    assert wire.completed(decoded, "recognize", collector.finish()) == decode(recognize())


def test_streamed_text_completes_to_what_the_whole_decodes_to() -> None:
    config = pb.StreamingSynthesizeConfig(voice={"name": "amy"}, audio_config={"audio_encoding": 4})
    sentences = wire.sentences(LIMITS)
    texts = [*sentences.push("Hello  there. How are"), *sentences.push(" you?"), *sentences.finish()]
    decoded = wire.decode_streaming_synthesize_config(config, LIMITS)
    assert [wire.completed(decoded, "synthesize", text.encode()) for text in texts] == [
        decode(synthesize(text, voice={"name": "amy"}, audio_config={"audio_encoding": 4}))
        for text in ("Hello there.", "How are you?")
    ]


def test_streamed_mels_complete_to_what_the_whole_decodes_to() -> None:
    frames = np.frombuffer(MEL, "<f4").reshape(80, 7)
    collector = wire.mel_collector()
    for start, end in ((0, 3), (3, 4), (4, 7)):
        collector.push(pb.MelSpectrogram(data=np.ascontiguousarray(frames[:, start:end]).tobytes(), bands=80))
    decoded = wire.decode_streaming_vocode_config(pb.StreamingVocodeConfig(), LIMITS)
    assert wire.completed(decoded, "vocode", collector.finish()) == decode(vocode())


def test_mel_streams_are_neither_empty_nor_endless() -> None:
    with pytest.raises(BadField, match="mel"):
        wire.mel_collector().finish()
    collector = wire.mel_collector()
    piece = pb.MelSpectrogram(data=bytes(320 * (MEL_FRAMES // 2 + 1)), bands=80)
    collector.push(piece)
    with pytest.raises(TooLarge):
        collector.push(piece)


# ------------------------------------------------------------------------------------------------------- responses

SPOKEN = Transcript(
    "turn it off", 0.9, (Word("turn", 0.25, 0.5, 0.8), Word("it", 0.5, 0.75, 1.0), Word("off", 0.75, 1, 1))
)


def words(frame: bytes) -> list[tuple[str, float | None, float | None, float]]:
    (result,) = pb.RecognizeResponse.FromString(frame).results
    return [
        (
            word.word,
            word.start_offset.ToTimedelta().total_seconds() if word.HasField("start_offset") else None,
            word.end_offset.ToTimedelta().total_seconds() if word.HasField("end_offset") else None,
            round(word.confidence, 3),
        )
        for word in result.alternatives[0].words
    ]


def test_recognize_frame_holds_what_was_asked_for() -> None:
    frame = wire.recognize_frame(SPOKEN, wire.OFFSETS | wire.CONFIDENCE, "en-US", 1.5)
    (result,) = pb.RecognizeResponse.FromString(frame).results
    assert (result.alternatives[0].transcript, result.language_code, result.is_final) == ("turn it off", "en-US", True)
    assert result.result_end_offset.ToMilliseconds() == 1500
    assert words(frame)[0] == ("turn", 0.25, 0.5, 0.8)
    assert words(wire.recognize_frame(SPOKEN, wire.CONFIDENCE, "en-US", 1.5))[0] == ("turn", None, None, 0.8)
    assert words(wire.recognize_frame(SPOKEN, wire.OFFSETS, "en-US", 1.5))[0] == ("turn", 0.25, 0.5, 0.0)
    assert words(wire.recognize_frame(SPOKEN, 0, "en-US", 1.5)) == []


def test_nothing_recognized_is_no_result() -> None:
    assert wire.recognize_frame(Transcript("", 0.0), 0, "en-US", 1.0) == b""
    assert wire.streaming_recognize_frame(Transcript("", 0.0), 0, "en-US", 1.0) == b""


def test_a_stored_answer_is_a_final_streaming_answer() -> None:
    streamed = wire.to_streaming(wire.recognize_frame(SPOKEN, 3, "en-US", 1.5))
    assert streamed == wire.streaming_recognize_frame(SPOKEN, 3, "en-US", 1.5)
    interim = wire.streaming_recognize_frame(replace(SPOKEN, final=False), 0, "en-US", 1.5)
    assert not pb.StreamingRecognizeResponse.FromString(interim).results[0].is_final


@pytest.mark.parametrize(
    ("offset", "times"),
    [
        (0.25, [(0.5, 0.75), (0.75, 1.0), (1.0, 1.25)]),
        (-0.5, [(None, None), (0.0, 0.25), (0.25, 0.5)]),
        (0.75, [(1.0, 1.25), (1.25, 1.5), (None, None)]),
        (99.0, [(None, None)] * 3),
    ],
)
def test_words_of_another_recording_are_shifted_or_lose_their_times(offset: float, times: list[Any]) -> None:
    shifted = wire.shift_words(wire.recognize_frame(SPOKEN, 3, "en-US", 1.0), offset, 1.5)
    assert [word[1:3] for word in words(shifted)] == times
    assert [word[0] for word in words(shifted)] == ["turn", "it", "off"]
    assert pb.RecognizeResponse.FromString(shifted).results[0].result_end_offset.ToMilliseconds() == 1500


def test_words_without_times_gain_none() -> None:
    shifted = wire.shift_words(wire.recognize_frame(SPOKEN, wire.CONFIDENCE, "en-US", 1.0), 0.1, 1.5)
    assert all(word[1:3] == (None, None) for word in words(shifted))


def test_audio_frames_say_what_they_hold() -> None:
    spoken = pb.SynthesizeResponse.FromString(wire.synthesize_frame(b"abc", Output(Encoding.FLAC, 16_000), 1.5))
    assert spoken == pb.SynthesizeResponse(
        audio_content=b"abc", audio_config={"audio_encoding": 3, "sample_rate_hertz": 16_000, "speaking_rate": 1.5}
    )
    sung = pb.VocodeResponse.FromString(wire.vocode_frame(b"abc", Output(Encoding.OGG_OPUS, 48_000)))
    assert sung.audio_config == pb.AudioConfig(audio_encoding=pb.OGG_OPUS, sample_rate_hertz=48_000, speaking_rate=1)


@pytest.mark.parametrize("kind", [pb.StreamingSynthesizeResponse, pb.StreamingVocodeResponse])
def test_streamed_audio_comes_in_small_even_pieces(kind: Any) -> None:
    sound = bytes(range(256)) * 400
    pieces = [kind.FromString(frame).audio_content for frame in wire.audio_frames(sound)]
    assert b"".join(pieces) == sound
    assert all(len(piece) % 2 == 0 and 0 < len(piece) <= 32_768 for piece in pieces)
    assert list(wire.audio_frames(b"")) == []


FRAMES = [
    (pb.RecognizeResponse, wire.recognize_frame(SPOKEN, 3, "en-US", 1.0)),
    (pb.StreamingRecognizeResponse, wire.streaming_recognize_frame(SPOKEN, 3, "en-US", 1.0)),
    (pb.SynthesizeResponse, wire.synthesize_frame(b"abc", Output(Encoding.WAV, 16_000))),
    (pb.VocodeResponse, wire.vocode_frame(b"abc", Output(Encoding.WAV, 16_000))),
    (pb.StreamingSynthesizeResponse, next(wire.audio_frames(b"abcd"))),
    (pb.StreamingVocodeResponse, next(wire.audio_frames(b"abcd"))),
]


@pytest.mark.parametrize(("kind", "frame"), FRAMES, ids=[kind.__name__ for kind, _ in FRAMES])
def test_a_frame_and_its_suffix_are_one_response(kind: Any, frame: bytes) -> None:
    suffix = wire.info_suffix(wire.Status.HIT_FUZZY, "device", 3.25, 0.5, "e" * 64, 120.5, "entry")
    response = kind.FromString(frame + suffix)
    info = response.cache_info
    assert (info.status, info.tier, info.similarity) == (pb.CacheInfo.HIT_FUZZY, "device", 0.5)
    assert (info.engine, info.entry_id) == ("e" * 64, "entry")
    assert info.age.ToMilliseconds() == 3250
    assert info.saved_compute.ToTimedelta().total_seconds() == 0.1205
    response.ClearField("cache_info")
    assert response == kind.FromString(frame)


@pytest.mark.parametrize(
    "age", [-1.0, 0.0, 4e-5, 6e-5, 1e-4, 0.0127, 0.9999, 0.99996, 1.0, 3.25, 127.0, 128.5, 86_400.1, 3e7]
)
def test_an_age_alone_is_written_as_protobuf_writes_it(age: float) -> None:
    whole = wire.info_suffix(wire.Status.MISS, "", age, 0.0, "", 0.0, "")
    ours = pb.VocodeResponse.FromString(whole + wire.age_suffix(age)).cache_info
    assert ours.age == pb.VocodeResponse.FromString(whole).cache_info.age
    alone = pb.VocodeResponse(cache_info=pb.CacheInfo(age=ours.age))
    assert wire.age_suffix(age) == alone.SerializeToString()


def test_ages_are_never_negative() -> None:
    suffix = wire.info_suffix(wire.Status.MISS, "", -0.5, 0.0, "", 0.0, "")
    assert pb.VocodeResponse.FromString(suffix).cache_info.age.ToMilliseconds() == 0

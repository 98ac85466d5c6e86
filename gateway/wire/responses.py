"""Answers to serialised responses: the frames that tiers keep, and the CacheInfo that is appended to them.

Concatenated protobuf messages merge (protobuf encoding guide, "Last One Wins"), so a stored frame and the serialised
field 15 of this request are one response, with nothing decoded or encoded again.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from google.protobuf.duration_pb2 import Duration

from gateway.audio import Encoding, Output
from gateway.voices import unit
from gateway.wire.values import CONFIDENCE, OFFSETS
from models.utterance import Transcript, VoicePrint
from protos.refrain.v1 import speech_pb2 as pb

STREAMED_BYTES: Final = 32_000
"""Sound in one message of a stream; even, so that no 16-bit sample is cut."""


class Status(IntEnum):
    """The numbers of CacheInfo.Status."""

    HIT_EXACT = 1
    HIT_FUZZY = 2
    MISS = 3
    COALESCED = 4
    BYPASS = 5


# ------------------------------------------------------------------------------------------------------ recognition


def recognize_frame(transcript: Transcript, features: int, language: str, duration_s: float) -> bytes:
    """A serialised RecognizeResponse, which is a final StreamingRecognizeResponse too; empty for no words.

    `duration_s`: of the recording.
    """
    response = pb.RecognizeResponse()
    if transcript.text:
        response.results.add(
            alternatives=[_alternative(transcript, features)],
            is_final=True,
            result_end_offset=_duration(duration_s),
            language_code=language,
        )
    return response.SerializeToString()


def streaming_recognize_frame(transcript: Transcript, features: int, language: str, end_s: float) -> bytes:
    """A serialised StreamingRecognizeResponse, interim or final as the transcript is; empty for no words.

    `end_s`: how far it has heard.
    """
    response = pb.StreamingRecognizeResponse()
    if transcript.text:
        response.results.add(
            alternatives=[_alternative(transcript, features)],
            is_final=transcript.final,
            result_end_offset=_duration(end_s),
            language_code=language,
        )
    return response.SerializeToString()


def to_streaming(frame: bytes) -> bytes:
    """A stored RecognizeResponse as the last of StreamingRecognize: the same bytes, by the proto's numbering."""
    return frame


def shift_words(frame: bytes, offset_s: float, duration_s: float) -> bytes:
    """A stored RecognizeResponse told of another recording of the same speech, `duration_s` seconds long.

    Words move by `offset_s`, positive when the speech begins later here; a word that then lies outside of the
    recording keeps no times. Nothing that is said is changed.
    """
    response = pb.RecognizeResponse.FromString(frame)
    for result in response.results:
        result.result_end_offset.CopyFrom(_duration(duration_s))
        for alternative in result.alternatives:
            for word in alternative.words:
                if not word.HasField("end_offset"):
                    continue
                start = _seconds(word.start_offset) + offset_s
                end = _seconds(word.end_offset) + offset_s
                if 0.0 <= start <= end <= duration_s:
                    word.start_offset.CopyFrom(_duration(start))
                    word.end_offset.CopyFrom(_duration(end))
                else:
                    word.ClearField("start_offset")
                    word.ClearField("end_offset")
    return response.SerializeToString()


def _alternative(transcript: Transcript, features: int) -> pb.SpeechRecognitionAlternative:
    alternative = pb.SpeechRecognitionAlternative(transcript=transcript.text, confidence=transcript.confidence)
    if features:
        for word in transcript.words:
            info = alternative.words.add(word=word.text)
            if features & OFFSETS:
                info.start_offset.CopyFrom(_duration(word.start))
                info.end_offset.CopyFrom(_duration(word.end))
            if features & CONFIDENCE:
                info.confidence = word.confidence
    return alternative


def _duration(seconds: float) -> Duration:
    """To the tenth of a millisecond; never negative."""
    whole, rest = divmod(max(round(seconds * 10_000), 0), 10_000)
    return Duration(seconds=whole, nanos=rest * 100_000)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


# ------------------------------------------------------------------------------------------------------------ sound


def synthesize_frame(audio: bytes, output: Output, speed: float = 1.0) -> bytes:
    """A serialised SynthesizeResponse; `audio` is encoded as `output` says."""
    return pb.SynthesizeResponse(audio_content=audio, audio_config=_audio_config(output, speed)).SerializeToString()


def vocode_frame(audio: bytes, output: Output) -> bytes:
    """A serialised VocodeResponse."""
    return pb.VocodeResponse(audio_content=audio, audio_config=_audio_config(output, 1.0)).SerializeToString()


def audio_frames(audio: bytes) -> Iterator[bytes]:
    """Serialised StreamingSynthesizeResponses, or StreamingVocodeResponses: in field 1 they are the same."""
    for start in range(0, len(audio), STREAMED_BYTES):
        yield pb.StreamingSynthesizeResponse(audio_content=audio[start : start + STREAMED_BYTES]).SerializeToString()


def _audio_config(output: Output, speed: float) -> pb.AudioConfig:
    encoding = _PROTO_ENCODINGS[output.encoding]
    return pb.AudioConfig(audio_encoding=encoding, sample_rate_hertz=output.rate, speaking_rate=speed)


_PROTO_ENCODINGS: Final = dict(zip(Encoding, (pb.LINEAR16, pb.WAV, pb.FLAC, pb.MULAW, pb.OGG_OPUS), strict=True))


# ----------------------------------------------------------------------------------------------------------- voices


def embed_frame(heard: VoicePrint, dimensions: int) -> bytes:
    """A serialised EmbedVoiceResponse with the first `dimensions` numbers, at length 1."""
    response = pb.EmbedVoiceResponse()
    response.embedding.values.extend(unit(heard.embedding[:dimensions]).tolist())
    if heard.nearest:
        response.nearest_voice.name, response.nearest_voice.cosine = heard.nearest, heard.cosine
    return response.SerializeToString()


# ------------------------------------------------------------------------------------------------------- cache info


def info_suffix(
    status: Status, tier: str, age_s: float, similarity: float, engine: str, saved_ms: float, entry_id: str
) -> bytes:
    """Field 15, cache_info, serialised: to be appended to a response of any kind."""
    info = pb.CacheInfo(
        status=_PROTO_STATUSES[status],
        tier=tier,
        age=_duration(age_s),
        similarity=similarity,
        engine=engine,
        saved_compute=_duration(saved_ms / 1000),
        entry_id=entry_id,
    )
    return pb.RecognizeResponse(cache_info=info).SerializeToString()


def age_suffix(age_s: float) -> bytes:
    """Field 15 with nothing but its age, to the tenth of a millisecond: what changes from hit to hit.

    An embedded message that comes twice is merged (protobuf encoding guide), so it completes an `info_suffix`. Written
    out here, because making two messages for it takes as long as all else that a hit does.
    """
    whole, rest = divmod(max(round(age_s * 10_000), 0), 10_000)
    duration = (_SECONDS + _varint(whole) if whole else b"") + (_NANOS + _varint(rest * 100_000) if rest else b"")
    return bytes((*_CACHE_INFO, 2 + len(duration), *_AGE, len(duration))) + duration


def _varint(number: int) -> bytes:
    """A number of 0 or more in seven bits a byte (protobuf encoding guide)."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


_CACHE_INFO: Final = _tag(pb.RecognizeResponse.CACHE_INFO_FIELD_NUMBER, 2)
_AGE: Final = _tag(pb.CacheInfo.AGE_FIELD_NUMBER, 2)
_SECONDS: Final = _tag(Duration.SECONDS_FIELD_NUMBER, 0)
_NANOS: Final = _tag(Duration.NANOS_FIELD_NUMBER, 0)


_INFO: Final = pb.CacheInfo
_PROTO_STATUSES: Final = dict(
    zip(Status, (_INFO.HIT_EXACT, _INFO.HIT_FUZZY, _INFO.MISS, _INFO.COALESCED, _INFO.BYPASS), strict=True)
)

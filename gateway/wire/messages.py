"""Bytes to request messages, and the small messages that are no answer of an engine.

Parsed, a message can weigh forty times what it weighed as bytes, so its bytes are looked at first: what is not sound,
mel or text to speak is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.errors import BadField
from gateway.wire.requests import MEL_FRAME_BYTES, MEL_FRAMES
from models.engine import EngineInfo
from protos.refrain.v1 import cache_pb2
from protos.refrain.v1 import speech_pb2 as pb

M = TypeVar("M", bound=Message)

SMALL_BYTES: Final = 64 << 10
"""Of a message, or of all in it that is not its one large field."""
FIELD_BYTES: Final = 16
"""What each field of a long message counts beside its bytes: parsed it weighs as much, and each is a step of a walk in
Python."""


class Size(NamedTuple):
    """What a kind of message may weigh."""

    field: str = "request"
    """What to blame when it weighs more."""
    most: int | None = SMALL_BYTES
    """Bytes in all; None for as many as gRPC lets through."""
    large: tuple[int, ...] = ()
    """Number of the field that may take more than `SMALL_BYTES`, behind those of the messages it is in; empty for none.
    """


_MEL_BYTES: Final = MEL_FRAMES * MEL_FRAME_BYTES + SMALL_BYTES
_EXAMPLE: Final = (pb.VoiceSelectionParams.EMOTION_AUDIO_FIELD_NUMBER, pb.VoiceSample.CONTENT_FIELD_NUMBER)
_SIZES: Final[dict[type[Message], Size]] = {
    pb.RecognizeRequest: Size("config", None, (pb.RecognizeRequest.CONTENT_FIELD_NUMBER,)),
    pb.StreamingRecognizeRequest: Size("streaming_config", None, (pb.StreamingRecognizeRequest.AUDIO_FIELD_NUMBER,)),
    pb.SynthesizeRequest: Size("input.text", None, (pb.SynthesizeRequest.VOICE_FIELD_NUMBER, *_EXAMPLE)),
    pb.StreamingSynthesizeRequest: Size(
        "input.text",
        None,
        (
            pb.StreamingSynthesizeRequest.STREAMING_CONFIG_FIELD_NUMBER,
            pb.StreamingSynthesizeConfig.VOICE_FIELD_NUMBER,
            *_EXAMPLE,
        ),
    ),
    pb.EmbedVoiceRequest: Size(
        "request", None, (pb.EmbedVoiceRequest.RECORDING_FIELD_NUMBER, pb.VoiceSample.CONTENT_FIELD_NUMBER)
    ),
    pb.VocodeRequest: Size("mel", _MEL_BYTES, (pb.VocodeRequest.MEL_FIELD_NUMBER,)),
    pb.StreamingVocodeRequest: Size("mel", _MEL_BYTES, (pb.StreamingVocodeRequest.MEL_FIELD_NUMBER,)),
    cache_pb2.WarmRequest: Size("requests", 8 << 20, (cache_pb2.WarmRequest.REQUESTS_FIELD_NUMBER,)),
}


def parse(kind: type[M], data: bytes) -> M:
    """Raises `BadField` for bytes that are no message of this kind, and for more of them than it can need."""
    if len(data) > SMALL_BYTES:
        _check_size(kind, data)
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadField("request", data, f"a serialised {kind.DESCRIPTOR.full_name}") from error


def _check_size(kind: type[Message], data: bytes) -> None:
    size = _SIZES.get(kind, Size())
    if size.most is not None and len(data) > size.most:
        raise BadField(size.field, data, f"at most {size.most} bytes a message", "the message is too long")
    for depth in range(1, len(size.large) + 1):
        if _beside(data, 0, len(data), size.large[:depth]) > SMALL_BYTES:
            *outer, name = _names(kind.DESCRIPTOR, size.large[:depth])
            allowed = f"at most {SMALL_BYTES} bytes a message besides what {name} holds, each field {FIELD_BYTES} more"
            raise BadField(".".join(outer) or size.field, data, allowed, "the message is too long")


def _names(descriptor: Any, path: Sequence[int]) -> Iterator[str]:
    """Of the fields on the way to the one that the path ends at."""
    for number in path:
        field = descriptor.fields_by_number[number]
        descriptor = field.message_type
        yield field.name


def _beside(data: bytes, at: int, end: int, large: tuple[int, ...]) -> int:
    """Bytes of a serialised message, `data` from `at` to `end`, that are not the contents of its field `large`, and
    `FIELD_BYTES` a field; once they are over `SMALL_BYTES`, counting stops. What is malformed, parsing refuses."""
    beside = 0
    while at < end and beside <= SMALL_BYTES:
        begin, length = at, 0
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            length, at = _varint(data, at)
        elif tag & 7 == 0:
            _, at = _varint(data, at)
        elif tag & 7 in _FIXED:
            at += _FIXED[tag & 7]
        else:  # a group, which none of our messages has
            return end - begin + beside
        beside += at - begin + FIELD_BYTES
        if tag >> 3 != large[0]:
            beside += length
        elif len(large) > 1:
            beside += _beside(data, at, min(at + length, end), large[1:])
        at += length
    return beside


_FIXED: Final = {1: 8, 5: 4}
"""Wire type to bytes (protobuf encoding guide)."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at] if at < len(data) else 0
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            break
    return value, at


def parse_recognize(data: bytes) -> pb.RecognizeRequest:
    return parse(pb.RecognizeRequest, data)


def parse_synthesize(data: bytes) -> pb.SynthesizeRequest:
    return parse(pb.SynthesizeRequest, data)


def parse_vocode(data: bytes) -> pb.VocodeRequest:
    return parse(pb.VocodeRequest, data)


def parse_embed(data: bytes) -> pb.EmbedVoiceRequest:
    return parse(pb.EmbedVoiceRequest, data)


def transcript_of(frame: bytes) -> str:
    """The words of a stored RecognizeResponse."""
    results = pb.RecognizeResponse.FromString(frame).results
    return " ".join(result.alternatives[0].transcript for result in results if result.alternatives)


def language_asked(data: bytes) -> str:
    """Of a serialised ListVoicesRequest."""
    return parse(pb.ListVoicesRequest, data).language_code


def voices_response(engines: Sequence[EngineInfo], language: str, languages: Sequence[str]) -> bytes:
    """A serialised ListVoicesResponse. No voice for a language that none of `languages` is, or begins with."""
    response = pb.ListVoicesResponse()
    wanted = language.casefold()
    if not wanted or any(f"{known.casefold()}-".startswith(f"{wanted}-") for known in languages):
        told: set[str] = set()
        for info in engines:
            for voice in info.voices:
                if voice in told:  # by another version of the same model
                    continue
                told.add(voice)
                response.voices.add(
                    name=voice,
                    language_codes=languages,
                    emotions=info.emotions,
                    natural_sample_rate_hertz=info.sample_rate,
                )
    return response.SerializeToString()


def models_response(engines: Iterable[tuple[EngineInfo, Sequence[str], float]]) -> bytes:
    """A serialised ListModelsResponse, of infos, their versions, and their shares of the requests."""
    response = pb.ListModelsResponse()
    for info, versions, share in engines:
        response.models.add(
            name=info.name,
            family=info.family,
            identity=info.identity,
            provider=info.provider,
            licence=info.licence,
            voices=info.voices,
            emotions=info.emotions,
            sample_rate_hertz=info.sample_rate,
            versions=versions,
            share=share,
        )
    return response.SerializeToString()

"""Bytes to request messages, and the small messages that are no answer of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.errors import BadField
from models.engine import EngineInfo
from protos.refrain.v1 import speech_pb2 as pb

M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> M:
    """Raises `BadField` for bytes that are no message of this kind."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadField("request", data, f"a serialised {kind.DESCRIPTOR.full_name}") from error


def parse_recognize(data: bytes) -> pb.RecognizeRequest:
    return parse(pb.RecognizeRequest, data)


def parse_synthesize(data: bytes) -> pb.SynthesizeRequest:
    return parse(pb.SynthesizeRequest, data)


def parse_vocode(data: bytes) -> pb.VocodeRequest:
    return parse(pb.VocodeRequest, data)


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
        for info in engines:
            for voice in info.voices:
                response.voices.add(
                    name=voice,
                    language_codes=languages,
                    emotions=info.emotions,
                    natural_sample_rate_hertz=info.sample_rate,
                )
    return response.SerializeToString()


def models_response(engines: Sequence[EngineInfo]) -> bytes:
    """A serialised ListModelsResponse."""
    response = pb.ListModelsResponse()
    for info in engines:
        response.models.add(
            name=info.name,
            family=info.family,
            identity=info.identity,
            provider=info.provider,
            licence=info.licence,
            voices=info.voices,
            emotions=info.emotions,
            sample_rate_hertz=info.sample_rate,
        )
    return response.SerializeToString()

"""Requests as they are recorded, to be sent again: whole ones as they came, streams as the whole request they equal.

How a caller wanted memory to be read this once (`mode`) is not kept: it was that call's, and the next asks for the same
answer in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.wire.values import CONFIDENCE, OFFSETS, Control, Decoded
from models.utterance import MEL_BANDS, RECOGNIZER_RATE
from protos.refrain.v1 import speech_pb2 as pb

_REQUESTS: Final[dict[str, Any]] = {
    "recognize": pb.RecognizeRequest,
    "synthesize": pb.SynthesizeRequest,
    "vocode": pb.VocodeRequest,
}
RECORDED: Final = frozenset(_REQUESTS)
"""The tasks whose inputs can be sent again."""


def recorded(task: str, data: bytes) -> bytes:
    """A serialised request that was served, without its mode."""
    request = _REQUESTS[task].FromString(data)
    if request.cache_control.mode:
        request.cache_control.mode = pb.CacheControl.DEFAULT
        return bytes(request.SerializeToString())
    return data


def recorded_of(task: str, decoded: Decoded) -> bytes:
    """A serialised whole request that means what a stream did: it has the same input digest."""
    request = _OF[task](decoded)
    _control(request.cache_control, decoded.control)
    return bytes(request.SerializeToString())


def _recognize(decoded: Decoded) -> Any:
    request = pb.RecognizeRequest(content=decoded.canonical, config={"model": decoded.model})
    explicit = request.config.explicit_decoding_config
    explicit.encoding, explicit.sample_rate_hertz = pb.LINEAR16, RECOGNIZER_RATE
    request.config.language_codes.append(decoded.language)
    request.config.features.enable_word_time_offsets = bool(decoded.features & OFFSETS)
    request.config.features.enable_word_confidence = bool(decoded.features & CONFIDENCE)
    return request


def _synthesize(decoded: Decoded) -> Any:
    request = pb.SynthesizeRequest(input={"text": decoded.canonical.decode()}, model=decoded.model)
    if isinstance(decoded.voice, str):
        request.voice.name = decoded.voice
    elif decoded.voice is not None:
        request.voice.embedding.values.extend(decoded.voice)
    request.voice.emotion, request.voice.language_code = decoded.emotion, decoded.language
    request.audio_config.speaking_rate = decoded.speed
    _output(request.audio_config, decoded)
    return request


def _vocode(decoded: Decoded) -> Any:
    request = pb.VocodeRequest(mel={"data": decoded.canonical, "bands": MEL_BANDS}, model=decoded.model)
    _output(request.audio_config, decoded)
    return request


def _output(config: Any, decoded: Decoded) -> None:
    if decoded.output is not None:
        config.audio_encoding, config.sample_rate_hertz = int(decoded.output.encoding), decoded.output.rate


def _control(written: Any, control: Control) -> None:
    written.no_store, written.match = control.no_store, int(control.match)
    written.min_similarity = control.min_similarity
    written.session_id, written.subject_id = control.session_id, control.subject_id
    if control.ttl_s is not None:
        written.ttl.FromNanoseconds(round(control.ttl_s * 1e9))
    if control.max_age_s is not None:
        written.max_age.FromNanoseconds(round(control.max_age_s * 1e9))


_OF: Final[dict[str, Callable[[Decoded], Any]]] = {
    "recognize": _recognize,
    "synthesize": _synthesize,
    "vocode": _vocode,
}

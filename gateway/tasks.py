"""The tasks, each a row: how a request is decoded, and how an engine's chunks become the bytes of an answer.

Another task is a row here, an engine and a pair of proto messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway import audio, wire
from gateway.wire import messages
from models.engine import EngineError
from models.utterance import Audio, Chunk, Transcript, VoicePrint

INLINE_BYTES: Final = 256 << 10
"""Parsing, checking and hashing a larger request belongs in a thread, whatever it holds."""

INLINE_SAMPLES: Final = 160_000
"""So many are made bytes in less time than a thread would be found in."""


@dataclass(frozen=True, slots=True)
class Task:
    """`name` is the word in keys and metrics: recognize, synthesize, vocode or embed."""

    name: str
    request: Callable[[bytes], Any]
    """Parses a serialised request message. Raises `BadField`."""
    decode: Callable[[Any, wire.Limits], wire.Decoded]
    costly: Callable[[Any], bool]
    """Whether decoding a request of at most `INLINE_BYTES` takes so long that it belongs in a thread."""
    whole: Callable[[wire.Decoded, list[Chunk]], bytes]
    """All chunks of an answer to the one message of a whole answer; empty bytes when there is nothing in it."""
    brief: Callable[[wire.Decoded, list[Chunk]], bool] = lambda decoded, chunks: True
    """Whether `whole` takes less time than handing it to a thread would."""
    frames: Callable[[wire.Decoded], AudioFrames] | None = None
    """Makes the encoder of a streamed answer; None where an answer is always one message."""


def _recognized(decoded: wire.Decoded, chunks: list[Chunk]) -> bytes:
    for chunk in reversed(chunks):
        if isinstance(chunk, Transcript) and chunk.final:
            return wire.recognize_frame(chunk, decoded.features, decoded.language, decoded.input_seconds)
    raise EngineError("the recognizer ended without a final transcript")


def _embedded(decoded: wire.Decoded, chunks: list[Chunk]) -> bytes:
    for chunk in chunks:
        if isinstance(chunk, VoicePrint):
            return wire.embed_frame(chunk, decoded.features)
    raise EngineError("the voice encoder ended without an embedding")


def _spoken(decoded: wire.Decoded, chunks: list[Chunk]) -> tuple[bytes, audio.Output]:
    output = decoded.output
    assert output is not None, "decoding an audio task always says how its output is encoded"
    pieces = [chunk for chunk in chunks if isinstance(chunk, Audio) and len(chunk.samples)]
    if not pieces:
        raise EngineError("the engine ended without audio")
    samples = np.concatenate([piece.samples for piece in pieces])
    return audio.encode(samples, pieces[0].rate, output), output


def _only_cast(decoded: wire.Decoded, chunks: list[Chunk]) -> bool:
    """Whether speech becomes bytes without resampling or a codec: 0.02 ms a second of it."""
    output, pieces = decoded.output, [chunk for chunk in chunks if isinstance(chunk, Audio)]
    return (
        output is not None
        and output.encoding in (audio.Encoding.LINEAR16, audio.Encoding.WAV, audio.Encoding.MULAW)
        and all(piece.rate == output.rate for piece in pieces)
        and sum(len(piece.samples) for piece in pieces) <= INLINE_SAMPLES
    )


class AudioFrames:
    """Chunks of audio to the messages of a streamed answer, as they come."""

    def __init__(self, decoded: wire.Decoded) -> None:
        assert decoded.output is not None, "decoding an audio task always says how its output is encoded"
        self._output = decoded.output
        self._encoder: audio.StreamEncoder | None = None

    def push(self, chunk: Chunk) -> Iterable[bytes]:
        if not isinstance(chunk, Audio):
            return ()
        if self._encoder is None:
            self._encoder = audio.StreamEncoder(chunk.rate, self._output)
        return wire.audio_frames(self._encoder.push(chunk.samples))

    def finish(self) -> Iterable[bytes]:
        """Raises `EngineError` when there was no audio at all."""
        if self._encoder is None:
            raise EngineError("the engine ended without audio")
        return wire.audio_frames(self._encoder.finish())


RECOGNIZE = Task(
    name="recognize",
    request=messages.parse_recognize,
    decode=wire.decode_recognize,
    costly=wire.costly,
    whole=_recognized,
)
SYNTHESIZE = Task(
    name="synthesize",
    request=messages.parse_synthesize,
    decode=wire.decode_synthesize,
    costly=lambda request: request.voice.HasField("emotion_audio"),
    whole=lambda decoded, chunks: wire.synthesize_frame(*_spoken(decoded, chunks), decoded.speed),
    brief=_only_cast,
    frames=AudioFrames,
)
VOCODE = Task(
    name="vocode",
    request=messages.parse_vocode,
    decode=wire.decode_vocode,
    costly=lambda request: False,
    whole=lambda decoded, chunks: wire.vocode_frame(*_spoken(decoded, chunks)),
    brief=_only_cast,
    frames=AudioFrames,
)
EMBED = Task(
    name="embed",
    request=messages.parse_embed,
    decode=wire.decode_embed,
    costly=wire.costly_sample,
    whole=_embedded,
)
TASKS = (RECOGNIZE, SYNTHESIZE, VOCODE, EMBED)

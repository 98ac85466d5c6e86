"""Stored answers to what a person can read or hear: for looking at the cache, never for answering a request."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile
from google.protobuf.message import DecodeError

from gateway.audio import Encoding, Output, encode
from gateway.wire.messages import transcript_of
from protos.refrain.v1 import speech_pb2 as pb

_CONTAINERS: Final = {Encoding.WAV: "audio/wav", Encoding.FLAC: "audio/flac", Encoding.OGG_OPUS: "audio/ogg"}


@dataclass(frozen=True, slots=True)
class Sound:
    """A file that browsers play."""

    data: bytes
    media_type: str


def sound_of(frames: tuple[bytes, ...], streamed_as: Output | None = None) -> Sound | None:
    """The sound of a stored answer; None where it holds none, or is a streamed one of which nothing is known.

    A whole answer says how its sound is encoded. The messages of a streamed one hold the sound alone: `streamed_as` is
    what was asked for. Sound without a header is put into a WAV file, all else is given as it is.
    """
    try:
        responses = [pb.SynthesizeResponse.FromString(frame) for frame in frames]
    except DecodeError:
        return None
    if len(responses) == 1 and responses[0].audio_config.audio_encoding:  # VocodeResponse is numbered alike
        config = responses[0].audio_config
        output = Output(Encoding(config.audio_encoding), config.sample_rate_hertz)
    elif streamed_as is not None:
        output = streamed_as
    else:
        return None
    data = b"".join(response.audio_content for response in responses)
    if output.encoding in _CONTAINERS:
        return Sound(data, _CONTAINERS[output.encoding])
    subtype = "ULAW" if output.encoding is Encoding.MULAW else "PCM_16"
    samples, _ = soundfile.read(
        io.BytesIO(data), format="RAW", subtype=subtype, samplerate=output.rate, channels=1, endian="LITTLE",
        dtype="float32",
    )  # fmt: skip
    wave = encode(np.asarray(samples, np.float32), output.rate, Output(Encoding.WAV, output.rate))
    return Sound(wave, _CONTAINERS[Encoding.WAV])


def words_of(frames: tuple[bytes, ...]) -> str:
    """The words of a stored recognition."""
    return transcript_of(frames[0]) if frames else ""

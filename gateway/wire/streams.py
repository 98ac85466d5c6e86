"""What a stream sends, gathered into the canonical input of the whole: within limits that hold at every message."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from gateway.audio import AudioCollector
from gateway.errors import BadField, TooLarge
from gateway.text import Sentences
from gateway.wire.requests import MEL_FRAME_BYTES, MEL_FRAMES, decoding_of, mel_bytes
from gateway.wire.values import Decoded, Limits
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples
from protos.refrain.v1 import speech_pb2 as pb

_BYTES_A_SECOND: Final = {
    "recognize": 2 * RECOGNIZER_RATE,
    "vocode": MEL_FRAME_BYTES * MEL_RATE / MEL_HOP,
}


def audio_collector(config: pb.StreamingRecognitionConfig, limits: Limits) -> AudioCollector:
    """Gathers `audio` messages: `push(bytes)` gives canonical PCM as it comes, `finish()` all. Raises `BadField`."""
    return AudioCollector(decoding_of(config.config, "audio", "streaming_config.config"), limits.encoded_bytes)


def sentences(limits: Limits) -> Sentences:
    """Gathers `input` messages: `push(text)` gives the sentences it completes, `finish()` the last one."""
    return Sentences("input.text", limits.text_bytes)


def mel_collector() -> MelCollector:
    """Gathers `mel` messages."""
    return MelCollector()


class MelCollector:
    """Joins mels along time, 600 s of them at most."""

    def __init__(self) -> None:
        self._pieces: list[Samples] = []
        self._frames = 0

    @property
    def held(self) -> int:
        """Bytes kept until the end."""
        return self._frames * MEL_FRAME_BYTES

    def push(self, mel: pb.MelSpectrogram) -> None:
        """Raises `BadField` for a mel that is none, `TooLarge` past the limit."""
        piece = np.frombuffer(mel_bytes(mel, "mel"), "<f4").reshape(MEL_BANDS, -1)
        self._frames += piece.shape[1]
        if self._frames > MEL_FRAMES:
            raise TooLarge("mel", f"{MEL_FRAMES} frames")
        self._pieces.append(piece)

    def finish(self) -> bytes:
        """Canonical mel of the whole: the bytes that a whole request would have carried. Raises `BadField` for none."""
        if not self._pieces:
            raise BadField("mel", "", f"1 to {MEL_FRAMES} frames", "the stream held none")
        return np.concatenate(self._pieces, axis=1).astype("<f4", copy=False).tobytes()


def completed(decoded: Decoded, task: str, canonical: bytes) -> Decoded:
    """A stream's config with the input that followed it: what a whole request would have been decoded to."""
    a_second = _BYTES_A_SECOND.get(task)
    return replace(decoded, canonical=canonical, input_seconds=len(canonical) / a_second if a_second else 0.0)

"""Sound in and out: recordings to canonical PCM (mono, 16-bit, 16 kHz), and an engine's samples to any encoding.

Canonical PCM is what is hashed, fingerprinted and recognized, so equal sound gives equal bytes: 16 kHz mono 16-bit
sound passes through untouched whatever container it came in, and a stream gives the bytes that the whole would.
Everything here is synchronous; what is `costly` belongs in a thread.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile

from gateway import containers, ogg
from gateway.containers import HIGHEST_RATE, LOWEST_RATE, OPUS_RATES, Recording
from gateway.errors import BadField, EngineFailed, TooLarge
from gateway.g711 import MULAW, TO_MULAW
from gateway.pcm import Resampler, mono, to_pcm
from models.utterance import RECOGNIZER_RATE, Samples, Waveform

SHORTEST_S: Final = 0.1
LONGEST_S: Final = 600.0
SILENT_PEAK: Final = 3
"""Largest 16-bit magnitude that counts as digital silence: below -80 dBFS."""
ALLOWED_LENGTH: Final = f"{SHORTEST_S:g} s to {LONGEST_S:g} s of sound"
ALLOWED_RATES: Final = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
ENCODED_BYTES: Final = 128 << 20
"""Bytes of a recording in a container that a stream may send: ten minutes of 48 kHz stereo WAV fit."""

Pcm = npt.NDArray[np.int16]


class Encoding(IntEnum):
    """The numbers of refrain.v1.AudioEncoding."""

    LINEAR16 = 1
    WAV = 2
    FLAC = 3
    MULAW = 4
    OGG_OPUS = 5


HEADERLESS: Final = frozenset({Encoding.LINEAR16, Encoding.MULAW})


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a caller says of a recording. The two field names are for error messages."""

    encoding: Encoding | None
    """None to go by the recording's own header."""
    rate: int = 0
    """Hz; 0 for the header's."""
    channels: int = 0
    """1 or 2; 0 for the header's, or 1 where there is none."""
    content_field: str = "content"
    config_field: str = "config.explicit_decoding_config"

    @property
    def canonical(self) -> bool:
        """Whether the bytes are canonical PCM already."""
        return self.encoding is Encoding.LINEAR16 and self.rate == RECOGNIZER_RATE and self.channels < 2


@dataclass(frozen=True, slots=True)
class Output:
    """What an answer's sound is encoded as; `rate` in Hz."""

    encoding: Encoding
    rate: int


# -------------------------------------------------------------------------------------------------------------- in


def costly(decoding: Decoding, content: bytes) -> bool:
    """Whether decoding `content` may hold an event loop up for more than a millisecond or so."""
    if decoding.canonical:
        return len(content) > 1 << 20
    plain = decoding.encoding in HEADERLESS or containers.quickly_read(content)
    return len(content) > 1 << 17 if plain else True


def canonical_pcm(content: bytes, decoding: Decoding) -> bytes:
    """`content` as canonical PCM: `content` itself where it is that already.

    Raises `BadField` for anything but 0.1 s to 600 s of undamaged, audible sound that is what `decoding` says.
    """
    if not content:
        raise BadField(decoding.content_field, content, ALLOWED_LENGTH)
    if decoding.canonical:
        _whole_frames(content, 2, decoding)
        _check_length(len(content) // 2, RECOGNIZER_RATE, content, decoding)
        _check_audible(content, decoding)
        return content
    if decoding.encoding in HEADERLESS:
        collector = AudioCollector(decoding)
        _check_length(len(content) // collector.frame_bytes, decoding.rate, content, decoding)
        collector.push(content)
        return collector.finish()
    pcm = _decoded(content, decoding)
    _check_audible(pcm, decoding)
    return pcm


def waveform(pcm: bytes) -> Waveform:
    """Canonical PCM as the recognizer takes it: float32 [n] within -1..1 at 16 kHz."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    samples *= np.float32(1 / 32_768)
    return Waveform(samples, RECOGNIZER_RATE)


class AudioCollector:
    """Canonical PCM of a recording that arrives in pieces, for as long as it stays within 600 s.

    Headerless sound is converted as it comes; a recording in a container is held, encoded, until it is whole.
    """

    def __init__(self, decoding: Decoding, max_encoded_bytes: int = ENCODED_BYTES) -> None:
        self._decoding = decoding
        self._held = bytearray()
        self._pcm = bytearray()
        self._frames = 0
        self._limit = max_encoded_bytes
        self._headerless = decoding.encoding in HEADERLESS
        self._channels = max(decoding.channels, 1)
        self._resampler = Resampler(decoding.rate, RECOGNIZER_RATE) if self._headerless else None
        self.frame_bytes = self._channels * (1 if decoding.encoding is Encoding.MULAW else 2)
        """Bytes of one sample of every channel of headerless sound."""

    @property
    def headerless(self) -> bool:
        """Whether sound is converted as it comes."""
        return self._headerless

    @property
    def held(self) -> int:
        """Bytes kept until the end."""
        return len(self._held) + len(self._pcm)

    def push(self, chunk: bytes) -> bytes:
        """Canonical PCM that `chunk` completes; none for a container. Raises `TooLarge` past the limit."""
        if not self._headerless:
            if len(self._held) + len(chunk) > self._limit:
                raise TooLarge(self._decoding.content_field, f"{self._limit} bytes")
            self._held += chunk
            return b""
        if self._held:
            chunk = bytes(self._held) + chunk
        usable = len(chunk) - len(chunk) % self.frame_bytes
        self._held[:] = chunk[usable:]
        self._frames += usable // self.frame_bytes
        if self._frames > LONGEST_S * self._decoding.rate:
            raise TooLarge(self._decoding.content_field, ALLOWED_LENGTH)
        step = containers.BLOCK * self.frame_bytes
        return self._keep([self._resampled(chunk[i : min(i + step, usable)]) for i in range(0, usable, step)])

    def finish(self) -> bytes:
        """The whole as canonical PCM; nothing is kept. Raises `BadField` as `canonical_pcm` does."""
        decoding = self._decoding
        if not self._headerless:
            content = bytes(self._held)
            self._held.clear()
            return canonical_pcm(content, decoding)
        _whole_frames(self._held, self.frame_bytes, decoding)
        _check_length(self._frames, decoding.rate, f"{self._frames / decoding.rate:g} s", decoding)
        assert self._resampler is not None
        self._keep([to_pcm(self._resampler.finish())])
        pcm = bytes(self._pcm)
        self._pcm.clear()
        _check_audible(pcm, decoding)
        return pcm

    def _resampled(self, raw: bytes) -> bytes:
        if self._decoding.canonical:
            return raw
        assert self._resampler is not None
        mulaw = self._decoding.encoding is Encoding.MULAW
        linear = MULAW.take(np.frombuffer(raw, np.uint8)) if mulaw else np.frombuffer(raw, "<i2")
        samples = linear.astype(np.float32) * np.float32(1 / 32_768)
        return to_pcm(self._resampler.push(mono(samples.reshape(-1, self._channels))))

    def _keep(self, pieces: list[bytes]) -> bytes:
        new = b"".join(pieces)
        self._pcm += new
        return new


def _decoded(content: bytes, decoding: Decoding) -> bytes:
    """Canonical PCM of a recording in a container."""
    field = decoding.content_field
    name = decoding.encoding.name if decoding.encoding else containers.container_of(content)
    if not name:
        allowed = f"WAV, FLAC or OGG_OPUS; headerless sound needs {decoding.config_field}"
        raise BadField(field, content, allowed, "no header that is known")
    recording = containers.open_recording(content, name, field)
    _check_stated(recording, decoding)
    rate, longest = recording.rate, int(LONGEST_S * recording.rate)
    if recording.frames:
        _check_length(recording.frames, rate, content, decoding)
    if recording.pcm16 is not None and rate == RECOGNIZER_RATE and recording.channels == 1:
        _check_length(recording.frames, rate, content, decoding)
        return bytes(recording.pcm16)
    resampler = Resampler(rate, RECOGNIZER_RATE)
    pcm: list[bytes] = []
    frames = 0
    for block in recording.blocks():
        frames += len(block)
        if frames > longest:  # a header that says less, or nothing
            _check_length(frames, rate, content, decoding)
        pcm.append(to_pcm(resampler.push(mono(block))))
    _check_length(frames, rate, content, decoding)
    pcm.append(to_pcm(resampler.finish()))
    return b"".join(pcm)


def _check_stated(recording: Recording, decoding: Decoding) -> None:
    if decoding.rate and decoding.rate != recording.rate and decoding.rate not in recording.stated_rates:
        rates = " or ".join(map(str, sorted({recording.rate, *recording.stated_rates})))
        allowed = f"{rates}, as in the header of {decoding.content_field}, or 0"
        raise BadField(f"{decoding.config_field}.sample_rate_hertz", decoding.rate, allowed)
    if decoding.channels and decoding.channels != recording.channels:
        allowed = f"{recording.channels}, as in the header of {decoding.content_field}, or 0"
        raise BadField(f"{decoding.config_field}.audio_channel_count", decoding.channels, allowed)


def _whole_frames(content: bytes | bytearray, frame_bytes: int, decoding: Decoding) -> None:
    if len(content) % frame_bytes:
        why = f"truncated: ends within a sample of {frame_bytes} bytes"
        raise BadField(decoding.content_field, content, f"a multiple of {frame_bytes} bytes", why)


def _check_length(frames: int, rate: int, content: object, decoding: Decoding) -> None:
    if not SHORTEST_S * rate <= frames <= LONGEST_S * rate:
        raise BadField(decoding.content_field, content, ALLOWED_LENGTH, f"{frames / rate:.6g} s at {rate} Hz")


def _check_audible(pcm: bytes, decoding: Decoding) -> None:
    samples = np.frombuffer(pcm, "<i2")
    if samples.max() <= SILENT_PEAK and samples.min() >= -SILENT_PEAK:
        raise BadField(decoding.content_field, pcm, "sound with a peak above -80 dBFS", "digital silence")


# ------------------------------------------------------------------------------------------------------------- out


def encode(samples: Samples, rate_in: int, output: Output) -> bytes:
    """An engine's samples, float32 [n] at `rate_in` Hz, as `output` says; louder than full scale is clipped.

    Raises `EngineFailed` for NaN and infinite samples.
    """
    if output.encoding in HEADERLESS:
        stream = StreamEncoder(rate_in, output)
        return stream.push(samples) + stream.finish()
    resampler = Resampler(rate_in, output.rate)
    pcm = to_pcm(resampler.push(_finite(samples))) + to_pcm(resampler.finish())
    if output.encoding is Encoding.WAV:
        riff = struct.pack("<4sI4s", b"RIFF", 36 + len(pcm), b"WAVE")
        fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, output.rate, output.rate * 2, 2, 16)
        return riff + fmt + struct.pack("<4sI", b"data", len(pcm)) + pcm
    return _by_libsndfile(np.frombuffer(pcm, "<i2"), output)


class StreamEncoder:
    """`encode` for headerless output, piece by piece; the pieces together are the bytes of the whole."""

    def __init__(self, rate_in: int, output: Output) -> None:
        if output.encoding not in HEADERLESS:
            raise ValueError(f"{output.encoding.name} has a header and cannot be streamed")
        self._mulaw = output.encoding is Encoding.MULAW
        self._resampler = Resampler(rate_in, output.rate)

    def push(self, samples: Samples) -> bytes:
        """Bytes that `samples`, float32 [n], complete. Raises `EngineFailed` for NaN and infinite samples."""
        return self._encoded(self._resampler.push(_finite(samples)))

    def finish(self) -> bytes:
        """The bytes still held back by the resampling filter."""
        return self._encoded(self._resampler.finish())

    def _encoded(self, samples: Samples) -> bytes:
        pcm = to_pcm(samples)
        return TO_MULAW[np.frombuffer(pcm, "<u2")].tobytes() if self._mulaw else pcm


def _finite(samples: Samples) -> Samples:
    """Samples a resampler may have: finite and, so that no filter overflows, within -4..4."""
    if not np.isfinite(samples).all():
        raise EngineFailed("the model put out samples that are not finite")
    return np.clip(samples, -4.0, 4.0).astype(np.float32, copy=False)


def _by_libsndfile(pcm: Pcm, output: Output) -> bytes:
    """FLAC or Ogg Opus of 16-bit samples. Written a second at a time: libsndfile's Ogg writers buffer on the stack."""
    assert output.encoding is not Encoding.OGG_OPUS or output.rate in OPUS_RATES
    container, codec = ("FLAC", "PCM_16") if output.encoding is Encoding.FLAC else ("OGG", "OPUS")
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", output.rate, 1, codec, format=container) as sound:
        for piece in _seconds(pcm, output.rate):
            sound.write(piece)
    return file.getvalue() if container == "FLAC" else ogg.with_serial(file.getvalue(), 1)


def _seconds(pcm: Pcm, rate: int) -> Iterator[Pcm]:
    for start in range(0, len(pcm), rate):
        yield pcm[start : start + rate]

"""What telephones and the net do to speech: real encoders and decoders out of libsndfile, and lost packets.

Every function takes and gives float32 [n] at 16 kHz within about -1..1. Delays stay in, as they do on a line; only what
the container itself says is to be skipped is skipped.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import soundfile
import soxr
from scipy import signal

from models.utterance import Samples

RATE: Final = 16_000
NARROW: Final = 8_000
OPUS_LEVELS: Final = {16: 0.95, 8: 0.986}
"""libsndfile's compression level by kbit/s of packets on real speech; it asks for more than the encoder then spends."""
MP3_32K: Final = 0.85
"""The level that gives frames of 32 kbit/s at 16 kHz."""
_OGG_CRC: Final = 0x04C11DB7

Packets = list[bytes]


def telephone(samples: Samples) -> Samples:
    """300 to 3400 Hz and 8-bit mu-law (G.711) at 8 kHz."""
    narrow = soxr.resample(samples, RATE, NARROW)
    narrow = signal.sosfilt(signal.butter(4, [300, 3400], "bandpass", fs=NARROW, output="sos"), narrow)
    return _up(_through(narrow, NARROW, "WAV", "ULAW"))


def gsm(samples: Samples) -> Samples:
    """GSM 06.10 full rate, 13 kbit/s, at 8 kHz."""
    return _up(_through(soxr.resample(samples, RATE, NARROW), NARROW, "WAV", "GSM610"))


def mp3(samples: Samples) -> Samples:
    """MP3 at a constant 32 kbit/s."""
    return _through(samples, RATE, "MP3", "MPEG_LAYER_III", compression_level=MP3_32K, bitrate_mode="CONSTANT")


def opus(samples: Samples, kbits: int) -> Samples:
    """Opus at about `kbits` kbit/s (16 or 8) in packets of 20 ms."""
    return _decoded(_encoded(samples, kbits))


def opus_lossy(samples: Samples, kbits: int, loss: float, rng: np.random.Generator) -> Samples:
    """The same with a share `loss` of the packets lost on the way, concealed by the decoder itself."""
    data = _encoded(samples, kbits)
    return _decoded(without(data, rng.random(len(audio_packets(data))) < loss))


def opus_rate(samples: Samples, kbits: int) -> float:
    """kbit/s that the packets of `opus(samples, kbits)` really take."""
    packets = audio_packets(_encoded(samples, kbits))
    return sum(map(len, packets)) * 8 / 1000 / (0.02 * max(len(packets), 1))


def zeroed(samples: Samples, loss: float, rng: np.random.Generator) -> Samples:
    """A share `loss` of the 20 ms packets replaced by silence, as where nothing conceals."""
    lost = np.repeat(rng.random(-(-len(samples) // 320)) < loss, 320)[: len(samples)]
    return np.where(lost, np.float32(0), samples).astype(np.float32)


def audio_packets(data: bytes) -> Packets:
    """The Opus packets of an Ogg stream, without its two headers."""
    return [packet for header, packets in _pages(data) if _has_audio(header) for packet in packets]


def without(data: bytes, lost: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> bytes:
    """The Ogg Opus stream `data` with packet n missing where lost[n].

    A lost packet becomes its first byte alone, which says how long it would be: a packet of that one byte makes the
    decoder conceal, through the same code as when it is told of a loss (RFC 6716, 3.1 and 4.4).
    """
    pages, number = [], 0
    for header, packets in _pages(data):
        if _has_audio(header):
            packets = [p[:1] if gone else p for p, gone in zip(packets, lost[number:], strict=False)]
            number += len(packets)
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
        page = header[:22] + bytes(4) + bytes([len(lacing)]) + lacing + b"".join(packets)
        pages.append(page[:22] + struct.pack("<I", _crc(page)) + page[26:])
    return b"".join(pages)


def _pages(data: bytes) -> Iterator[tuple[bytes, Packets]]:
    """(26 bytes of header, whole packets) of each page; libsndfile lets no packet of speech run over a page's end."""
    at = 0
    while at < len(data):
        segments = data[at + 26]
        lacing = data[at + 27 : at + 27 + segments]
        if not lacing or lacing[-1] == 255:
            raise ValueError("Ogg: a packet that runs over the end of its page")
        start = place = at + 27 + segments
        packets = []
        for length in lacing:
            place += length
            if length < 255:
                packets.append(data[start:place])
                start = place
        yield data[at : at + 26], packets
        at = place


def _has_audio(header: bytes) -> bool:
    """Pages of headers stand at sample 0."""
    return header[6:14] != bytes(8)


def _crc(page: bytes) -> int:
    """Ogg's checksum: CRC-32 without reflection, from 0 (RFC 3533)."""
    table, value = _crc_table(), 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
    return value


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (_OGG_CRC if value & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table


def _encoded(samples: Samples, kbits: int) -> bytes:
    if kbits not in OPUS_LEVELS:
        raise ValueError(f"kbits: {kbits}; allowed: {', '.join(map(str, OPUS_LEVELS))}")
    buffer = io.BytesIO()
    limited = np.clip(samples, -1.0, 1.0)
    soundfile.write(buffer, limited, RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVELS[kbits])
    return buffer.getvalue()


def _decoded(data: bytes) -> Samples:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(samples if rate == RATE else soxr.resample(samples, rate, RATE), dtype=np.float32)


def _through(samples: Samples, rate: int, container: str, subtype: str, **how: object) -> Samples:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format=container, subtype=subtype, **how)
    buffer.seek(0)
    return np.asarray(soundfile.read(buffer, dtype="float32")[0], dtype=np.float32)


def _up(narrow: Samples) -> Samples:
    return np.asarray(soxr.resample(narrow, NARROW, RATE), dtype=np.float32)

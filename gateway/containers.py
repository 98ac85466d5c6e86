"""WAV, FLAC and Ogg Opus recordings, distrusted: headers are checked in full here before a codec sees a byte.

Plain WAV is decoded by numpy alone. FLAC and the packed WAV codecs reach libsndfile only under a header written here,
with every other chunk and metadata block left out, and Ogg only when its pages add up. Decoding yields bounded blocks,
so that what a small file swells to never has to be held.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile

from gateway import ogg
from gateway.errors import BadField
from gateway.g711 import ALAW, MULAW
from models.utterance import Samples

LOWEST_RATE: Final = 8_000
HIGHEST_RATE: Final = 48_000
BLOCK: Final = 16_384
"""Frames decoded at a time."""
OPUS_RATES: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Hz that Opus works at (RFC 6716 section 2)."""
UNKNOWN_SIZE: Final = 0x7FFF0000
"""WAV data sizes from here on (and 0) are what programs write into a pipe, where they cannot come back to fix it."""
MOST_CHUNKS: Final = 1000
"""Chunks of a WAV before its sound, or metadata blocks of a FLAC: each is a step of a walk in Python."""
OGG_BYTES: Final = 40 << 20
"""Ten minutes of Opus at its highest rate, 510 kbit/s (RFC 6716), and the pages around it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a header says, found consistent with the bytes that follow it."""

    rate: int
    """Hz."""
    channels: int
    frames: int
    """Samples a channel; 0 where the header does not say."""
    blocks: Callable[[], Iterator[Samples]]
    """Decodes: float32 [n, channels], n at most `BLOCK`, within -1..1. Raises `BadField` at what cannot be decoded."""
    stated_rates: tuple[int, ...] = ()
    """Rates a caller may state besides `rate`."""
    pcm16: bytes | memoryview | None = None
    """The sound itself where it is 16-bit PCM already."""


def open_recording(content: bytes, name: str, field: str) -> Recording:
    """Reads the header of `content`, an encoding of `RECOGNIZED`. Raises `BadField` naming `field`."""
    magic, reader = RECOGNIZED[name]
    if not content.startswith(magic):
        found = container_of(content)
        raise BadField(field, content, f"{name}, as stated", f"is {found}" if found else f"has no {name} header")
    return reader(content, field)


def container_of(content: bytes) -> str:
    """Name of the container `content` begins as, or nothing."""
    return next((name for name, (magic, _) in RECOGNIZED.items() if content.startswith(magic)), "")


# ------------------------------------------------------------------------------------------------------------- WAV

_Decode = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
_PLAIN: Final[dict[tuple[int, int], _Decode]] = {
    (1, 8): lambda raw: (raw.astype(np.float32) - 128) / 128,
    (1, 16): lambda raw: raw.view("<i2") / np.float32(1 << 15),
    (1, 24): lambda raw: _from_24_bit(raw),
    (1, 32): lambda raw: raw.view("<i4") / np.float64(1 << 31),
    (3, 32): lambda raw: raw.view("<f4"),
    (3, 64): lambda raw: raw.view("<f8"),
    (6, 8): lambda raw: ALAW[raw] / np.float32(1 << 15),
    (7, 8): lambda raw: MULAW[raw] / np.float32(1 << 15),
}
"""(format tag, bits) to samples. Tags of RFC 2361: 1 PCM, 3 IEEE float, 6 A-law, 7 mu-law."""
_PACKED: Final[dict[int, Callable[[int, int], int]]] = {
    0x02: lambda align, channels: (align - 7 * channels) * 2 // channels + 2,
    0x11: lambda align, channels: (align - 4 * channels) * 2 // channels + 1,
    0x31: lambda align, channels: 320 if align == 65 and channels == 1 else 0,
}
"""Format tag to samples a block, by block size and channels: Microsoft ADPCM, IMA ADPCM, GSM 6.10 (RFC 2361)."""


def quickly_read(content: bytes) -> bool:
    """Whether `content` is a WAV of a kind that numpy alone decodes, its sound within the first few chunks."""
    tag, at = 0, 12
    for _ in range(8):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"data":
            return content.startswith(b"RIFF") and any(tag == plain for plain, _ in _PLAIN)
        if name == b"fmt ":
            tag = int.from_bytes(content[at + 8 : at + 10], "little")
        at += 8 + size + size % 2
    return False


def _from_24_bit(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    return np.asarray(wide.reshape(-1).view("<i4") / np.float64(1 << 31), np.float32)


def _open_wav(content: bytes, field: str) -> Recording:
    """RIFF WAVE. The size RIFF itself states is not believed (pipes leave it 0); every chunk's own is."""
    bad = partial(BadField, field, content)
    if content[8:12] != b"WAVE":
        raise bad("WAV", "is RIFF, but not WAVE")
    fmt, data = b"", None
    at, chunks = 12, 0
    while data is None:
        chunks += 1
        if chunks > MOST_CHUNKS:
            raise bad(f"WAV of at most {MOST_CHUNKS} chunks before its data chunk")
        if at + 8 > len(content):
            raise bad("WAV, whole", "truncated: it ends before its data chunk")
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            if size == 0 or size >= UNKNOWN_SIZE:
                size = len(content) - at
            if size > len(content) - at:
                raise bad("WAV, whole", f"truncated: {size} bytes of sound announced, {len(content) - at} there")
            data = memoryview(content)[at : at + size]
        elif name == b"fmt ":
            fmt = content[at : at + size]
        at += size + size % 2
    if len(fmt) < 16:
        raise bad("WAV with a format chunk before its data chunk", "truncated, or no WAV")
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == 0xFFFE and len(fmt) >= 26:  # WAVE_FORMAT_EXTENSIBLE: the tag is the head of its GUID
        tag = int.from_bytes(fmt[24:26], "little")
    if channels not in (1, 2) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise bad("1 or 2 channels at 8000 to 48000 Hz", f"its header says {channels} at {rate} Hz")
    if (tag, bits) in _PLAIN:
        return _plain_wav(data, tag, channels, rate, align, bits, bad)
    if tag in _PACKED and 32 <= align <= 16_384 and len(data) >= align:
        per_block = _PACKED[tag](align, channels)
        if per_block > 0 and (len(fmt) < 20 or int.from_bytes(fmt[18:20], "little") == per_block):
            whole = len(data) - len(data) % align
            file = _packed_wav(tag, channels, rate, align, per_block, bytes(data[:whole]))
            frames = whole // align * per_block
            surplus = per_block if tag == 0x31 else 0  # libsndfile reads the padding of an odd data chunk as a block
            return Recording(
                rate, channels, frames, partial(_decode, file, channels, rate, frames, field, content, surplus)
            )
    why = f"format tag {tag} with {bits} bits, {align}-byte blocks"
    raise bad("PCM, float, A-law, mu-law, ADPCM or GSM 6.10 WAV", why)


def _plain_wav(
    data: memoryview, tag: int, channels: int, rate: int, align: int, bits: int, bad: Callable[..., BadField]
) -> Recording:
    decode = _PLAIN[tag, bits]
    if align != channels * bits // 8:
        raise bad(f"blocks of {channels * bits // 8} bytes", f"its header says {align}")
    if len(data) % align:
        raise bad("WAV, whole", f"truncated: {len(data)} bytes of sound are no multiple of {align}")

    def blocks() -> Iterator[Samples]:
        step = BLOCK * align
        for start in range(0, len(data), step):
            samples = decode(np.frombuffer(data[start : start + step], np.uint8)).reshape(-1, channels)
            if tag == 3:
                if not np.isfinite(samples).all():
                    raise bad("finite samples", "holds NaN or infinite samples")
                samples = np.clip(samples, -1.0, 1.0)
            yield np.asarray(samples, np.float32)

    return Recording(rate, channels, len(data) // align, blocks, pcm16=data if (tag, bits) == (1, 16) else None)


def _packed_wav(tag: int, channels: int, rate: int, align: int, per_block: int, data: bytes) -> bytes:
    """A WAV of ADPCM or GSM under a fresh header, the standard coefficients (RFC 2361) in Microsoft's."""
    extra = struct.pack("<H", per_block)
    if tag == 0x02:
        extra += struct.pack("<H14h", 7, 256, 0, 512, -256, 0, 0, 192, 64, 240, 0, 460, -208, 392, -232)
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align // per_block, align, 0 if tag == 0x31 else 4)
    fmt += struct.pack("<H", len(extra)) + extra
    fact = struct.pack("<4sII", b"fact", 4, len(data) // align * per_block)
    head = b"WAVE" + struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + fact + struct.pack("<4sI", b"data", len(data))
    return struct.pack("<4sI", b"RIFF", len(head) + len(data)) + head + data


# ------------------------------------------------------------------------------------------------------------ FLAC


def _open_flac(content: bytes, field: str) -> Recording:
    """FLAC (RFC 9639 section 8). Only STREAMINFO and the frames are passed on."""
    bad = partial(BadField, field, content)
    if len(content) < 42 or content[4] & 0x7F or content[5:8] != b"\0\0\x22":
        raise bad("FLAC", "truncated, or without a STREAMINFO block")
    info = content[8:42]
    last, at, blocks = content[4] >> 7, 42, 0
    while not last:
        blocks += 1
        if blocks > MOST_CHUNKS:
            raise bad(f"FLAC of at most {MOST_CHUNKS} metadata blocks")
        if at + 4 > len(content):
            raise bad("FLAC, whole", "truncated in its metadata")
        last = content[at] >> 7
        at += 4 + int.from_bytes(content[at + 1 : at + 4], "big")
    if at >= len(content):
        raise bad("FLAC, whole", "truncated: it ends before its first frame")
    packed = int.from_bytes(info[10:18], "big")
    rate, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    frames = packed & (1 << 36) - 1
    smallest, largest = struct.unpack_from(">HH", info)
    known = channels <= 2 and bits in (8, 16, 24) and LOWEST_RATE <= rate <= HIGHEST_RATE
    if not known or not 16 <= smallest <= largest:
        allowed = "FLAC of 1 or 2 channels at 8000 to 48000 Hz, 8, 16 or 24 bits"
        raise bad(allowed, f"its header says {channels} at {rate} Hz, {bits} bits")
    # Without its count of frames, so that the decoder goes on to the end and the count can be held against it.
    uncounted = info[:13] + bytes((info[13] & 0xF0, 0, 0, 0, 0)) + info[18:]
    file = b"".join((b"fLaC\x80\0\0\x22", uncounted, memoryview(content)[at:]))
    return Recording(rate, channels, frames, partial(_decode, file, channels, rate, frames, field, content))


# -------------------------------------------------------------------------------------------------------- Ogg Opus


def _open_opus(content: bytes, field: str) -> Recording:
    """Ogg Opus (RFC 7845) of one logical stream, its pages in order and undamaged from first to last."""
    bad = partial(BadField, field, content)
    if len(content) > OGG_BYTES:
        raise bad(f"OGG_OPUS of at most {OGG_BYTES} bytes")
    try:
        first, granule = ogg.check(content)
    except ogg.Damaged as error:
        raise bad("OGG_OPUS, whole and undamaged", str(error)) from None
    head = content[first[0] : first[1]]
    if len(head) != 19 or not head.startswith(b"OpusHead"):
        raise bad("OGG_OPUS of 1 or 2 channels", "is Ogg, but holds no plain Opus")
    version, channels, skip, stated, _, family = struct.unpack("<BBHIhB", head[8:])
    if version > 15 or channels not in (1, 2) or family:
        why = f"its header says version {version}, {channels} channels, family {family}"
        raise bad("OGG_OPUS of 1 or 2 channels", why)
    if granule - skip > 48_000 * 3600:  # keeps libsndfile's sums far from overflow
        raise bad("OGG_OPUS of at most 10 minutes", "its last page says hours")
    # libsndfile decodes at the lowest of Opus's rates that holds the stated one, but takes "unknown" for the lowest.
    rate = next((r for r in OPUS_RATES if 0 < stated <= r), 48_000)
    file = content
    if not 0 < stated < 1 << 31:
        page = bytearray(content[: first[1]])
        struct.pack_into("<I", page, first[0] + 12, rate)
        file = ogg.sealed(page) + content[first[1] :]
    stated_rates = (stated, 48_000) if stated else OPUS_RATES
    return Recording(rate, channels, 0, partial(_decode, file, channels, rate, 0, field, content), stated_rates)


# ------------------------------------------------------------------------------------------------------- libsndfile


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Reads from front to back. `soundfile` would seek after every read, which FLAC pays for by decoding anew."""

    def seekable(self) -> bool:
        return False


def _decode(
    file: bytes, channels: int, rate: int, frames: int, field: str, content: bytes, surplus: int = 0
) -> Iterator[Samples]:
    """Blocks of `file` by libsndfile, which must find what the header said: `frames` samples where that is not 0.

    `surplus`: samples that libsndfile is known to make up at the end, and that are dropped.
    """
    bad = partial(BadField, field, content)
    total = 0
    try:
        with _Sequential(io.BytesIO(file)) as sound:
            if sound.channels != channels or sound.samplerate != rate:
                why = f"decodes as {sound.channels} channels, {sound.samplerate} Hz"
                raise bad("a recording that is what its header says", why)
            while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
                room = frames - total if frames else BLOCK
                total += len(block)
                if total > frames + surplus and frames:
                    break
                yield np.clip(block[: max(room, 0)], -1.0, 1.0)
    except soundfile.LibsndfileError as error:
        raise bad("a whole, undamaged recording", f"damaged: {error.error_string}") from None
    if frames and not frames <= total <= frames + surplus:
        raise bad("a whole, undamaged recording", f"truncated or damaged: {frames} frames announced, {total} decoded")


RECOGNIZED: Final[dict[str, tuple[bytes, Callable[[bytes, str], Recording]]]] = {
    "WAV": (b"RIFF", _open_wav),
    "FLAC": (b"fLaC", _open_flac),
    "OGG_OPUS": (b"OggS", _open_opus),
}
"""Encoding to the bytes it begins with and the reader of its header."""

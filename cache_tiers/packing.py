"""Values in fewer bytes, by zstd where that pays. Plain synchronous functions, safe in any thread.

A value is tried in three ways on pieces of it: whole, and with every second byte packed and the others as
they are, which is what suits 16-bit samples: their high bytes repeat, their low bytes are noise. The best is taken if
it saves enough (docs/benchmarks.md, "Redis values"): speech as LINEAR16 shrinks to 0.7, FLAC and Opus stay as they are.

A packed value reads `way, size, length of the packed part, packed part, bytes as they are`.
"""

from __future__ import annotations

import struct
import threading
from typing import Final

import zstandard

LEVEL: Final = 1
"""3 is half as quick for 1 to 2 % less."""
LEAST: Final = 512
"""Bytes. A plain transcript has 200 and would save 40, which is less than Redis needs to know of it."""
WORTH: Final = 0.9
"""Of the size, at most, or it stays as it is."""
PIECES, PIECE = 4, 4096
"""So many of so many bytes stand for a larger value: one alone may be the pause between two words."""

_HEAD = struct.Struct(">BII")
_WHOLE, _ODD, _EVEN = 1, 2, 3
_own = threading.local()


class Unreadable(ValueError):
    """Bytes that `pack` did not write, or that would be larger than allowed."""


def pack(plain: bytes) -> bytes | None:
    """The packed value; None where it does not pay."""
    if len(plain) < LEAST:
        return None
    some = _pieces(plain) if len(plain) > 2 * PIECES * PIECE else plain
    tried = {way: len(_packed(way, some)) for way in (_WHOLE, _ODD, _EVEN)}
    way = min(tried, key=tried.__getitem__)
    if tried[way] > WORTH * len(some):
        return None
    packed = _packed(way, plain)
    return packed if len(packed) <= WORTH * len(plain) else None


def _pieces(plain: bytes) -> bytes:
    """From all over it, each from an even place, so that every second byte stays every second byte."""
    step = len(plain) // PIECES
    starts = (((2 * n + 1) * step - PIECE) // 2 & ~1 for n in range(PIECES))
    return b"".join(plain[start : start + PIECE] for start in starts)


def unpack(packed: bytes, limit: int) -> bytes:
    """What was packed, of at most `limit` bytes. Raises Unreadable."""
    try:
        way, size, length = _HEAD.unpack_from(packed)
        part, rest = packed[_HEAD.size : _HEAD.size + length], packed[_HEAD.size + length :]
        expected = size if way == _WHOLE else size - len(rest)
        if size > limit or way not in (_WHOLE, _ODD, _EVEN) or zstandard.frame_content_size(part) != expected:
            raise Unreadable(f"a packed value of way {way} and {size} bytes")
        unpacked = _decompressor().decompress(part)
        if way == _WHOLE:
            return unpacked
        plain = bytearray(size)
        plain[way == _ODD :: 2] = unpacked
        plain[way == _EVEN :: 2] = rest
    except (struct.error, zstandard.ZstdError, ValueError) as error:
        raise Unreadable(str(error)) from error
    return bytes(plain)


def _packed(way: int, plain: bytes) -> bytes:
    part = plain if way == _WHOLE else plain[way == _ODD :: 2]
    rest = b"" if way == _WHOLE else plain[way == _EVEN :: 2]
    packed = _compressor().compress(part)
    return b"".join((_HEAD.pack(way, len(plain), len(packed)), packed, rest))


# One of each a thread, since they are for one at a time, and take some 10 us to make.
def _compressor() -> zstandard.ZstdCompressor:
    try:
        made: zstandard.ZstdCompressor = _own.compressor
    except AttributeError:
        made = _own.compressor = zstandard.ZstdCompressor(level=LEVEL)
    return made


def _decompressor() -> zstandard.ZstdDecompressor:
    try:
        made: zstandard.ZstdDecompressor = _own.decompressor
    except AttributeError:
        made = _own.decompressor = zstandard.ZstdDecompressor()
    return made

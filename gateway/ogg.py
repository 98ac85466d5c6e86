"""Ogg pages (RFC 3533): walked and checked before libogg sees them, which drops a damaged page without a word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER: Final = 27
FIRST, LAST = 2, 4
MOST_PAGES: Final = 60_000
"""Twice as many as hold ten minutes with a page for every packet of 20 ms. Each is a step of a walk in Python."""
_FIELDS: Final = struct.Struct("<4sBBqIII")
_MIRROR: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits the other way round."""


class Damaged(ValueError):
    """Not one whole stream of undamaged pages. The text says where."""


class Checked(NamedTuple):
    """Where the body of the first page lies, and the time of the last: its granule position, in samples at 48 kHz."""

    first: tuple[int, int]
    granule: int


def check(content: bytes) -> Checked:
    """Raises `Damaged` unless `content` is one logical stream from its first to its last page."""
    serial, granule, flags, first = 0, 0, 0, (0, 0)
    for number, (at, body, end) in enumerate(pages(content)):
        if number >= MOST_PAGES:
            raise Damaged(f"more than {MOST_PAGES} pages")
        if end > len(content):
            raise Damaged("truncated")
        magic, version, flags, position, stream, sequence, crc = _FIELDS.unpack_from(content, at)
        if magic != b"OggS" or version or crc != _crc(content[at : at + 22] + bytes(4) + content[at + 26 : end]):
            raise Damaged(f"damaged at byte {at}")
        if number == 0:
            serial, first = stream, (body, end)
        if stream != serial or sequence != number or bool(flags & FIRST) != (number == 0):
            raise Damaged(f"page {number} is missing or belongs to another stream")
        if position != -1:  # -1: no packet ends on this page
            if position < granule:
                raise Damaged(f"time runs backwards at page {number}")
            granule = position
    if not flags & LAST:
        raise Damaged("truncated: its last page is missing")
    return Checked(first, granule)


def pages(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, start of its body, end) of every page; the last end lies past the end of `content` if that is cut off."""
    at, size = 0, len(content)
    while at < size:
        body = at + HEADER + content[at + 26] if at + HEADER <= size else size + 1
        end = body + sum(content[at + HEADER : body]) if body <= size else body
        yield at, body, end
        at = end


def sealed(page: bytearray) -> bytes:
    """`page` with the checksum of what it now holds."""
    page[22:26] = bytes(4)
    struct.pack_into("<I", page, 22, _crc(bytes(page)))
    return bytes(page)


def with_serial(content: bytes, serial: int) -> bytes:
    """Whole pages under another serial number: encoders draw one at random, and equal sound should be equal bytes."""
    renamed = []
    for start, _, end in pages(content):
        page = bytearray(content[start:end])
        struct.pack_into("<I", page, 14, serial)
        renamed.append(sealed(page))
    return b"".join(renamed)


def _crc(page: bytes) -> int:
    """The checksum of a page whose own is zeroed: zlib's polynomial, with bits the other way round and no inversion."""
    return int(f"{zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)

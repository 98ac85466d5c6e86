"""Packets of an Ogg Opus stream, and what is left of it where some are lost, for a decoder to conceal.

Of RFC 3533 (Ogg), 7845 (Opus in it) and 6716 (Opus). Streams come from libsndfile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

_OGG_CRC: Final = 0x04C11DB7

Packets = list[bytes]


def audio_packets(data: bytes) -> Packets:
    """The Opus packets of an Ogg stream, without its two headers."""
    return [packet for header, packets in _pages(data) if _has_audio(header) for packet in packets]


def without(data: bytes, lost: npt.NDArray[np.bool_]) -> bytes:
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

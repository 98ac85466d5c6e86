"""Entry <-> bytes, before sealing, and the short form in which events speak of keys. Plain synchronous functions.

The epochs of an entry's tags travel inside it, so that a value which outlived an erasure (a restored backup, a failover
that lost a delete) is known as erased by whoever reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cache_tiers.entry import CacheKey, Entry, Epochs

_HEAD = struct.Struct(">dddHI")
_EPOCH = struct.Struct(">HQ")
_COUNT = struct.Struct(">H")
_NAME = struct.Struct(">BBH")


class Malformed(ValueError):
    """Bytes that no version of this codec wrote."""


def pack_entry(entry: Entry, epochs: Epochs) -> bytes:
    tags = [tag.encode() for tag in entry.tags]
    lengths = [*map(len, tags), *map(len, entry.frames)]
    return b"".join(
        (
            _pack_epochs(epochs),
            _HEAD.pack(entry.cost_ms, entry.created, entry.expires, len(tags), len(entry.frames)),
            struct.pack(f">{len(lengths)}I", *lengths),
            *tags,
            *entry.frames,
        )
    )


def unpack_entry(data: bytes) -> tuple[Entry, Epochs]:
    try:
        epochs, at = _unpack_epochs(data)
        cost_ms, created, expires, tags, frames = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        lengths = struct.unpack_from(f">{tags + frames}I", data, at)
        at += 4 * len(lengths)
        parts: list[bytes] = []
        for length in lengths:
            parts.append(data[at : at + length])
            at += length
        if at != len(data):
            raise Malformed(f"an entry of {at} bytes in {len(data)}")
        names = tuple(part.decode() for part in parts[:tags])
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    return Entry(tuple(parts[tags:]), cost_ms, created, expires, names), epochs


def pack_record(record: bytes, epochs: Epochs) -> bytes:
    return _pack_epochs(epochs) + record


def unpack_record(data: bytes) -> tuple[bytes, Epochs]:
    try:
        epochs, at = _unpack_epochs(data)
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    return data[at:], epochs


def _pack_epochs(epochs: Epochs) -> bytes:
    parts = [_COUNT.pack(len(epochs.of))]
    for tag, epoch in epochs.of:
        name = tag.encode()
        parts += (_EPOCH.pack(len(name), epoch), name)
    return b"".join(parts)


def _unpack_epochs(data: bytes) -> tuple[Epochs, int]:
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    of: list[tuple[str, int]] = []
    for _ in range(count):
        length, epoch = _EPOCH.unpack_from(data, at)
        at += _EPOCH.size
        of.append((data[at : at + length].decode(), epoch))
        at += length
    if at > len(data):
        raise Malformed("the tags are cut off")
    return Epochs(tuple(of)), at


def pack_names(keys: Iterable[tuple[CacheKey, bool]]) -> bytes:
    """Keys, and whether each has a record: the payload of inserted and removed events."""
    parts: list[bytes] = []
    for key, has_record in keys:
        tenant = key.tenant.encode()
        parts += (_NAME.pack(has_record, len(key.digest), len(tenant)), key.digest, tenant)
    return b"".join(parts)


def unpack_names(payload: bytes) -> list[tuple[CacheKey, bool]]:
    names: list[tuple[CacheKey, bool]] = []
    at = 0
    try:
        while at < len(payload):
            has_record, digest, tenant = _NAME.unpack_from(payload, at)
            at += _NAME.size
            end = at + digest + tenant
            if end > len(payload):
                raise Malformed("a name is cut off")
            names.append((CacheKey(payload[at + digest : end].decode(), payload[at : at + digest]), bool(has_record)))
            at = end
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    return names

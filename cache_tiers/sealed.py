"""Sealing: AES-256-GCM under per-tenant data keys, which lie in Redis wrapped by a master key that never does.

A sealed value reads `magic, schema, key id, nonce, ciphertext`. The header in clear says whose it is, so that a value
of another version or an unknown key is left alone (`Foreign`), and only one that ought to open and does not is
`Tampered`.
Associated data are schema, kind, key id, tenant and digest: a value moved to another key, tenant or kind does not open.

Nonces are random, 96 bits, so one data key must seal fewer than 2^32 values (SP 800-38D). Gateways reserve seals in
blocks from a counter beside the key, and go on with a new data key before the bound. Erasing a tenant is destroying its
data keys; a new master key re-wraps them and touches no value. Keys are never logged and have no repr.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cache_tiers.entry import CacheKey
from cache_tiers.link import RedisLink
from cache_tiers.master_key import Masters
from cache_tiers.names import STAMP_BYTES
from cache_tiers.packing import Unreadable, pack, unpack

PLAIN, PACKED = 1, 2
"""Schemas of values and records: header, associated data, the codec inside, and whether that is packed (packing.py).
Another number is another gateway's."""

Kind = Literal[b"v", b"r", b"i"]
"""Value, record (of recall), input that was recorded: none opens as another."""

_MAGIC = b"Rf"
_HEADER = struct.Struct(">2sB8s12s")
STAMP_AT = _HEADER.size - STAMP_BYTES
_LARGE = 1 << 20
"""Bytes from which sealing and opening (about 1 ms) are done in a thread."""
_LARGE_TO_PACK = 1 << 16
"""The same for sealing what is packed first (0.5 ms for 150 kB)."""
_REASK_AFTER = 2.0
"""Seconds for which an unknown key id is taken for unknown without asking Redis again."""

_REWRAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class Foreign(Exception):
    """Another gateway's value: its schema or key id is not known here. Not ours to delete."""


class Tampered(Exception):
    """Our schema and our key, and it does not open."""


@dataclass(slots=True)
class _DataKey:
    id: bytes
    generation: int
    cipher: AESGCM
    seals_left: int = 0
    """Of the block this process has reserved."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key in Redis, as far as anybody may know it."""

    tenant: str
    generation: int
    master: bytes
    """Id of the master key that wrapped it."""
    present: bool
    """That is the one that wraps now."""
    opens: bool
    seals: int
    """Reserved by all gateways together."""


@dataclass(slots=True)
class SealStats:
    sealed: int = 0
    opened: int = 0
    foreign: int = 0
    tampered: int = 0
    keys_made: int = 0


class Keyring:
    """Seals and opens. `masters`: the present master key first, then older ones still accepted for unwrapping."""

    def __init__(
        self,
        link: RedisLink,
        masters: Sequence[bytes],
        *,
        max_seals: int = 2**32 - 2**24,
        block: int = 2**16,
        deadline: float = 1.0,
        pack_up_to: int = 16 << 10,
        max_plain_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pack_up_to`: bytes of values that are written packed if that pays. All are read, of `max_plain_bytes`."""
        if not 0 < block <= max_seals < 2**32:
            raise ValueError(f"seals per data key: block {block} and max_seals {max_seals} must be in 1 .. 2^32 - 1")
        self.stats = SealStats()
        self._link = link
        self._masters = Masters(masters)
        self._max_seals = max_seals
        self._block = block
        self._deadline = deadline
        self._pack_up_to = pack_up_to
        self._max_plain_bytes = max_plain_bytes
        self._clock = clock
        self._keys: dict[str, dict[bytes, _DataKey]] = {}
        self._unknown: dict[tuple[str, bytes], float] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def seal(self, key: CacheKey, kind: Kind, plain: bytes) -> bytes:
        """Raises Unavailable when no data key can be had."""
        data_key = self._newest(key.tenant)
        if data_key is None or data_key.seals_left < 1:
            data_key = await self._reserve(key.tenant)
        data_key.seals_left -= 1
        self.stats.sealed += 1
        if len(plain) < (_LARGE_TO_PACK if len(plain) <= self._pack_up_to else _LARGE):
            return self._close(data_key, key, kind, plain)
        return await asyncio.to_thread(self._close, data_key, key, kind, plain)

    def _close(self, data_key: _DataKey, key: CacheKey, kind: Kind, plain: bytes) -> bytes:
        packed = pack(plain) if len(plain) <= self._pack_up_to else None
        schema, nonce = PLAIN if packed is None else PACKED, os.urandom(12)
        extra = _associated(schema, key, kind, data_key.id)
        closed = data_key.cipher.encrypt(nonce, plain if packed is None else packed, extra)
        return _HEADER.pack(_MAGIC, schema, data_key.id, nonce) + closed

    async def open(self, key: CacheKey, kind: Kind, sealed: bytes, deadline: float | None = None) -> bytes:
        """Raises Foreign or Tampered; Unavailable when the data key is not known yet and Redis does not tell it within
        the deadline (seconds), the keyring's own unless given."""
        if len(sealed) < _HEADER.size:
            self.stats.foreign += 1
            raise Foreign("too short for a header")
        magic, schema, key_id, nonce = _HEADER.unpack_from(sealed)
        if magic != _MAGIC or schema not in (PLAIN, PACKED):
            self.stats.foreign += 1
            raise Foreign(f"schema {schema}, not {PLAIN} or {PACKED}")
        data_key = self._keys.get(key.tenant, {}).get(key_id) or await self._find(key.tenant, key_id, deadline)
        if data_key is None:
            self.stats.foreign += 1
            raise Foreign("unknown key id")
        extra = _associated(schema, key, kind, key_id)
        try:
            if len(sealed) < _LARGE:
                plain = self._opened(data_key, schema, nonce, sealed, extra)
            else:
                plain = await asyncio.to_thread(self._opened, data_key, schema, nonce, sealed, extra)
        except Unreadable as error:  # sealed by us and yet not ours to read
            self.stats.foreign += 1
            raise Foreign(str(error)) from None
        except (InvalidTag, ValueError):
            self.stats.tampered += 1
            raise Tampered("the value fails its check") from None
        self.stats.opened += 1
        return plain

    def _opened(self, data_key: _DataKey, schema: int, nonce: bytes, sealed: bytes, extra: bytes) -> bytes:
        inside = data_key.cipher.decrypt(nonce, memoryview(sealed)[_HEADER.size :], extra)
        return inside if schema == PLAIN else unpack(inside, self._max_plain_bytes)

    async def rotate(self, new_master: bytes) -> int:
        """Takes a new master key and re-wraps every data key under it; returns how many. The others stay accepted here.

        List the new key with every gateway first, rotate once, then take the old one out. Values stay as they are.
        """
        self._masters.adopt(new_master)
        return await self.rewrap()

    async def rewrap(self) -> int:
        """Wraps every data key that opens anew under the present master key; returns how many it was not under."""
        wrapped = 0
        for tenant in await self._tenants():
            name = self._link.names.data_keys(tenant)
            for field, value in (await self._fields(tenant, self._deadline)).items():
                if field.startswith(b"used:") or value[8:16] == self._masters.present:
                    continue
                data = self._masters.unwrap(tenant, value)
                if data is not None:
                    rewrapped = self._masters.wrap(tenant, value[:8], data)
                    args = ("EVAL", _REWRAP, 1, name, field, value, rewrapped)
                    wrapped += await self._link.call(*args, deadline=self._deadline)
        return wrapped

    async def survey(self) -> list[WrappedKey]:
        """All data keys in Redis, whether they open here or not."""
        found: list[WrappedKey] = []
        for tenant in await self._tenants():
            fields = await self._fields(tenant, self._deadline)
            for field, value in fields.items():
                if not field.startswith(b"used:"):
                    seals = int(fields.get(b"used:" + field, b"0"))
                    master = value[8:16]
                    opens = self._masters.unwrap(tenant, value) is not None
                    key = WrappedKey(tenant, int(field), master, master == self._masters.present, opens, seals)
                    found.append(key)
        return sorted(found, key=lambda key: (key.tenant, key.generation))

    async def _tenants(self) -> list[str]:
        tenants = await self._link.call("SMEMBERS", self._link.names.tenants, deadline=self._deadline)
        return sorted(member.decode() for member in tenants)

    async def destroy(self, tenant: str) -> bool:
        """Erases a tenant: without its data keys nothing of it opens again. Others must `forget` what they hold."""
        self.forget(tenant)
        name = self._link.names.data_keys(tenant)
        return bool(await self._link.call("DEL", name, deadline=self._deadline))

    def forget(self, tenant: str) -> None:
        """Drops the unwrapped keys of a tenant; those that still exist are loaded again when needed."""
        self._keys.pop(tenant, None)

    def forget_all(self) -> None:
        self._keys.clear()
        self._unknown.clear()

    # Data keys: a hash per tenant, with `<generation>` -> key id, master id, nonce, wrapped key, and
    # `used:<generation>` -> seals reserved by all gateways together.

    def _newest(self, tenant: str) -> _DataKey | None:
        keys = self._keys.get(tenant)
        return max(keys.values(), key=lambda key: key.generation) if keys else None

    async def _find(self, tenant: str, key_id: bytes, deadline: float | None) -> _DataKey | None:
        """Waits for Redis alone, not for others who look for a key or have one made: that would add up."""
        if self._unknown.get((tenant, key_id), 0.0) > self._clock():
            return None
        await self._load(tenant, self._deadline if deadline is None else deadline)
        found = self._keys.get(tenant, {}).get(key_id)
        if found is None:
            if len(self._unknown) > 10_000:
                self._unknown.clear()
            self._unknown[tenant, key_id] = self._clock() + _REASK_AFTER
        return found

    async def _reserve(self, tenant: str) -> _DataKey:
        """The data key to seal with, and a block of seals; made when there is none or its seals are used up."""
        name = self._link.names.data_keys(tenant)
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            newest = self._newest(tenant)
            if newest is not None and newest.seals_left > 0:
                return newest
            highest = await self._load(tenant, self._deadline)
            while True:
                newest = self._newest(tenant)
                if newest is not None:
                    field = f"used:{newest.generation}"
                    args = ("HINCRBY", name, field, self._block)
                    used = await self._link.call(*args, deadline=self._deadline)
                    if used <= self._max_seals:
                        newest.seals_left = self._block
                        return newest
                await self._make(tenant, highest + 1)
                highest = await self._load(tenant, self._deadline)

    async def _make(self, tenant: str, generation: int) -> None:
        """Of two gateways that make the same generation the first wins, and the other loads its key."""
        names = self._link.names
        wrapped = self._masters.wrap(tenant, os.urandom(8), os.urandom(32))
        await self._link.call("SADD", names.tenants, tenant, deadline=self._deadline)
        args = ("HSETNX", names.data_keys(tenant), str(generation), wrapped)
        made = await self._link.call(*args, deadline=self._deadline)
        self.stats.keys_made += made

    async def _load(self, tenant: str, deadline: float) -> int:
        """Unwraps what Redis holds for the tenant; returns the highest generation, unwrapped or not."""
        keys = self._keys.setdefault(tenant, {})
        highest = 0
        for field, value in (await self._fields(tenant, deadline)).items():
            if field.startswith(b"used:"):
                continue
            generation = int(field)
            highest = max(highest, generation)
            if value[:8] not in keys:
                data = self._masters.unwrap(tenant, value)
                if data is not None:
                    keys[value[:8]] = _DataKey(value[:8], generation, AESGCM(data))
        return highest

    async def _fields(self, tenant: str, deadline: float) -> dict[bytes, bytes]:
        name = self._link.names.data_keys(tenant)
        fields: dict[bytes, bytes] = await self._link.call("HGETALL", name, deadline=deadline)
        return fields


def stamp_of(sealed: bytes) -> bytes:
    """What no other write of any value has in this place: the nonce."""
    return sealed[STAMP_AT : STAMP_AT + STAMP_BYTES]


def _associated(schema: int, key: CacheKey, kind: Kind, key_id: bytes) -> bytes:
    tenant = key.tenant.encode()
    return struct.pack(">Bc8sH", schema, kind, key_id, len(tenant)) + tenant + key.digest

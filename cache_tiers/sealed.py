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
import hashlib
import hmac
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

SCHEMA = 1
"""Of values and records: header, associated data and the codec inside. Another number is another gateway's."""

Kind = Literal[b"v", b"r"]

_MAGIC = b"Rf"
_HEADER = struct.Struct(">2sB8s12s")
STAMP = _HEADER.size
"""Bytes at the start of a value that no other write of any value has, since a nonce is among them."""
_LARGE = 1 << 20
"""Bytes from which sealing (about 1 ms) is done in a thread."""
_REASK_AFTER = 5.0
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not masters or any(len(master) != 32 for master in masters):
            raise ValueError("a master key has 32 bytes, and there must be one")
        if not 0 < block <= max_seals < 2**32:
            raise ValueError(f"seals per data key: block {block} and max_seals {max_seals} must be in 1 .. 2^32 - 1")
        self.stats = SealStats()
        self._link = link
        self._masters = {_master_id(master): AESGCM(master) for master in masters}
        self._present = _master_id(masters[0])
        self._max_seals = max_seals
        self._block = block
        self._deadline = deadline
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
        nonce = os.urandom(12)
        extra = _associated(key, kind, data_key.id)
        cipher = data_key.cipher
        if len(plain) < _LARGE:
            closed = cipher.encrypt(nonce, plain, extra)
        else:
            closed = await asyncio.to_thread(cipher.encrypt, nonce, plain, extra)
        return _HEADER.pack(_MAGIC, SCHEMA, data_key.id, nonce) + closed

    async def open(self, key: CacheKey, kind: Kind, sealed: bytes) -> bytes:
        """Raises Foreign or Tampered; Unavailable when the data key is not known yet and Redis does not tell it."""
        if len(sealed) < _HEADER.size:
            self.stats.foreign += 1
            raise Foreign("too short for a header")
        magic, schema, key_id, nonce = _HEADER.unpack_from(sealed)
        if magic != _MAGIC or schema != SCHEMA:
            self.stats.foreign += 1
            raise Foreign(f"schema {schema}, not {SCHEMA}")
        data_key = self._keys.get(key.tenant, {}).get(key_id) or await self._find(key.tenant, key_id)
        if data_key is None:
            self.stats.foreign += 1
            raise Foreign("unknown key id")
        extra = _associated(key, kind, key_id)
        closed = memoryview(sealed)[_HEADER.size :]
        try:
            if len(sealed) < _LARGE:
                plain = data_key.cipher.decrypt(nonce, closed, extra)
            else:
                plain = await asyncio.to_thread(data_key.cipher.decrypt, nonce, closed, extra)
        except (InvalidTag, ValueError):
            self.stats.tampered += 1
            raise Tampered("the value fails its check") from None
        self.stats.opened += 1
        return plain

    async def rotate(self, new_master: bytes) -> int:
        """Re-wraps every data key under the new master key; returns how many. The older ones stay accepted here.

        List the new key with every gateway first, rotate once, then take the old one out. Values stay as they are.
        """
        if len(new_master) != 32:
            raise ValueError("a master key has 32 bytes")
        present = _master_id(new_master)
        self._masters = {present: AESGCM(new_master), **self._masters}
        self._present = present
        wrapped = 0
        names = self._link.names
        tenants = await self._link.call("SMEMBERS", names.tenants, deadline=self._deadline)
        for tenant in sorted(member.decode() for member in tenants):
            name = names.data_keys(tenant)
            for field, value in (await self._fields(tenant)).items():
                if field.startswith(b"used:") or value[8:16] == present:
                    continue
                data = self._unwrap(tenant, value)
                if data is not None:
                    rewrapped = self._wrap(tenant, value[:8], data)
                    args = ("EVAL", _REWRAP, 1, name, field, value, rewrapped)
                    wrapped += await self._link.call(*args, deadline=self._deadline)
        return wrapped

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

    async def _find(self, tenant: str, key_id: bytes) -> _DataKey | None:
        if self._unknown.get((tenant, key_id), 0.0) > self._clock():
            return None
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            found = self._keys.get(tenant, {}).get(key_id)
            if found is None:
                await self._load(tenant)
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
            highest = await self._load(tenant)
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
                highest = await self._load(tenant)

    async def _make(self, tenant: str, generation: int) -> None:
        """Of two gateways that make the same generation the first wins, and the other loads its key."""
        names = self._link.names
        wrapped = self._wrap(tenant, os.urandom(8), os.urandom(32))
        await self._link.call("SADD", names.tenants, tenant, deadline=self._deadline)
        args = ("HSETNX", names.data_keys(tenant), str(generation), wrapped)
        self.stats.keys_made += await self._link.call(*args, deadline=self._deadline)

    async def _load(self, tenant: str) -> int:
        """Unwraps what Redis holds for the tenant; returns the highest generation, unwrapped or not."""
        keys = self._keys.setdefault(tenant, {})
        highest = 0
        for field, value in (await self._fields(tenant)).items():
            if field.startswith(b"used:"):
                continue
            generation = int(field)
            highest = max(highest, generation)
            if value[:8] not in keys:
                data = self._unwrap(tenant, value)
                if data is not None:
                    keys[value[:8]] = _DataKey(value[:8], generation, AESGCM(data))
        return highest

    async def _fields(self, tenant: str) -> dict[bytes, bytes]:
        name = self._link.names.data_keys(tenant)
        fields: dict[bytes, bytes] = await self._link.call("HGETALL", name, deadline=self._deadline)
        return fields

    def _wrap(self, tenant: str, key_id: bytes, data: bytes) -> bytes:
        nonce = os.urandom(12)
        closed = self._masters[self._present].encrypt(nonce, data, _wrapping(tenant, key_id))
        return key_id + self._present + nonce + closed

    def _unwrap(self, tenant: str, wrapped: bytes) -> bytes | None:
        key_id, master_id, nonce, closed = wrapped[:8], wrapped[8:16], wrapped[16:28], wrapped[28:]
        master = self._masters.get(master_id)
        if master is None:
            return None
        try:
            return master.decrypt(nonce, closed, _wrapping(tenant, key_id))
        except (InvalidTag, ValueError):
            return None


def _master_id(master: bytes) -> bytes:
    return hmac.new(master, b"refrain master key id", hashlib.sha256).digest()[:8]


def _wrapping(tenant: str, key_id: bytes) -> bytes:
    return b"refrain data key 1\0" + key_id + tenant.encode()


def _associated(key: CacheKey, kind: Kind, key_id: bytes) -> bytes:
    tenant = key.tenant.encode()
    return struct.pack(">Bc8sH", SCHEMA, kind, key_id, len(tenant)) + tenant + key.digest

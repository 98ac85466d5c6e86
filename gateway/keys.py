"""Utterance and engine identity in, CacheKey out: everything that can change an answer is in its key.

Fields are length-prefixed, so that no two requests can spell the same bytes, and hashed by HMAC-SHA-256 under a key of
the tenant's own, so that equal inputs of two tenants have unequal digests and no key gives its text away.
"""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple

from cache_tiers.entry import CacheKey

KEY_VERSION = 1
"""Raise it whenever canonicalisation or encoding changes: old entries are then never found, and age out."""

_NUMBERS = struct.Struct("<HBBIqd")
_LENGTH = struct.Struct("<I")
_PAIRS = {"f": b"pair\0", "n": b"near\0", "r": b"said\0"}
"""What the seal of each kind of pair says it is."""


class KeyFields(NamedTuple):
    """All that an answer depends on but the input itself."""

    task: str
    engine: str
    """Identity digest of the engine that would answer."""
    voice: str = ""
    emotion: str = ""
    language: str = ""
    speed: float = 1.0
    seed: int = 0
    encoding: int = 0
    rate: int = 0
    features: int = 0
    streaming: bool = False
    """A streamed answer is kept in its frames, a whole one as one message; they are different bytes."""


class TenantKeys:
    """Digests under one tenant's key. Deriving it from the master key needs no storage."""

    def __init__(self, master: bytes, tenant: str) -> None:
        self.tenant = tenant
        self._input = hmac.digest(master, b"refrain input\0" + tenant.encode(), "sha256")
        self._cache = hmac.digest(master, b"refrain cache\0" + tenant.encode(), "sha256")
        self._tag = hmac.digest(master, b"refrain tag\0" + tenant.encode(), "sha256")
        self._component = hmac.digest(master, b"refrain component\0" + tenant.encode(), "sha256")

    def input_digest(self, kind: str, canonical: bytes) -> bytes:
        """32 bytes that name the input alone; what recall turns a fingerprint into."""
        mac = hmac.new(self._input, kind.encode() + b"\0", "sha256")
        mac.update(canonical)
        return mac.digest()

    def cache_key(self, fields: KeyFields, input_digest: bytes) -> CacheKey:
        numbers = _NUMBERS.pack(KEY_VERSION, fields.streaming, fields.encoding, fields.rate, fields.seed, fields.speed)
        parts = [numbers, _LENGTH.pack(fields.features), input_digest]
        for text in (fields.task, fields.engine, fields.voice, fields.emotion, fields.language):
            data = text.encode()
            parts.append(_LENGTH.pack(len(data)))
            parts.append(data)
        return CacheKey(self.tenant, hmac.digest(self._cache, b"".join(parts), "sha256"))

    def component_key(self, name: bytes) -> CacheKey:
        """Names what went between the models of an engine, by what the engine names it."""
        return CacheKey(self.tenant, hmac.digest(self._component, name, "sha256"))

    def pair_id(self, query: bytes, digest: bytes, kind: str = "f") -> str:
        """The entry_id of a fuzzy answer: both input digests, halved, and a seal that says it was given here.

        `kind`: f for a recalled recording, r for a command said again, n for a near voice or mood.
        """
        pair = query[:16] + digest[:16]
        return kind + (pair + self._seal(pair, kind)).hex()

    def open_pair(self, entry_id: str) -> tuple[bytes, bytes] | None:
        """The halves that `pair_id` was made of; None for anything it did not make."""
        try:
            data = bytes.fromhex(entry_id[1:])
        except ValueError:
            return None
        kind = entry_id[:1]
        if kind not in _PAIRS or len(data) != 40 or not hmac.compare_digest(data[32:], self._seal(data[:32], kind)):
            return None
        return data[:16], data[16:32]

    def _seal(self, pair: bytes, kind: str) -> bytes:
        return hmac.digest(self._tag, _PAIRS[kind] + pair, "sha256")[:8]

    def tag(self, kind: str, name: str) -> str:
        """The name under which entries are evicted together, such as tag("subject", id); nothing in clear."""
        return hmac.digest(self._tag, f"{kind}\0{name}".encode(), "sha256")[:16].hex()


class Keys:
    """All tenants' keys under one master secret (32 bytes)."""

    def __init__(self, master: bytes) -> None:
        if len(master) < 32:
            raise ValueError(f"digest key: {len(master)} bytes; at least 32 are needed")
        self._master = master
        self._tenants: dict[str, TenantKeys] = {}

    def trace_key(self) -> bytes:
        """What the access trace hashes with: the same from run to run, and of no use for anything else."""
        return hmac.digest(self._master, b"refrain trace\0", "sha256")

    def of(self, tenant: str) -> TenantKeys:
        keys = self._tenants.get(tenant)
        if keys is None:
            keys = self._tenants[tenant] = TenantKeys(self._master, tenant)
        return keys

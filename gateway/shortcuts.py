"""Request bytes to cache key, for requests seen before: what a hit needs, without decoding the request again.

Decoding, resolving the voice and hashing are functions of the request's bytes and the tenant, so their result can be
remembered. Kept under a keyed hash of the bytes, so that no text stays here; only small requests, and only those whose
answer depends on nothing but the key.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cache_tiers.entry import CacheKey
from gateway.keys import KeyFields

MOST_BYTES = 4096
"""Larger requests are sounds and mels, of which hashing costs what decoding does."""


@dataclass(slots=True)
class Shortcut:
    """Where the answer to some request bytes lies, and the part of its cache_info that stays the same."""

    key: CacheKey
    fields: KeyFields
    created: float = -1.0
    """Of the entry that `info` speaks of."""
    info: bytes = b""


class Shortcuts:
    """The newest `most` requests."""

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._hash = hashlib.blake2b(key=os.urandom(32), digest_size=16)
        self._known: dict[tuple[str, str, bytes], Shortcut] = {}

    def find(self, task: str, tenant: str, data: bytes) -> Shortcut | None:
        if len(data) > MOST_BYTES:
            return None
        return self._known.get((task, tenant, self._digest(data)))

    def learn(self, task: str, tenant: str, data: bytes, key: CacheKey, fields: KeyFields) -> None:
        if len(data) > MOST_BYTES:
            return
        known = self._known
        if len(known) >= self._most:
            del known[next(iter(known))]
        known[task, tenant, self._digest(data)] = Shortcut(key, fields)

    def forget(self) -> None:
        """All of them: other engines serve now, so the keys are others."""
        self._known.clear()

    def _digest(self, data: bytes) -> bytes:
        mac = self._hash.copy()
        mac.update(data)
        return mac.digest()

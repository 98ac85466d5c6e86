"""What the tiers hold: a key, and the encoded response kept under it. Bytes only, no audio and no protos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class CacheKey(NamedTuple):
    """Names one answer of one tenant.

    `digest` is 32 bytes, HMAC-SHA-256 under the tenant's key over everything that can change the answer, so equal
    digests of different tenants cannot meet; `tenant` says whose data key seals the value.
    """

    tenant: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A complete answer: its serialised response messages in order, ready to be sent as they are."""

    frames: tuple[bytes, ...]
    cost_ms: float
    """Compute time the answer took, in milliseconds: what a hit saves."""
    created: float
    """Unix seconds."""
    expires: float = 0.0
    """Unix seconds after which the entry is a miss; 0 for never."""
    tags: tuple[str, ...] = ()
    """Keyed digests by which entries are evicted together: subject, voice, engine."""

    @property
    def weight(self) -> int:
        """Bytes that count against a tier's size."""
        return sum(map(len, self.frames)) + 64 * len(self.frames) + 256


@dataclass(frozen=True, slots=True)
class Epochs:
    """The epochs of an answer's tags when its request began.

    A commit compares them with the present ones: if any has moved, the answer was erased while it was made.
    """

    of: tuple[tuple[str, int], ...] = ()

"""What the keys in Redis are called, and the fields by which tags know values."""

from __future__ import annotations

import re
from typing import NamedTuple

from cache_tiers.entry import CacheKey

STAMP_BYTES = 12
"""Of a value: its nonce, which no other write of any value has (sealed.py)."""


class Member(NamedTuple):
    """A tag's knowledge of one value."""

    field: bytes
    key: CacheKey
    stamp: bytes


class Names:
    """What the keys in Redis are called.

    A value and its record share a hash tag, as do the control records of the whole fleet, so that each group lies in
    one slot of a Cluster.
    """

    def __init__(self, prefix: str = "refrain") -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
            raise ValueError(f"Redis key prefix {prefix!r}: allowed are 1 to 64 letters, digits and _ . : -")
        self.prefix = prefix
        self.values = f"{prefix}:v:"
        self.records = f"{prefix}:r:"
        self.tags = f"{prefix}:tag:"
        self.epochs = f"{prefix}:{{control}}:epochs"
        self.erasing = f"{prefix}:{{control}}:erasing"
        self.events = f"{prefix}:{{control}}:events"
        self.gateways = f"{prefix}:{{control}}:gateways"
        self.tenants = f"{prefix}:{{control}}:tenants"
        self.pins = f"{prefix}:{{control}}:pins"

    def value(self, key: CacheKey) -> str:
        return f"{self.values}{{{key.digest.hex()}}}:{key.tenant}"

    def record(self, key: CacheKey) -> str:
        return f"{self.records}{{{key.digest.hex()}}}:{key.tenant}"

    def of_tenant(self, tenant: str) -> str:
        """A pattern for the values and records of a tenant; a few others may match it too."""
        literal = re.sub(r"([][*?\\])", r"\\\1", tenant)
        return f"{self.prefix}:[vr]:{{*}}:{literal}"

    def tag(self, tag: str) -> str:
        return f"{self.tags}{{{tag}}}"

    def data_keys(self, tenant: str) -> str:
        return f"{self.prefix}:keys:{{{tenant}}}"

    def membership(self, key: CacheKey, stamp: bytes) -> bytes:
        """The field by which a tag knows one value of a key, in few bytes, since no eviction makes room for them.

        With the stamp in it no writer overwrites what another one noted, in whatever order they come.
        """
        return bytes((len(key.digest),)) + key.digest + key.tenant.encode() + stamp

    def of_membership(self, field: bytes, content: bytes) -> Member:
        """What `membership` wrote. The first version had the value's header as content, and no stamp in the field."""
        start = field if content else field[:-STAMP_BYTES]
        end = 1 + (start[0] if start else 0)
        key = CacheKey(start[end:].decode("utf-8", "replace"), start[1:end])
        return Member(field, key, (content or field)[-STAMP_BYTES:])

    def key_of(self, name: bytes) -> CacheKey | None:
        """The key whose value or record has this name; None for a name that is not of this form."""
        text = name.decode("utf-8", "replace")
        for start in (self.values, self.records):
            if text.startswith(start + "{"):
                digest, found, tenant = text[len(start) + 1 :].partition("}:")
                if found:
                    try:
                        return CacheKey(tenant, bytes.fromhex(digest))
                    except ValueError:
                        return None
        return None

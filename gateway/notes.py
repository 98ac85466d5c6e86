"""What is known of answers beside their bytes, for a person who looks at them: how a streamed one's sound is encoded,
which its messages do not say; which fuzzy ones were given last, to be reported if they were wrong; and, where the
operator has allowed it, the phrase that was spoken.

In memory alone, of a bounded number of entries, learned from requests as they come. A phrase is told only while its
entry is in the device tier, and forgotten with it: what was erased is not shown by the back door.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from cachetools import LRUCache

from cache_tiers.entry import CacheKey
from gateway.audio import Output

MOST: Final = 4_096
PHRASE_CHARACTERS: Final = 200
FUZZY: Final = 256


class Fuzzy(NamedTuple):
    """A fuzzy answer that was given."""

    tenant: str
    task: str
    similarity: float
    tier: str
    at: float
    """Unix seconds."""


class Notes:
    def __init__(self, *, phrases: bool) -> None:
        """`phrases`: whether the operator allows that they are kept."""
        self._formats: LRUCache[CacheKey, Output] = LRUCache(MOST)
        self._phrases: LRUCache[CacheKey, str] | None = LRUCache(MOST) if phrases else None

        self._fuzzy: OrderedDict[str, Fuzzy] = OrderedDict()

    def streamed(self, key: CacheKey, output: Output | None) -> None:
        """An answer under this key is sent as a stream of such sound."""
        if output is not None:
            self._formats[key] = output

    def spoken(self, key: CacheKey, canonical: bytes) -> None:
        """The answer under this key speaks this text (UTF-8)."""
        if self._phrases is not None:
            self._phrases[key] = canonical.decode("utf-8", "replace")[:PHRASE_CHARACTERS]

    def fuzzy(self, entry_id: str, answer: Fuzzy) -> None:
        """A fuzzy answer was given; the same again counts as one, the latest."""
        self._fuzzy[entry_id] = answer
        self._fuzzy.move_to_end(entry_id)
        if len(self._fuzzy) > FUZZY:
            self._fuzzy.popitem(last=False)

    def fuzzy_of(self, tenant: str, limit: int) -> list[tuple[str, Fuzzy]]:
        """The tenant's last fuzzy answers by entry_id, the latest first."""
        own = [(entry_id, answer) for entry_id, answer in reversed(self._fuzzy.items()) if answer.tenant == tenant]
        return own[:limit]

    def format_of(self, key: CacheKey) -> Output | None:
        return self._formats.get(key)

    def phrase_of(self, key: CacheKey, resident: Callable[[CacheKey], bool]) -> str:
        """Empty where it is not known, not allowed, or its entry is gone."""
        return self._phrases.get(key, "") if self._phrases is not None and resident(key) else ""

    def forget_all_but(self, resident: Callable[[CacheKey], bool]) -> None:
        """Forgets the phrases of entries that are gone."""
        if self._phrases is not None:
            for key in [key for key in self._phrases if not resident(key)]:
                del self._phrases[key]

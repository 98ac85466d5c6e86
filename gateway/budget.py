"""How many bytes all streams together may keep until their callers are done; past that one is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded

RETRY_AFTER_S = 1.0


class Share:
    """What one stream keeps."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._bytes = 0

    def keeps(self, count: int) -> None:
        """From now on `count` bytes. Raises `Overloaded` where that is more than before and there is no room for it."""
        more = count - self._bytes
        if more > 0 and self._budget.held + more > self._budget.limit:
            raise Overloaded(RETRY_AFTER_S, f"all streams together hold {self._budget.limit} bytes, which is the most")
        self._budget.held += more
        self._bytes = count


class Budget:
    """Used on the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A stream's part, given back however the stream ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.keeps(0)

"""A bounded queue in front of a slow writer: what comes goes out in batches, what does not fit is not taken."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cache_tiers.entry import CacheKey, Entry, Epochs

log = logging.getLogger(__name__)

BATCH_ENTRIES = 64
BATCH_BYTES = 4 << 20
LINGER_S = 0.005
"""Before what comes after a pause is written: its answer leaves first, and those beside it join its batch."""


@dataclass(frozen=True, slots=True)
class Write:
    key: CacheKey
    entry: Entry
    record: bytes | None
    """If there is one, it alone is written, and only beside this very entry."""
    epochs: Epochs

    @property
    def weight(self) -> int:
        return self.entry.weight + len(self.record or b"")


class WriteBehind:
    """`write` takes a batch, in order, one batch at a time."""

    def __init__(self, write: Callable[[Sequence[Write]], Awaitable[object]], max_entries: int, max_bytes: int) -> None:
        self._write = write
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._waiting: deque[Write] = deque()
        self._batch: list[Write] = []  # under way
        self._bytes = 0
        self._landed = asyncio.Event()
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Entries taken and not yet written."""
        return len(self._waiting) + len(self._batch)

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="write-behind")

    def offer(self, write: Write) -> bool:
        """False when the queue is full. It starts the writer if need be."""
        if len(self._waiting) >= self._max_entries or self._bytes + write.weight > self._max_bytes:
            return False
        self._waiting.append(write)
        self._bytes += write.weight
        self._none.clear()
        self._some.set()
        self.start()
        return True

    def drop(self, key: CacheKey) -> None:
        """Forgets the waiting writes of the key."""
        kept = [write for write in self._waiting if write.key != key]
        if len(kept) < len(self._waiting):
            self._bytes -= sum(write.weight for write in self._waiting) - sum(write.weight for write in kept)
            self._waiting = deque(kept)
            self._settle()

    async def withdraw(self, key: CacheKey) -> None:
        """As `drop`, and waits for a write under way: what is removed next stays removed."""
        self.drop(key)
        while any(write.key == key for write in self._batch):
            await self._landed.wait()

    async def drain(self) -> None:
        await self._none.wait()

    async def close(self, timeout: float = 2.0) -> None:
        """Writes what waits, for as long as it may take, and stops."""
        try:
            async with asyncio.timeout(timeout):
                await self.drain()
        except TimeoutError:
            log.warning("%d entries were not written to Redis before the end", len(self))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                await self._some.wait()
                await asyncio.sleep(LINGER_S)
            self._batch = self._take()
            self._landed.clear()
            try:
                if self._batch:  # else all was withdrawn
                    await self._write(self._batch)
            except Exception:
                log.exception("a batch of %d entries was lost", len(self._batch))
            finally:
                self._bytes -= sum(write.weight for write in self._batch)
                self._batch = []
                self._landed.set()
                self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            self._some.clear()
            if not self._batch:
                self._none.set()

    def _take(self) -> list[Write]:
        batch: list[Write] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ENTRIES:
            size += self._waiting[0].weight
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

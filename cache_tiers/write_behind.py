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


@dataclass(frozen=True, slots=True)
class Write:
    key: CacheKey
    entry: Entry
    record: bytes | None
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
        self._bytes = 0
        self._writing = 0
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Entries taken and not yet written."""
        return len(self._waiting) + self._writing

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
            await self._some.wait()
            batch = self._take()
            try:
                await self._write(batch)
            except Exception:
                log.exception("a batch of %d entries was lost", len(batch))
            self._bytes -= sum(write.weight for write in batch)
            self._writing = 0
            if not self._waiting:
                self._some.clear()
                self._none.set()

    def _take(self) -> list[Write]:
        batch: list[Write] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ENTRIES:
            size += self._waiting[0].weight
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        self._writing = len(batch)
        return batch

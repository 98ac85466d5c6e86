"""How many engine runs at once, and how many may wait: past that a caller is told when to come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Slots:
    """A bounded queue before a bounded number of runners, first come first served.

    A waiter that is cancelled leaves the queue at once, so abandoned work is dropped before it runs.
    """

    def __init__(self, running: int, waiting: int, *, clock: Callable[[], float]) -> None:
        self._limit, self._waiting_limit, self._clock = running, waiting, clock
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean_s = 0.1

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return self._running

    @asynccontextmanager
    async def slot(self, *, admitted: bool = False) -> AsyncIterator[None]:
        """Raises `Overloaded` when the queue is full, with the time after which a slot is likely free; not for work
        that was `admitted` before and takes its next step."""
        if self._running >= self._limit or self._queue:
            await self._wait(admitted)
        else:
            self._running += 1
        started = self._clock()
        try:
            yield
        finally:
            self._mean_s += 0.1 * (self._clock() - started - self._mean_s)
            self._release()

    async def _wait(self, admitted: bool) -> None:
        if not admitted and len(self._queue) >= self._waiting_limit:
            raise Overloaded(max(0.05, self._mean_s * (len(self._queue) + 1) / self._limit))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot was handed over in the same moment
            elif turn in self._queue:  # else a slot that came free since has passed it over
                self._queue.remove(turn)
            raise

    def _release(self) -> None:
        """Hands the slot to the next in line, so that a newcomer can't overtake."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1

"""How many engine runs at once, and how many may wait: past that a caller is told when to come back.

An engine that works on several runs together (`models.engine.EngineInfo.at_once`) gets as many into one slot: the line
here is where callers wait, and its own, behind it, is only as long as what it can take up at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.errors import DeadlineExceeded, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


UNITS = 64
"""Of a slot: what a run takes that shares it with no other."""


class Slots:
    """A bounded queue before a bounded number of runners, first come first served: what has begun goes on before
    anything new begins, so that under overload work is finished, and not only started.

    A waiter that is cancelled leaves the queue at once, so abandoned work is dropped before it runs.
    """

    def __init__(self, running: int, waiting: int, *, clock: Callable[[], float]) -> None:
        self._limit, self._waiting_limit, self._clock = running, waiting, clock
        self._running = self._taken = 0
        self._begun: deque[tuple[asyncio.Future[None], int]] = deque()
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._ahead = 0
        """Units of all in both lines."""
        self._mean_s = 0.1
        """Lately, what a run of a whole slot took."""

    @property
    def waiting(self) -> int:
        return len(self._begun) + len(self._queue)

    @property
    def running(self) -> int:
        return self._running

    @property
    def full(self) -> bool:
        """Whether new work is refused now, whatever it is."""
        busy = self._begun or self._queue or self._taken >= self._limit * UNITS
        return len(self._queue) >= self._waiting_limit and bool(busy)

    def overloaded(self) -> Overloaded:
        """What new work is told while this is `full`: to raise it early saves what would be done for it in vain."""
        return Overloaded(_delay(self._wait_s(UNITS)))

    def now(self) -> float:
        """By the clock that deadlines are told by."""
        return self._clock()

    def _wait_s(self, units: int) -> float:
        """How long it likely takes until the next in line is done."""
        return self._mean_s * (units + self._ahead) / UNITS / self._limit

    @asynccontextmanager
    async def slot(
        self, *, admitted: bool = False, at_once: int = 1, deadline: float = math.inf
    ) -> AsyncIterator[None]:
        """`at_once` such runs share a slot. Raises `Overloaded` when the queue is full, with the time after which one
        is likely free, and `DeadlineExceeded` when `deadline` would pass before; neither for work that was `admitted`
        before and takes its next step."""
        units = max(1, UNITS // at_once)
        if self._begun or (self._queue and not admitted) or not self._fits(units):
            await self._wait(units, admitted, deadline)
        else:
            self._take(units)
        started = self._clock()
        try:
            yield
        finally:
            self._mean_s += 0.1 * ((self._clock() - started) * units / UNITS - self._mean_s)
            self._give(units)

    def _fits(self, units: int) -> bool:
        return self._taken + units <= self._limit * UNITS

    def _take(self, units: int) -> None:
        self._running += 1
        self._taken += units

    async def _wait(self, units: int, admitted: bool, deadline: float) -> None:
        wait_s = self._wait_s(units)
        if not admitted and len(self._queue) >= self._waiting_limit:
            raise Overloaded(_delay(wait_s))
        if not admitted and self._clock() + wait_s > deadline:
            raise DeadlineExceeded("the deadline of the call would pass before its turn")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._begun if admitted else self._queue
        line.append((turn, units))
        self._ahead += units
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(units)  # the slot was handed over in the same moment
            elif (turn, units) in line:  # else a slot that came free since has passed it over
                line.remove((turn, units))
                self._ahead -= units
                self._hand_over()
            raise
        if not admitted and self._clock() >= deadline:
            self._give(units)
            raise DeadlineExceeded("the deadline of the call passed before its turn")

    def _give(self, units: int) -> None:
        self._running -= 1
        self._taken -= units
        self._hand_over()

    def _hand_over(self) -> None:
        """What is free goes to the next in line, so that a newcomer can't overtake."""
        for line in (self._begun, self._queue):
            while line:
                turn, units = line[0]
                if not turn.done() and not self._fits(units):
                    return
                line.popleft()
                self._ahead -= units
                if not turn.done():
                    self._take(units)
                    turn.set_result(None)


def _delay(wait_s: float) -> float:
    """What is told of it: to a hundredth, so that what is said of a delay is often what was said before."""
    return max(0.05, round(wait_s, 2))

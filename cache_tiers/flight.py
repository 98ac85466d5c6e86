"""Flights: one running computation per key, which any number of callers follow.

    join ──▶ find (another tier) ──entry──▶ every follower has it; nothing is computed, nothing committed
                  │ none
             start ──frame──▶ tee ──▶ followers, each at its own place
                  │ clean end
             commit ──▶ the followers see the end

Rule 1. A flight is a task of the cache, not of the caller that began it. Whoever comes later replays it from the first
        frame. A caller that leaves breaks nothing; when the last one has left, the work is cancelled.
Rule 2. `commit` is called once, on a clean end, before any follower can see the end, so that whoever asks next finds
        the entry. Its failure is logged and counted; the answer is not touched.
Rule 3. An error of the computation reaches every follower, behind the frames that came before it. It is not committed.
Rule 4. Above `max_bytes` those who follow still get every frame (tee.py says how), but nobody joins any more, and
        nothing is committed.

Event-loop confined; not thread-safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

from cache_tiers.entry import Entry, Epochs
from cache_tiers.tee import Tee

K = TypeVar("K", bound=Hashable)
Find = Callable[[], Awaitable[Entry | None]]
Start = Callable[[], AsyncIterator[bytes]]
Commit = Callable[[tuple[bytes, ...], float, Epochs], None]
"""The frames, what they cost in milliseconds, and the epochs of the tags of all who joined."""

NO_TAGS = Epochs()

_log = logging.getLogger(__name__)


class FlightError(Exception):
    """What a follower gets that is no error of the computation: TooSlow, Stopped."""


class TooSlow(FlightError):
    """This listener was cut off: the answer is above the cap, and others would have had to wait for it."""


class Stopped(FlightError):
    """The computation was cancelled from outside: the cache is closing, or the engine cancelled itself."""


class Flight(Generic[K]):
    """One computation: what Flights and Followers share. Callers hold Followers."""

    def __init__(
        self,
        flights: Flights[K],
        key: K,
        start: Start,
        find: Find | None,
        commit: Commit | None,
        cost_ms: Callable[[], float] | None,
        epochs: Epochs,
    ) -> None:
        self.key = key
        self.epochs = dict(epochs.of)
        self.decided = find is None
        """Whether it is known if another tier had the answer."""
        self.found: Entry | None = None
        self.cost_ms = 0.0
        self.tee = Tee(flights.max_bytes, now=flights.now)
        self._flights = flights
        self._start = start
        self._find = find
        self._commit = commit
        self._cost = cost_ms
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._landed)

    def add_epochs(self, epochs: Epochs) -> None:
        """One more caller's tags. The epoch read first counts, for it is the older one."""
        for tag, epoch in epochs.of:
            self.epochs.setdefault(tag, epoch)

    def ground(self) -> None:
        """Ends joining and committing; whoever follows still gets the answer."""
        self._commit = None
        self._flights._unlist(self)

    def abandon(self) -> None:
        """The last listener has left."""
        if not self.tee.ended:
            self.ground()
            self.task.cancel()

    async def _run(self) -> None:
        try:
            if self._find is not None:
                self.found = await self._find()
                self.decided = True
                self.tee.wake()
            if self.found is None:
                await self._compute()
            else:
                self.tee.extend(self.found.frames)
        except StopAsyncIteration as error:
            # Raised again in a follower it would pass for a clean end.
            self._end(RuntimeError(f"the computation raised {error!r}"))
        except Exception as error:
            self._end(error)
        else:
            self._end(None)

    async def _compute(self) -> None:
        began = self._flights.now()
        frames = self._start()
        try:
            async for frame in frames:
                await self.tee.append(frame)
                if self.tee.over:
                    self.ground()
        finally:
            # Cancelled while it stood at a yield, a generator would otherwise be left to the collector.
            close = getattr(frames, "aclose", None)
            if close is not None:
                await close()
        took = self._flights.now() - began - self.tee.waited
        self.cost_ms = took * 1e3 if self._cost is None else self._cost()
        if self._commit is not None:
            try:
                self._commit(self.tee.frames, self.cost_ms, Epochs(tuple(self.epochs.items())))
            except Exception:
                self._flights.commit_errors += 1
                _log.exception("the answer was given but could not be committed")

    def _end(self, error: Exception | None) -> None:
        self._flights._unlist(self)
        self.decided = True
        self.tee.end(error)

    def _landed(self, task: asyncio.Task[None]) -> None:
        # A task cancelled before its first step never enters _run, so the end is made sure of here.
        self._flights._flying.discard(self)
        if not self.tee.ended:
            self._end(Stopped("the computation was cancelled"))
        if not task.cancelled():
            task.exception()  # _run lets out only what ends the process; asyncio need not complain about it as well


class Follower(Generic[K]):
    """One caller's view of a flight: an iterator of all its frames. Leaves when closed, cancelled or dropped."""

    def __init__(self, flight: Flight[K]) -> None:
        self._flight = flight
        self._seat = flight.tee.sit()
        self._left = False
        self._loop = asyncio.get_running_loop()

    async def found(self) -> Entry | None:
        """The entry that another tier had, once that is known; None when the answer is computed instead."""
        while not self._flight.decided:
            await self._wait()
        return self._flight.found

    @property
    def cost_ms(self) -> float:
        """Compute time of the answer; 0 before its clean end."""
        return self._flight.cost_ms

    def __aiter__(self) -> Follower[K]:
        return self

    async def __anext__(self) -> bytes:
        tee, seat = self._flight.tee, self._seat
        while True:
            if seat.cut:
                raise TooSlow("this answer is too large to wait for a slow reader while others read it too: ask again")
            if tee.has_frame(seat) and not self._left:
                return tee.take(seat)
            if tee.ended and not tee.has_frame(seat):
                self.leave()
                if tee.error is None:
                    raise StopAsyncIteration
                # The same object for all: each raising would lengthen its traceback, were it not set back.
                raise tee.error.with_traceback(tee.trace)
            if self._left:
                raise Stopped("this follower has left")  # never a clean end, which would pass for the whole answer
            await self._wait()

    def leave(self) -> None:
        """Stops following. May be called more than once."""
        if not self._left:
            self._left = True
            self._vacate()

    async def aclose(self) -> None:
        self.leave()

    async def __aenter__(self) -> Follower[K]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.leave()

    def __del__(self) -> None:
        # A caller that was torn down without closing. The collector may run in any thread, and after the loop's end.
        if not self._left:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._vacate)

    def _vacate(self) -> None:
        if self._flight.tee.leave(self._seat):
            self._flight.abandon()

    async def _wait(self) -> None:
        try:
            await self._flight.tee.wait(self._seat)
        except asyncio.CancelledError:
            self.leave()
            raise


class Flights(Generic[K]):
    """The flights of one gateway. `now` is a monotonic clock in seconds, by which computations are timed."""

    def __init__(self, *, max_bytes: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.max_bytes = max_bytes
        self.now = now
        self.commit_errors = 0
        self._listed: dict[K, Flight[K]] = {}  # those that may be joined
        self._flying: set[Flight[K]] = set()

    def join(
        self,
        key: K,
        start: Start,
        *,
        find: Find | None = None,
        commit: Commit | None = None,
        cost_ms: Callable[[], float] | None = None,
        epochs: Epochs = NO_TAGS,
        fresh: bool = False,
        shared: bool = True,
    ) -> tuple[Follower[K], bool]:
        """Follows the running flight of the key, or begins one; True says that it was begun.

        `cost_ms` is asked on the clean end what the answer cost; without it, that is the time from start to end.
        `fresh` joins none: a shared one takes the place of the one that runs, which is grounded, lest the older answer
        be committed over the newer. One that is not `shared` is joined by nobody and takes nobody's place.
        """
        running = self._listed.get(key)
        if running is not None and not fresh:
            running.add_epochs(epochs)
            return Follower(running), False
        flight = Flight(self, key, start, find, commit, cost_ms, epochs)
        self._flying.add(flight)
        if shared:
            if running is not None:
                running.ground()
            self._listed[key] = flight
        return Follower(flight), True

    def __contains__(self, key: K) -> bool:
        """Whether there is one that may be joined."""
        return key in self._listed

    def ground(self, condemned: Callable[[Flight[K]], bool]) -> int:
        """Lets no flight that meets the condition be committed or joined any more; returns how many there were."""
        flights = [flight for flight in self._flying if condemned(flight)]
        for flight in flights:
            flight.ground()
        return len(flights)

    def __len__(self) -> int:
        """How many are in the air."""
        return len(self._flying)

    async def aclose(self) -> None:
        """Cancels every flight and waits for the engines to let go. Followers get Stopped."""
        tasks = [flight.task for flight in self._flying]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _unlist(self, flight: Flight[K]) -> None:
        if self._listed.get(flight.key) is flight:
            del self._listed[flight.key]

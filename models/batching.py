"""Work that comes at the same time, done together: a bounded line, batches of like sizes, a short window.

Whoever comes while all runners are busy waits in line, and is taken with others of about the same size as soon as one
is free. Work that was cancelled, or whose deadline has passed, leaves the line before it runs; more than the line holds
is sent away with the time after which there is likely room. Event-loop confined: it has no locks, and many tasks of
one loop may use it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from models.engine import ERRAND, Busy, EngineError, Errand, TooLate

A = TypeVar("A")
R = TypeVar("R")

WINDOW_S: Final = 0.002
"""How long the first in line waits for company, where the last batch had some: half of the shortest run."""
LEAST_RETRY_S: Final = 0.05


@dataclass(slots=True, eq=False)
class _Waiting(Generic[A, R]):
    item: A
    size: int
    errand: Errand
    arrived: float
    turn: asyncio.Future[R]
    batch: _Batch[A, R] | None = None
    """Set when its turn has come."""


@dataclass(slots=True, eq=False)
class _Batch(Generic[A, R]):
    entries: Sequence[_Waiting[A, R]]
    done: asyncio.Future[Sequence[R]]

    def leave(self) -> None:
        """One of its callers has: if that was the last, nobody waits for it any more."""
        if all(entry.turn.done() for entry in self.entries):
            self.done.cancel()


class Batcher(Generic[A, R]):
    """`work` answers a batch in order, in `executor`, at most `runners` batches at a time."""

    def __init__(
        self,
        work: Callable[[Sequence[A]], Sequence[R]],
        executor: Executor,
        *,
        runners: int,
        most: int,
        waiting: int,
        bucket: Callable[[int], int],
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A batch has at most `most` items, all of one `bucket` by size, which is whatever `run` is told, proportional
        to the work. At most `waiting` wait."""
        self._work, self._executor, self._runners, self._clock = work, executor, runners, clock
        self._most, self._bucket, self._waiting_limit, self._window_s = most, bucket, waiting, window_s
        self._queue: list[_Waiting[A, R]] = []
        self._running = 0
        self._running_size = 0
        self._pace = 0.0
        """Seconds of a runner per unit of size, lately; 0 before the first batch."""
        self._last = 1
        """Items of the last batch."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def run(self, item: A, size: int) -> R:
        """The item's answer. Raises `Busy` when the line is full, `TooLate` when the errand's deadline passes, or by
        the present pace would pass, before its turn, and whatever `work` raises for the batch."""
        errand = ERRAND.get(None) or Errand()
        now = self._clock()
        ahead_s = self._pace * (self._running_size + sum(entry.size for entry in self._queue)) / self._runners
        if len(self._queue) >= self._waiting_limit:
            raise Busy(max(LEAST_RETRY_S, ahead_s))
        if now + ahead_s >= errand.deadline:
            raise TooLate("the deadline would pass before its turn")
        entry = _Waiting[A, R](item, size, errand, now, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._pump()
        try:
            return await entry.turn
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
            if entry.batch is not None:
                entry.batch.leave()
            raise

    def _pump(self) -> None:
        """Starts what can start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._running < self._runners:
            self._expire()
            batch = self._next()
            if not batch:
                return
            patience_s = batch[0].arrived + self._window_s - self._clock()
            company = self._running > 0 or self._last > 1
            if company and patience_s > 0 and len(batch) == len(self._queue) and len(batch) < self._most:
                self._timer = asyncio.get_running_loop().call_later(patience_s, self._pump)
                return
            for entry in batch:
                self._queue.remove(entry)
            self._start(batch)

    def _expire(self) -> None:
        now = self._clock()
        for entry in [entry for entry in self._queue if now >= entry.errand.deadline]:
            self._queue.remove(entry)
            if not entry.turn.done():
                entry.turn.set_exception(TooLate("the deadline passed before its turn"))

    def _next(self) -> list[_Waiting[A, R]]:
        """The first in line, and those behind it that may go with it."""
        if not self._queue:
            return []
        kind = self._bucket(self._queue[0].size)
        return [entry for entry in self._queue if self._bucket(entry.size) == kind][: self._most]

    def _start(self, batch: list[_Waiting[A, R]]) -> None:
        size = sum(entry.size for entry in batch)
        self._running += 1
        self._running_size += size
        self._last = len(batch)
        loop, began = asyncio.get_running_loop(), self._clock()
        try:
            done = loop.run_in_executor(self._executor, self._work, [entry.item for entry in batch])
        except RuntimeError as error:  # the executor is shut down
            done = loop.create_future()
            done.set_exception(error)
        for entry in batch:
            entry.batch = _Batch(batch, done)
        done.add_done_callback(lambda result: self._finish(batch, size, began, result))

    def _finish(self, batch: list[_Waiting[A, R]], size: int, began: float, done: asyncio.Future[Sequence[R]]) -> None:
        now = self._clock()
        self._running -= 1
        self._running_size -= size
        error = EngineError("the engine was stopped") if done.cancelled() else done.exception()
        if error is None:
            pace = (now - began) / size
            self._pace = pace if self._pace == 0.0 else self._pace + 0.2 * (pace - self._pace)
        results = done.result() if error is None else []
        for number, entry in enumerate(batch):
            entry.errand.waited_s += now - entry.arrived - (now - began) * entry.size / size
            if entry.turn.done():
                continue
            if error is None:
                entry.turn.set_result(results[number])
            else:
                entry.turn.set_exception(error)
        self._pump()

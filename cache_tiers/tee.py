"""A tee: frames written once and read by any number of listeners, each at its own place, in bounded memory.

Up to `max_bytes` it keeps everything: a listener that comes later reads from the first frame, and nobody waits for
anybody. Above, it is `over`: it becomes a window, and a further frame waits until the window is within the cap again.
A listener that holds the window up is cut off, but only once another has read everything and would have to wait for
it; a lone listener sets the pace. At most the cap and one frame are held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType

FRAME_OVERHEAD = 64
"""Bytes counted for a frame beside its own, so that a stream of empty frames has an end too."""


class Seat:
    """A listener's place."""

    __slots__ = ("at", "cut", "ready", "waiting")

    def __init__(self) -> None:
        self.at = 0
        self.cut = False
        self.waiting = False
        self.ready = asyncio.Event()


class Tee:
    """One writer: `append` and `end`. Listeners: `sit`, `has_frame`, `take`, `wait`, `leave`."""

    def __init__(self, max_bytes: int, *, now: Callable[[], float] = time.perf_counter) -> None:
        self.over = False
        self.ended = False
        self.error: Exception | None = None
        self.trace: TracebackType | None = None
        self.waited = 0.0
        """Seconds that the writer waited for room."""
        self._max_bytes = max_bytes
        self._now = now
        self._seats: set[Seat] = set()
        self._frames: list[bytes] = []
        self._base = 0  # number of the first frame kept: 0 until the tee is over
        self._held = 0  # bytes of the frames kept
        self._room = asyncio.Event()  # a listener has moved

    @property
    def frames(self) -> tuple[bytes, ...]:
        """What is kept: everything, unless the tee is over."""
        return tuple(self._frames)

    # The writer.

    async def append(self, frame: bytes) -> None:
        if self.over:
            await self._make_room()
        self.extend((frame,))

    def extend(self, frames: Iterable[bytes]) -> None:
        """Appends without waiting: what is in memory anyway."""
        for frame in frames:
            self._frames.append(frame)
            self._held += len(frame) + FRAME_OVERHEAD
        self.over |= self._held > self._max_bytes
        self.wake()

    def end(self, error: Exception | None) -> None:
        self.ended = True
        self.error = error
        self.trace = error.__traceback__ if error else None
        self.wake()

    def wake(self) -> None:
        """Lets every listener look again."""
        for seat in self._seats:
            seat.ready.set()

    # The listeners.

    def sit(self) -> Seat:
        seat = Seat()
        self._seats.add(seat)
        return seat

    def has_frame(self, seat: Seat) -> bool:
        return seat.at < self._base + len(self._frames)

    def take(self, seat: Seat) -> bytes:
        frame = self._frames[seat.at - self._base]
        seat.at += 1
        self._room.set()
        return frame

    async def wait(self, seat: Seat) -> None:
        """Until something has changed for this listener."""
        seat.ready.clear()
        seat.waiting = True
        self._room.set()
        try:
            await seat.ready.wait()
        finally:
            seat.waiting = False

    def leave(self, seat: Seat) -> bool:
        """True when that was the last listener. False too when it had left, or was cut off, before."""
        if seat not in self._seats:
            return False
        self._seats.remove(seat)
        self._room.set()
        return not self._seats

    # The window.

    async def _make_room(self) -> None:
        began = self._now()
        while True:
            self._trim()
            if self._held <= self._max_bytes:
                break
            if any(seat.waiting and not self.has_frame(seat) for seat in self._seats):
                self._cut_last()
            else:
                self._room.clear()
                await self._room.wait()
        self.waited += self._now() - began

    def _trim(self) -> None:
        """Drops the frames that every listener has read."""
        read = min((seat.at for seat in self._seats), default=self._base + len(self._frames)) - self._base
        self._held -= sum(len(frame) + FRAME_OVERHEAD for frame in self._frames[:read])
        self._base += read
        del self._frames[:read]

    def _cut_last(self) -> None:
        """Cuts off those who have not read the first frame kept."""
        for seat in [seat for seat in self._seats if seat.at == self._base]:
            self._seats.remove(seat)
            seat.cut = True
            seat.ready.set()

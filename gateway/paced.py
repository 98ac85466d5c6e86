"""When to do what no caller waits for: behind the answer, or, where it is asked for often, now and then.

Now and then is for what is kept whole each time, so that the last time is all that counts: a hundred audits in a second
are one write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

AFTER_S: Final = 0.01
"""Before what is done behind an answer begins, so that the answer leaves first."""


class Paced:
    """Work by name: once for each, some time after it was first wanted. Event-loop confined."""

    def __init__(self, spawn: Callable[[Coroutine[None, None, None]], None], every_s: float) -> None:
        """`spawn` runs work beside the caller's."""
        self._spawn, self._every_s = spawn, every_s
        self._waiting: set[str] = set()
        self._ending = asyncio.Event()

    def ask(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Has the work done within `every_s` seconds; until it begins, asking again changes nothing."""
        if name not in self._waiting:
            self._waiting.add(name)
            self._spawn(self._do(name, work))

    def end(self) -> None:
        """Lets whatever waits begin at once, now and from now on."""
        self._ending.set()

    async def _do(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), self._every_s)
        self._waiting.discard(name)
        await work()

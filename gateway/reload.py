"""A registry that has changed, brought into the gateway that runs: nobody is refused, nothing is interrupted.

`registry.toml` is looked at every few seconds, one stat each; SIGHUP asks at once, and for changes in folders as well.
What is new is loaded and tried in a thread while the old serves, then exchanged between two requests. Calls in progress
end on the engine they began with, and its sessions go when the last of them does. Whatever cannot be loaded changes
nothing: the old serves on, and a log line and a counter say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.engines import Engines
from models.load import Served
from models.onnx import ModelFileError
from models.registry.slots import STATE

log = logging.getLogger("refrain.reload")

LOOK_EVERY_S: Final = 2.0


class Reloader:
    """`load` makes the engines anew from what serves; `adopt` exchanges them, or raises `ModelFileError` for engines
    that the settings cannot do with, having changed nothing."""

    def __init__(
        self, models_dir: Path, engines: Engines, load: Callable[[Served], Served], adopt: Callable[[Served], None]
    ) -> None:
        self._state, self.engines = models_dir / STATE, engines
        self._load, self._adopt = load, adopt
        self._stamp = self._look()
        self._asked = asyncio.Event()
        self._results = {"done": 0, "refused": 0}

    def ask(self) -> None:
        """Reads the registry again, changed or not."""
        self._asked.set()

    @property
    def results(self) -> Mapping[str, int]:
        return self._results

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            stamp = self._look()
            if stamp != self._stamp or self._asked.is_set():
                self._asked.clear()
                self._stamp = stamp
                await self.reload()

    async def reload(self) -> bool:
        """Whether the registry as it is now serves."""
        try:
            served = await asyncio.to_thread(self._load, self.engines.served)
            self._adopt(served)
        except (ModelFileError, OSError) as error:
            self._results["refused"] += 1
            log.error("the models serve on as they were, for the registry cannot be used: %s", error)
            return False
        self._results["done"] += 1
        engines = ["+".join(chain) for chain in served.chains.values()]
        log.info("models serve as the registry says", extra={"fields": {"engines": engines}})
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._state.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

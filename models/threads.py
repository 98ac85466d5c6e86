"""The threads that engines work in. Work that nobody waits for any more is broken off, not finished: a model that does
not come to an end would otherwise keep its thread for ever, and as many of those as there are threads, all engines.

onnxruntime looks at `RunOptions.terminate` between the nodes of a graph, also within its loops. A single node that does
not end cannot be broken off by anything but the end of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import onnxruntime as ort

P = ParamSpec("P")
T = TypeVar("T")

_mine = threading.local()


def run_options() -> ort.RunOptions | None:
    """What a session's run in this thread is to be given, so that it can be broken off; None outside EngineThreads."""
    return getattr(_mine, "options", None)


class EngineThreads(ThreadPoolExecutor):
    """A pool whose futures can be cancelled while they run, in so far as they run onnxruntime's sessions."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        options = ort.RunOptions()

        def work() -> T:
            _mine.options = options
            try:
                return fn(*args, **kwargs)
            finally:
                _mine.options = None

        future = super().submit(work)
        give_up = future.cancel

        def cancel() -> bool:
            """False once it runs, as of any future; but then it soon raises."""
            options.terminate = True
            return give_up()

        # asyncio passes a cancellation on by calling this, and tells the executor in no other way.
        future.cancel = cancel  # type: ignore[method-assign]
        return future

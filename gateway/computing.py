"""Computing an answer: an engine, run for one call in a slot of its own, and its chunks as messages.

What an engine raises becomes what a caller is told; what it took becomes the compute time of the answer.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, TypeVar

from gateway import wire
from gateway.admission import Slots
from gateway.call import Call
from gateway.components import CallComponents, ComponentCache
from gateway.errors import BadField, DeadlineExceeded, EngineFailed, Overloaded
from gateway.observe import Observer
from gateway.text import SPEAKABLE
from models.engine import ERRAND, Busy, EngineError, Errand, TooLate, Unfit
from models.text import NothingToSpeak
from models.utterance import Chunk, Utterance

T = TypeVar("T")
log = logging.getLogger("refrain.path")


async def in_thread(pool: Executor, work: Callable[..., T], *args: Any) -> T:
    """Blocking work, off the event loop."""
    return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


class Computing:
    """Of all calls. `clock`: monotonic seconds; `step_limit_s`: how long an engine may take for one chunk."""

    def __init__(
        self,
        *,
        slots: Slots,
        observer: Observer,
        pool: Executor,
        clock: Callable[[], float],
        step_limit_s: float | None,
        components: ComponentCache | None,
    ) -> None:
        self._slots, self._observer, self._pool, self._clock = slots, observer, pool, clock
        self._step_limit_s, self._components = step_limit_s, components

    def whole(self, call: Call) -> Callable[[], AsyncIterator[bytes]]:
        """What makes the one message of the whole answer."""
        components = self._components_of(call)

        async def compute() -> AsyncIterator[bytes]:
            chunks: list[Chunk] = [call.known] if call.known else [chunk async for chunk in self.run(call, components)]
            if call.task.brief(call.decoded, chunks):
                yield call.task.whole(call.decoded, chunks)
            else:
                yield await in_thread(self._pool, call.task.whole, call.decoded, chunks)

        return compute

    def frames(self, call: Call) -> Callable[[], AsyncIterator[bytes]]:
        """What makes the messages of a streamed answer, as they come."""
        components = self._components_of(call)

        async def compute() -> AsyncIterator[bytes]:
            assert call.task.frames is not None
            encoder = call.task.frames(call.decoded)
            async with aclosing(self.run(call, components, early=True)) as chunks:
                async for chunk in chunks:
                    for frame in encoder.push(chunk):
                        yield frame
            for frame in encoder.finish():
                yield frame

        return compute

    def _components_of(self, call: Call) -> CallComponents | None:
        """What the engine may remember of this call. Asked for before the answer is, lest an erasure fall between."""
        maker = call.engine.info.component
        if self._components is None or not maker:
            return None
        return self._components.of_call(call.keys, maker, call.tags(), call.decoded.control)

    async def run(
        self, call: Call, components: CallComponents | None = None, *, early: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """The engine's chunks, `early` where the caller gets each at once; the time spent in the engine is the answer's
        compute cost. Audits compute without `components`: they judge what memory gives."""
        decoded = call.decoded
        utterance = Utterance(
            content=wire.utterance_content(call.task.name, decoded.canonical),
            voice=call.fields.voice,
            emotion=decoded.emotion,
            speed=decoded.speed,
            language=decoded.language,
        )
        errand = Errand(call.deadline, early, components=components)
        ERRAND.set(errand)
        slot = functools.partial(self._slots.slot, at_once=call.engine.info.at_once, deadline=call.deadline)
        try:
            async with aclosing(call.engine.run(utterance)) as chunks:
                if not early:  # all of it is collected at once, so nobody is waited for between two steps
                    made = []
                    async with slot():
                        while (chunk := await self._step(call, errand, chunks)) is not None:
                            made.append(chunk)
                    await asyncio.sleep(0)  # who has the slot now begins, before this answer is encoded
                    for chunk in made:
                        yield chunk
                    return
                admitted = False
                while True:
                    # A slot for each step, so that a listener who does not read holds none between them.
                    async with slot(admitted=admitted):
                        chunk = await self._step(call, errand, chunks)
                    if chunk is None:
                        return
                    admitted = True
                    yield chunk
        except Unfit as error:
            raise BadField("recording.content", decoded.canonical, "a recording of speech", str(error)) from error
        except Busy as error:
            raise Overloaded(error.retry_after_s) from error
        except TooLate as error:
            raise DeadlineExceeded("the deadline of the call would pass before its turn") from error
        except NothingToSpeak as error:
            raise BadField("input.text", decoded.canonical.decode(), SPEAKABLE, str(error)) from error
        except (EngineError, TimeoutError, ValueError) as error:
            self._observer.engine_failed(call.fields.engine)
            facts = {"task": call.task.name, "engine": call.fields.engine[:12]}
            log.exception("engine failed", extra={"fields": facts})
            late = isinstance(error, TimeoutError)
            what = f"did not answer within {self._step_limit_s:g} s" if late else "could not answer"
            raise EngineFailed(f"the {call.task.name} engine {what}") from error

    async def _step(self, call: Call, errand: Errand, chunks: AsyncGenerator[Chunk, None]) -> Chunk | None:
        """The engine's next chunk, None at its end. What it took counts, but for the time of others' work in it."""
        begun = self._clock()
        async with asyncio.timeout(self._step_limit_s):
            chunk = await anext(chunks, None)
        call.compute_ms += max(0.0, self._clock() - begun - errand.waited_s) * 1e3
        errand.waited_s = 0.0
        return chunk

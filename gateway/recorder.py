"""Records the inputs of tenants that consent to it, sealed, so that their load can be sent again as it was.

Off unless a tenant's settings say `record_inputs = true`. One input is kept for each answer asked for, under the digest
that the access trace has for it, for as long and as many as the settings allow. A request only puts what it brought in
a bounded queue; a task of its own seals and writes it. Nothing it meets reaches a request: what finds the queue full,
the disk full or no key is dropped and counted.

Inputs are sealed as all that is stored (cache_tiers/sealed.py), under data keys that lie in Redis alone: with a
tenant's keys its inputs are gone, wherever their files were copied to. What is erased by a subject or a voice is
overwritten. Each record has the epochs of its tags, so that an erasure that is told again spares what came after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from cache_tiers.entry import CacheKey, Epochs
from cache_tiers.epochs import EpochBook
from cache_tiers.events import tenant_tag
from cache_tiers.link import Unavailable
from cache_tiers.sealed import Keyring
from gateway.input_files import Head, Kept, framed, raw_head
from gateway.input_folder import InputFolder
from gateway.trace import hashed, hasher, key_id
from gateway.wire.recorded import RECORDED, recorded, recorded_of
from gateway.wire.values import Mode

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.wire import Decoded

KNOWN: Final = 1 << 17
"""Answers whose input is known to be recorded; an older one is recorded once more."""
TIDY_S: Final = 30.0
"""How often files that are too old are looked for."""
RETRY_S: Final = 30.0
"""For how long a disk that failed is left alone."""
BATCH: Final = 64
"""Inputs that are sealed, in under a millisecond, before they are written and others have their turn; and bytes."""
BATCH_BYTES: Final = 1 << 20
LARGE: Final = 1 << 16
"""Bytes from which a request is parsed in a thread."""
Reason = Literal["queue", "disk", "key", "large", "erased", "failed"]

log = logging.getLogger("refrain.inputs")


@dataclass(frozen=True, slots=True)
class Input:
    """What a request brought, on its way to the disk."""

    digest: bytes
    task: str
    tenant: str
    time_us: int
    epochs: Epochs
    size: int
    what: bytes | Decoded
    """The request as it came, or what a stream amounts to."""


class Recorder:
    """`take` from the event loop alone."""

    def __init__(
        self,
        folder: Path,
        keyring: Keyring,
        epochs: EpochBook,
        key: bytes,
        consenting: frozenset[str],
        *,
        size: int,
        keep_s: float,
        share: float = 1.0,
        queue_bytes: int = 64 << 20,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key`: the trace's; `consenting`: tenants; `size`: bytes of all files; `share`: of all answers asked for."""
        self._keyring, self._epochs, self._hasher, self._consenting = keyring, epochs, hasher(key), consenting
        self._folder = InputFolder(folder, size=size, keep_s=keep_s, key_id=key_id(key), wall=wall)
        self._below, self._queue_bytes, self._keep_s = int(share * 2**64), queue_bytes, keep_s
        self._wall, self._clock = wall, clock
        self._known: dict[bytes, Path | None] = {}
        """Where the input of an answer is recorded; None while it waits."""
        self._pending: deque[Input] = deque()
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._disk = asyncio.Lock()
        self._ready = asyncio.Event()
        self._ready.set()
        self._retry_at = 0.0
        self._missed = False
        """Whether something is to be recorded when it comes again, and may come by a way that passes `take` by."""
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.recorded = 0
        self.dropped: dict[Reason, int] = dict.fromkeys(get_args(Reason), 0)
        self.on_missed: Callable[[], None] = lambda: None
        """Called so that requests that come again are seen again, however they are found."""

    @property
    def held(self) -> int:
        """Bytes of all files."""
        return self._folder.held

    # ------------------------------------------------------------------------------------------------ on the way

    def take(self, call: Call, request: bytes | None = None) -> None:
        """Takes what a call brought, unless it is recorded, or the caller wants nothing stored. `request` as it came;
        None for a stream. Never raises for the disk's or the keys' sake, never waits."""
        digest, control = call.key.digest, call.decoded.control
        if (
            call.tenant not in self._consenting
            or control.no_store
            or control.mode == Mode.BYPASS
            or int.from_bytes(digest[:8], "big") >= self._below
            or call.task.name not in RECORDED
        ):
            return
        name = hashed(self._hasher, digest)
        if name in self._known:
            return
        size = len(call.decoded.canonical if request is None else request)
        if size > self._folder.largest or self._waiting_bytes + size > self._queue_bytes:
            self._drop("large" if size > self._folder.largest else "queue", name)
            return
        self._know(name)
        self._waiting_bytes += size
        tags = [tenant_tag(call.tenant)]
        if call.fields.voice:
            tags.append(call.keys.tag("voice", call.fields.voice))
        if control.subject_id:
            tags.append(call.keys.tag("subject", control.subject_id))
        time_us, epochs, what = int(self._wall() * 1e6), self._epochs.of(tags), request or call.decoded
        self._pending.append(Input(name, call.task.name, call.tenant, time_us, epochs, size, what))
        self._news.set()

    def _know(self, name: bytes, path: Path | None = None) -> None:
        if len(self._known) >= KNOWN and name not in self._known:
            del self._known[next(iter(self._known))]
        self._known[name] = path

    def _drop(self, reason: Reason, name: bytes) -> None:
        self.dropped[reason] += 1
        self._known.pop(name, None)
        self._missed = self._missed or reason != "large"

    # ------------------------------------------------------------------------------------------------ beside it

    async def start(self) -> None:
        """Begins to write, once what is there has been read: some 8 us a record, beside requests. Erasures wait."""
        self._ready.clear()
        self._task = asyncio.create_task(self._run(), name="recorder")

    async def open(self) -> None:
        """Reads what is there, and erases what belongs to tenants that do not consent any more."""
        try:
            async with self._disk:
                for name, path in await asyncio.to_thread(_names, self._folder.open(self._consenting)):
                    self._know(name, path)
        except OSError as error:
            log.error("recorded inputs can't be read, nor those of tenants without consent erased: %s", error)
        finally:
            self._ready.set()

    async def close(self) -> None:
        """Writes what is pending."""
        self._closing = True
        self._news.set()
        if self._task is not None:
            await self._task
        await self.flush()
        async with self._disk:
            self._folder.close()

    async def _run(self) -> None:
        await self.open()
        pause = min(TIDY_S, self._keep_s / 4)
        tidy_at = self._clock()
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, tidy_at - self._clock())):
                    await self._news.wait()
            try:
                await self.flush()
                if self._clock() >= tidy_at:
                    tidy_at = self._clock() + pause
                    await self.tidy()
            except OSError as error:
                self._failed(error)
            except Exception:  # whatever it is, the next input may do better
                log.exception("recording inputs failed")

    async def flush(self) -> None:
        """Seals and writes what is pending, some at a time."""
        self._news.clear()
        await self._ready.wait()
        while self._pending:
            batch: list[tuple[Input, bytes]] = []
            taken, size = 0, 0
            while self._pending and taken < BATCH and size < BATCH_BYTES:
                one = self._pending.popleft()
                taken, size = taken + 1, size + one.size
                if data := await self._sealed(one):
                    batch.append((one, data))
            await self._write(batch)
            self._waiting_bytes -= size

    async def _sealed(self, one: Input) -> bytes:
        """A record, ready to be written; nothing where it is to be dropped."""
        if self._clock() < self._retry_at:
            self._drop("disk", one.digest)
            return b""
        try:
            message = _message(one) if one.size < LARGE else await asyncio.to_thread(_message, one)
            streamed = not isinstance(one.what, bytes)
            raw = raw_head(Head(one.digest.hex(), one.time_us, one.tenant, one.task, streamed, one.epochs.of))
            data = framed(raw, await self._keyring.seal(CacheKey(one.tenant, raw), b"i", message))
        except Unavailable:
            self._drop("key", one.digest)
        except Exception:  # one that can't be recorded must not end the recording of others
            self._drop("failed", one.digest)
            log.exception("an input could not be recorded")
        else:
            if len(data) <= self._folder.largest:
                return data
            self._drop("large", one.digest)
        return b""

    async def _write(self, batch: list[tuple[Input, bytes]]) -> None:
        """Writes what is neither erased nor found on the disk meanwhile. A failed disk is left alone for a while."""
        async with self._disk:
            written: list[Path] = []
            fresh: list[tuple[Input, bytes]] = []
            for one, data in batch:
                if not self._epochs.unchanged(one.epochs):
                    self._drop("erased", one.digest)
                elif self._known.get(one.digest) is None:
                    fresh.append((one, data))
            try:
                await asyncio.to_thread(self._append, [data for _, data in fresh], written)
            except OSError as error:
                self._failed(error)
            for (one, _), path in zip(fresh, written, strict=False):
                self._know(one.digest, path)
            self.recorded += len(written)
            for one, _ in fresh[len(written) :]:
                self._drop("disk", one.digest)

    def _append(self, records: Iterable[bytes], written: list[Path]) -> None:
        for data in records:
            written.append(self._folder.append(data))  # noqa: PERF401 - what was written before an error counts

    async def tidy(self) -> None:
        """Removes what is too old or too much, and learns what other gateways recorded. Raises OSError."""
        async with self._disk:
            await asyncio.to_thread(self._folder.tidy)
            for name, path in await asyncio.to_thread(_names, self._folder.read()):
                self._know(name, path)
            gone, self._folder.removed = self._folder.removed, set()
        if gone:
            self._known = {name: path for name, path in self._known.items() if path not in gone}
        if gone or self._missed:
            self._missed = False
            self.on_missed()

    async def erase(self, tag: str) -> None:
        """Erases what carries the tag, for good when this returns. Raises OSError."""
        await self._ready.wait()
        ((_, epoch),) = self._epochs.of((tag,)).of
        async with self._disk:
            digests = await asyncio.to_thread(self._folder.erase, tag, epoch)
        for digest in digests:
            self._known.pop(bytes.fromhex(digest), None)
        if digests:
            self.on_missed()

    def _failed(self, error: OSError) -> None:
        self._retry_at = self._clock() + RETRY_S
        log.warning("inputs not recorded", extra={"fields": {"error": str(error), "retry_s": RETRY_S}})


def _names(records: Iterable[Kept]) -> Iterable[tuple[bytes, Path]]:
    """The digests of the last of these, and where they lie."""
    return deque(((bytes.fromhex(kept.head.digest), kept.path) for kept in records), KNOWN)


def _message(one: Input) -> bytes:
    return recorded(one.task, one.what) if isinstance(one.what, bytes) else recorded_of(one.task, one.what)

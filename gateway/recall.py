"""Recall for the request path: from new audio to the digest of a recording heard before, or to nothing.

Holds one index a tenant, the audits of what it finds (`gateway.audits`), and what is said in sessions
(`gateway.respoken`). Index work runs in one thread of its own,
so that it is never concurrent and never on the event loop. What is enrolled is also written beside the value in Redis,
so that a restart, or another gateway, knows it too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import struct
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.epochs import EpochBook, LocalEpochs
from cache_tiers.events import tenant_tag
from gateway import audio
from gateway.audits import KEEP_S, AuditJournal, Audits, Recalled, TenantPolicy
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.index import RecallIndex
from gateway.fingerprint.listen import listen
from gateway.paced import AFTER_S
from gateway.respoken import Sessions

T = TypeVar("T")
_Change = tuple[str | None, Callable[[RecallIndex], object]]
"""A tenant, or None for all of them, and what is done to its index."""
log = logging.getLogger("refrain.recall")

_HEAD = struct.Struct("<BH")
_RECORD_VERSION = 1
TOGETHER = 256
"""Recordings of a tenant that are read back at a time."""
LATELY_S = 10.0
"""More than a recording takes from the index to the journal, where a rebuild reads it."""


class Journal(AuditJournal, Protocol):
    """Where recall keeps what must outlive the process; Redis in production."""

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        """Puts the record beside the entry. Never waits, never raises."""
        ...

    def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]: ...


@dataclass(slots=True)
class RecallStats:
    """Counts since the start."""

    lookups: int = 0
    recalled: int = 0
    too_short: int = 0
    enrolled: int = 0


class _Tenant:
    def __init__(self, policy: TenantPolicy) -> None:
        self.policy = policy
        self.index = RecallIndex()


class Recall:
    """`ready` is set once the index has been rebuilt; before, nothing is recalled."""

    def __init__(
        self,
        policies: Callable[[str], TenantPolicy],
        journal: Journal | None = None,
        *,
        epochs: EpochBook | None = None,
        sessions: Sessions | None = None,
        seed: int | None = None,
        keep_s: float = KEEP_S,
    ) -> None:
        self._policies, self._journal = policies, journal
        self._epochs: EpochBook = LocalEpochs() if epochs is None else epochs
        self._tenants: dict[str, _Tenant] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recall")
        self._tasks: set[asyncio.Task[None]] = set()
        self.sessions = Sessions() if sessions is None else sessions
        self._missed: list[_Change] | None = None
        """What changes while the index is rebuilt aside, to be done again on the new one."""
        self._lately: deque[tuple[float, str, bytes]] = deque()
        """When this process enrolled what, by tenant and digest: the last of it may not be in the journal yet."""
        self.ready = asyncio.Event()
        self.stats = RecallStats()
        self.audits = Audits(policies, journal, self._spawn, seed=seed, keep_s=keep_s)

    def _of(self, tenant: str) -> _Tenant:
        state = self._tenants.get(tenant)
        if state is None:
            state = self._tenants[tenant] = _Tenant(self._policies(tenant))
        return state

    # ---------------------------------------------------------------------------------------------- answering

    async def find(self, tenant: str, pcm: bytes, query: bytes, min_similarity: float) -> Recalled | None:
        """`pcm`: canonical audio, `query`: its input digest. None when nothing heard before is surely the same."""
        if not self.ready.is_set():
            return None
        self.stats.lookups += 1
        state = self._of(tenant)
        least = max(min_similarity, state.policy.min_similarity)
        shunned = self.audits.shunned(tenant)
        return await self._in_thread(lambda: self._find(state, pcm, query, least, shunned))

    def _find(
        self, state: _Tenant, pcm: bytes, query: bytes, least: float, shunned: Callable[[bytes, bytes], bool]
    ) -> Recalled | None:
        code = listen(audio.waveform(pcm).samples)
        if code is None:
            self.stats.too_short += 1
            return None
        found = state.index.lookup(
            code,
            min_similarity=least or None,
            accept=lambda digest: digest != query and not shunned(query, digest),
        )
        if found is None:
            return None
        self.stats.recalled += 1
        return Recalled(found.id, query, found.similarity, found.offset_s)

    # ------------------------------------------------------------------------------------- enrolling, forgetting

    def enrol(self, key: CacheKey, entry: Entry, digest: bytes, pcm: bytes) -> None:
        """Remembers a recording whose answer was just stored, behind the response.

        To be called in the step that stored it: an erasure between that step and the end of the work undoes it.
        """
        epochs = self._epochs.of((*entry.tags, tenant_tag(key.tenant)))
        self._spawn(self._enrol(key, entry, digest, pcm, epochs))

    async def _enrol(self, key: CacheKey, entry: Entry, digest: bytes, pcm: bytes, epochs: Epochs) -> None:
        await asyncio.sleep(AFTER_S)  # fingerprinting holds the interpreter
        code = await self._in_thread(lambda: fingerprint(audio.waveform(pcm).samples))
        if code is None or not self._epochs.unchanged(epochs):
            return
        now = asyncio.get_running_loop().time()
        self._lately.append((now, key.tenant, digest))
        while self._lately[0][0] < now - LATELY_S:
            self._lately.popleft()
        await self._change(key.tenant, lambda index: index.add(digest, code, entry.tags))
        if not self._epochs.unchanged(epochs):
            await self._change(key.tenant, lambda index: index.remove(digest))
            return
        self.stats.enrolled += 1
        if self._journal is not None:
            self._journal.keep_record(key, entry, _pack(digest, entry.tags, code))

    async def forget(self, tag: str) -> int:
        """Removes every recording that carries the tag, of whichever tenant (tags are keyed digests)."""
        self.sessions.forget(tag)
        if self._missed is not None:  # one of tenants that are known to the new index alone, too
            self._missed.append((None, lambda index: index.remove_tag(tag)))
        states = list(self._tenants.values())  # at once, or a rebuild that begins between two would carry over the rest
        return await self._in_thread(lambda: sum(state.index.remove_tag(tag) for state in states))

    async def forget_tenant(self, tenant: str) -> None:
        """Drops the tenant's whole index, and what its sessions said; audits and quarantine stay."""
        self.sessions.forget_tenant(tenant)
        if self._missed is not None:
            self._missed.append((tenant, RecallIndex.clear))
        if tenant in self._tenants:
            self._tenants[tenant].index = RecallIndex()

    # ------------------------------------------------------------------------------------------------ start, end

    def start_over(self) -> None:
        """Forgets all recordings at once, and answers nothing until `rebuild` is done: part of the story was missed."""
        self.ready.clear()
        self.sessions.forget_all()
        for state in self._tenants.values():
            state.index = RecallIndex()

    async def rebuild(self) -> int:
        """Reads all recordings back from the journal into new indexes, which then take the place of the old ones.

        What has expired or was evicted in Redis is thereby forgotten. Fuzzy answers go on meanwhile, if they had
        begun, and begin when it is done. Returns how many recordings there are.
        """
        fresh: dict[str, RecallIndex] = defaultdict(RecallIndex)
        missed: list[_Change] = []
        self._missed = missed
        since = asyncio.get_running_loop().time() - LATELY_S
        lately = [(tenant, digest) for at, tenant, digest in self._lately if at >= since]
        try:
            await self._read_journal(fresh)
            await self._in_thread(functools.partial(self._carry_over, lately, fresh))
            while missed:
                tenant, change = missed.pop(0)
                for index in list(fresh.values()) if tenant is None else [fresh[tenant]]:
                    await self._in_thread(functools.partial(change, index))
        finally:
            if self._missed is missed:  # else another rebuild has begun since, and this one was given up
                self._missed = None
        for tenant, state in self._tenants.items():
            state.index = fresh.pop(tenant, RecallIndex())
        for tenant, index in fresh.items():
            self._of(tenant).index = index
        self.ready.set()
        return self.entries()

    def _carry_over(self, lately: Sequence[tuple[str, bytes]], fresh: dict[str, RecallIndex]) -> None:
        """Takes from the old indexes what they still hold of `lately` and the journal did not have yet.

        In the thread, behind all that was asked of the old ones before.
        """
        for tenant, digest in lately:
            state = self._tenants.get(tenant)
            entry = None if state is None else state.index.entry(digest)
            if entry is not None and digest not in fresh[tenant]:
                fresh[tenant].add(*entry)

    async def _read_journal(self, fresh: dict[str, RecallIndex]) -> None:
        if self._journal is not None:
            await self.audits.read_journal()
            read: dict[str, list[tuple[bytes, Fingerprint, tuple[str, ...]]]] = defaultdict(list)
            async for key, record in self._journal.records():
                unpacked = _unpack(record)
                if unpacked is not None:
                    digest, tags, code = unpacked
                    read[key.tenant].append((digest, code, tags))
                    if len(read[key.tenant]) >= TOGETHER:
                        await self._in_thread(functools.partial(fresh[key.tenant].add_many, read.pop(key.tenant)))
            for tenant, entries in read.items():
                await self._in_thread(functools.partial(fresh[tenant].add_many, entries))

    async def learn(self, tenant: str, record: bytes) -> bool:
        """Takes in a recording that another gateway enrolled. False when it can't be read."""
        unpacked = _unpack(record)
        if unpacked is None:
            return False
        digest, tags, code = unpacked
        await self._change(tenant, lambda index: index.add(digest, code, tags))
        return True

    async def close(self) -> None:
        """Waits for what is being enrolled or audited."""
        self.audits.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown()

    def index_of(self, tenant: str) -> RecallIndex:
        """The tenant's index as it is now, to look into from any thread; an empty one where there is none."""
        state = self._tenants.get(tenant)
        return RecallIndex() if state is None else state.index

    def entries(self) -> int:
        return sum(len(state.index) for state in self._tenants.values())

    # ------------------------------------------------------------------------------------------------- plumbing

    async def _change(self, tenant: str, change: Callable[[RecallIndex], object]) -> None:
        """Changes the tenant's index, and the one that is being built to take its place."""
        if self._missed is not None:
            self._missed.append((tenant, change))
        await self._in_thread(functools.partial(change, self._of(tenant).index))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("recall work failed", exc_info=task.exception())

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _pack(digest: bytes, tags: tuple[str, ...], code: Fingerprint) -> bytes:
    joined = ",".join(tags).encode()
    return _HEAD.pack(_RECORD_VERSION, len(joined)) + digest + joined + code.to_bytes()


def _unpack(record: bytes) -> tuple[bytes, tuple[str, ...], Fingerprint] | None:
    try:
        version, length = _HEAD.unpack_from(record)
        if version != _RECORD_VERSION:
            return None
        digest = record[_HEAD.size : _HEAD.size + 32]
        joined = record[_HEAD.size + 32 : _HEAD.size + 32 + length].decode()
        code = Fingerprint.from_bytes(record[_HEAD.size + 32 + length :])
    except (struct.error, ValueError):
        return None
    return digest, tuple(joined.split(",")) if joined else (), code

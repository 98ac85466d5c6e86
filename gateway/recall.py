"""Recall for the request path: from new audio to the digest of a recording heard before, or to nothing.

Holds one index and one audit (with the pairs it quarantined) a tenant. Index work runs in one thread of its own, so
that it is never concurrent and never on the event loop. What is enrolled is also written beside the value in Redis, so
that a restart, or another gateway, knows it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.epochs import EpochBook, LocalEpochs
from cache_tiers.events import tenant_tag
from gateway import audio, wire
from gateway.errors import Overloaded
from gateway.fingerprint.audit import Audit, lower_bound
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.index import RecallIndex
from gateway.stats import AuditCount

T = TypeVar("T")
_Change = tuple[str | None, Callable[[RecallIndex], object]]
"""A tenant, or None for all of them, and what is done to its index."""
log = logging.getLogger("refrain.recall")

_HEAD = struct.Struct("<BH")
_RECORD_VERSION = 1
NEAR = "/near"
"""Behind a tenant's name, which has no such character: its books of near voices and moods."""


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What an operator allows a tenant."""

    fuzzy: Literal["never", "on_request", "always"] = "on_request"
    min_similarity: float = 0.0
    wrong_hit_limit: float = 0.005
    require_proof: bool = False
    """Serve fuzzy answers only once audits have brought the upper bound under the limit; else until they show it to
    be above."""

    @property
    def enrols(self) -> bool:
        return self.fuzzy != "never"

    def allows_fuzzy(self, match: int) -> bool:
        if self.fuzzy == "never" or match == wire.Match.EXACT:
            return False
        return match == wire.Match.FUZZY or self.fuzzy == "always"


@dataclass(frozen=True, slots=True)
class Recalled:
    """A recording heard before: the digest it was stored under, how alike it is, and where it begins in the new one.

    Or a voice and mood that an embedding and an example resolved to: digests of either, and how alike they are. They
    are audited in books of their own, under the tenant that `near_of` names.
    """

    digest: bytes
    query: bytes
    similarity: float
    offset_s: float


def near_of(tenant: str) -> str:
    """Under what name the audits of a tenant's near voices and moods are kept.

    The two kinds are judged by different ears, which are sure of different shares: the one must not stop the other.
    """
    return tenant + NEAR


def is_near(tenant: str) -> bool:
    return tenant.endswith(NEAR)


class Verdict(Protocol):
    """Judges one fuzzy answer after the fact: True right, False wrong, None undecided."""

    def __call__(self) -> Awaitable[bool | None]: ...


class Journal(Protocol):
    """Where recall keeps what must outlive the process; Redis in production."""

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        """Puts the record beside the entry. Never waits, never raises."""
        ...

    async def keep_state(self, tenant: str, audit: bytes) -> None: ...

    async def tell_quarantine(self, tenant: str, pair: tuple[bytes, bytes]) -> None:
        """Keeps a pair that is never to be matched again, and tells other gateways of it."""
        ...

    def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]: ...

    async def states(self) -> dict[str, bytes]:
        """Tenant to its audit, as whichever gateway kept it last."""
        ...

    async def quarantined(self) -> list[tuple[str, tuple[bytes, bytes]]]:
        """Every pair that any gateway told of, with its tenant."""
        ...


@dataclass(slots=True)
class RecallStats:
    """Counts since the start."""

    lookups: int = 0
    recalled: int = 0
    too_short: int = 0
    enrolled: int = 0
    audited: int = 0
    withheld: int = 0
    """Fuzzy answers found but not served, because audits say that too many are wrong."""


class _Tenant:
    def __init__(self, policy: TenantPolicy) -> None:
        self.policy = policy
        self.index = RecallIndex()
        self.audit = Audit()
        self.withholding = False


class Recall:
    """`ready` is set once the index has been rebuilt; before, nothing is recalled."""

    def __init__(
        self,
        policies: Callable[[str], TenantPolicy],
        journal: Journal | None = None,
        *,
        epochs: EpochBook | None = None,
        seed: int | None = None,
    ) -> None:
        self._policies, self._journal = policies, journal
        self._epochs: EpochBook = LocalEpochs() if epochs is None else epochs
        self._tenants: dict[str, _Tenant] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recall")
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random(seed)
        self._judging = False
        self._missed: list[_Change] | None = None
        """What changes while the index is rebuilt aside, to be done again on the new one."""
        self.ready = asyncio.Event()
        self.stats = RecallStats()

    def _of(self, tenant: str) -> _Tenant:
        state = self._tenants.get(tenant)
        if state is None:
            state = self._tenants[tenant] = self._new(tenant)
        return state

    def _new(self, tenant: str) -> _Tenant:
        return _Tenant(self._policies(tenant.removesuffix(NEAR)))

    # ---------------------------------------------------------------------------------------------- answering

    async def find(self, tenant: str, pcm: bytes, query: bytes, min_similarity: float) -> Recalled | None:
        """`pcm`: canonical audio, `query`: its input digest. None when nothing heard before is surely the same."""
        if not self.ready.is_set():
            return None
        self.stats.lookups += 1
        state = self._of(tenant)
        least = max(min_similarity, state.policy.min_similarity)
        return await self._in_thread(lambda: self._find(state, pcm, query, least))

    def _find(self, state: _Tenant, pcm: bytes, query: bytes, least: float) -> Recalled | None:
        code = fingerprint(audio.waveform(pcm).samples)
        if code is None:
            self.stats.too_short += 1
            return None
        found = state.index.lookup(
            code,
            min_similarity=least or None,
            accept=lambda digest: digest != query and not state.audit.is_quarantined(_pair(query, digest)),
        )
        if found is None:
            return None
        self.stats.recalled += 1
        return Recalled(found.id, query, found.similarity, found.offset_s)

    def may_serve(self, tenant: str) -> bool:
        """False while audits forbid fuzzy answers; they go on being audited, and begin again by themselves."""
        state = self._of(tenant)
        policy = state.policy
        allowed = self._allowed(state)
        if allowed == state.withholding:
            state.withholding = not allowed
            log.warning(
                "fuzzy answers %s",
                "resumed" if allowed else "stopped",
                extra={"fields": {"tenant": tenant, "bound": state.audit.bound(), "limit": policy.wrong_hit_limit}},
            )
        if not allowed:
            self.stats.withheld += 1
        return allowed

    @staticmethod
    def _allowed(state: _Tenant) -> bool:
        audit, limit = state.audit, state.policy.wrong_hit_limit
        if state.policy.require_proof:
            return audit.allowed(limit)
        return lower_bound(audit.wrong, audit.wrong + audit.right) <= limit

    # ------------------------------------------------------------------------------------------------ auditing

    def maybe_audit(self, tenant: str, recalled: Recalled, judge: Verdict) -> None:
        """Judges a share of the fuzzy answers, off the caller's path.

        One at a time: audits take the engine that callers wait for. A sample for which there is no room is dropped
        before anything is known of it, so that leaving it out tells nothing.
        """
        if self._judging:
            return
        state = self._of(tenant)
        limit = state.policy.wrong_hit_limit if state.policy.require_proof or not self._allowed(state) else 1.0
        if state.audit.should_audit(self._random, limit):
            self._judging = True
            self._spawn(self._audit(tenant, recalled, judge))

    async def _audit(self, tenant: str, recalled: Recalled, judge: Verdict) -> None:
        state = self._of(tenant)
        try:
            right = await judge()
        except Overloaded:
            return
        except Exception:
            log.exception("an audit could not be judged", extra={"fields": {"tenant": tenant}})
            right = None
        finally:
            self._judging = False
        self.stats.audited += 1
        if right is False:
            await self._quarantine(tenant, _pair(recalled.query, recalled.digest))
        else:
            state.audit.record("undecided" if right is None else "right")
            await self._keep_state(tenant, state)

    def is_quarantined(self, tenant: str, found: Recalled) -> bool:
        return self._of(tenant).audit.is_quarantined(_pair(found.query, found.digest))

    async def report_wrong(self, tenant: str, query: bytes, digest: bytes) -> bool:
        """An operator or caller says that the pair is wrong: never matched again, and a failed audit. False if known.

        The pair must be one that was served; `gateway.keys` signs those.
        """
        pair = _pair(query, digest)
        if self._of(tenant).audit.is_quarantined(pair):
            return False
        await self._quarantine(tenant, pair)
        return True

    async def _quarantine(self, tenant: str, pair: tuple[bytes, bytes]) -> None:
        state = self._of(tenant)
        if state.audit.quarantine(pair):
            await self._keep_state(tenant, state)
            if self._journal is not None:
                await self._journal.tell_quarantine(tenant, pair)

    def hear_quarantine(self, tenant: str, pair: tuple[bytes, bytes]) -> None:
        """Another gateway quarantined the pair; it has counted and kept it."""
        self._of(tenant).audit.quarantined.add(pair)

    def audit_count(self, tenant: str) -> AuditCount:
        """What audits have found for the tenant."""
        state = self._tenants.get(tenant) or self._new(tenant)  # asking is no reason to keep books
        audit, policy = state.audit, state.policy
        return AuditCount(
            audited=audit.audited,
            wrong=audit.wrong,
            undecided=audit.undecided,
            wrong_upper_bound=audit.bound(),
            limit=policy.wrong_hit_limit,
            serving=policy.fuzzy != "never" and self._allowed(state),
        )

    def audit_total(self) -> AuditCount:
        """All tenants' counts together, with the worst bound of recordings recalled; for metrics."""
        books = {tenant: self.audit_count(tenant) for tenant in self._tenants}
        counts, recalled = books.values(), [count for tenant, count in books.items() if not is_near(tenant)]
        return AuditCount(
            audited=sum(count.audited for count in counts),
            wrong=sum(count.wrong for count in counts),
            undecided=sum(count.undecided for count in counts),
            wrong_upper_bound=max((count.wrong_upper_bound for count in recalled), default=1.0),
            limit=min((count.limit for count in recalled), default=0.0),
            serving=any(count.serving for count in recalled),
        )

    # ------------------------------------------------------------------------------------- enrolling, forgetting

    def enrol(self, key: CacheKey, entry: Entry, digest: bytes, pcm: bytes) -> None:
        """Remembers a recording whose answer was just stored, behind the response.

        To be called in the step that stored it: an erasure between that step and the end of the work undoes it.
        """
        epochs = self._epochs.of((*entry.tags, tenant_tag(key.tenant)))
        self._spawn(self._enrol(key, entry, digest, pcm, epochs))

    async def _enrol(self, key: CacheKey, entry: Entry, digest: bytes, pcm: bytes, epochs: Epochs) -> None:
        code = await self._in_thread(lambda: fingerprint(audio.waveform(pcm).samples))
        if code is None or not self._epochs.unchanged(epochs):
            return
        await self._change(key.tenant, lambda index: index.add(digest, code, entry.tags))
        if not self._epochs.unchanged(epochs):
            await self._change(key.tenant, lambda index: index.remove(digest))
            return
        self.stats.enrolled += 1
        if self._journal is not None:
            self._journal.keep_record(key, entry, _pack(digest, entry.tags, code))

    async def forget(self, tag: str) -> int:
        """Removes every recording that carries the tag, of whichever tenant (tags are keyed digests)."""
        before = self.entries()
        if self._missed is not None:  # one of tenants that are known to the new index alone, too
            self._missed.append((None, lambda index: index.remove_tag(tag)))
        for state in list(self._tenants.values()):
            await self._in_thread(functools.partial(state.index.remove_tag, tag))
        return before - self.entries()

    async def forget_tenant(self, tenant: str) -> None:
        """Drops the tenant's whole index; audits and quarantine stay."""
        if self._missed is not None:
            self._missed.append((tenant, RecallIndex.clear))
        if tenant in self._tenants:
            self._tenants[tenant].index = RecallIndex()

    # ------------------------------------------------------------------------------------------------ start, end

    def start_over(self) -> None:
        """Forgets all recordings at once, and answers nothing until `rebuild` is done: part of the story was missed."""
        self.ready.clear()
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
        try:
            await self._read_journal(fresh)
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

    async def _read_journal(self, fresh: dict[str, RecallIndex]) -> None:
        if self._journal is not None:
            for tenant, audit in (await self._journal.states()).items():
                with contextlib.suppress(ValueError):  # of a newer gateway: this one counts afresh
                    self._of(tenant).audit.learn(Audit.from_bytes(audit))
            for tenant, pair in await self._journal.quarantined():
                self._of(tenant).audit.learn(Audit(quarantined={pair}))
            async for key, record in self._journal.records():
                unpacked = _unpack(record)
                if unpacked is not None:
                    digest, tags, code = unpacked
                    await self._in_thread(functools.partial(fresh[key.tenant].add, digest, code, tags))

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
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown()

    def entries(self) -> int:
        return sum(len(state.index) for state in self._tenants.values())

    # ------------------------------------------------------------------------------------------------- plumbing

    async def _change(self, tenant: str, change: Callable[[RecallIndex], object]) -> None:
        """Changes the tenant's index, and the one that is being built to take its place."""
        if self._missed is not None:
            self._missed.append((tenant, change))
        await self._in_thread(functools.partial(change, self._of(tenant).index))

    async def _keep_state(self, tenant: str, state: _Tenant) -> None:
        if self._journal is not None:
            await self._journal.keep_state(tenant, state.audit.to_bytes())

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


def _pair(query: bytes, digest: bytes) -> tuple[bytes, bytes]:
    """A pair by its half digests, which is what an entry_id carries."""
    return query[:16], digest[:16]


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

"""Every tenant's audits: may a fuzzy answer be served, is it to be judged, and what became of that.

Judging is off the caller's path and one answer at a time. What is found is kept in the journal, by gateway, and told to
the other gateways; sums are what decides. Tenants of which both allow it share what they know.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, Protocol

import numpy as np

from gateway import wire
from gateway.errors import Overloaded
from gateway.fingerprint.audit import (
    EDGES,
    SETS,
    Audit,
    Judgement,
    Sample,
    tally_from_bytes,
    upper_bound,
)
from gateway.fingerprint.judged import LABEL_CHARACTERS, JudgedPair, kept, pairs_json, pairs_of
from gateway.paced import Paced
from gateway.stats import AuditCount, LanguageAudits, VoiceAudits

log = logging.getLogger("refrain.recall")
Pair = tuple[bytes, bytes]

NEAR: Final = "/near"
"""Behind a tenant's name, which has no such character: its books of near voices and moods."""
RESPOKEN: Final = "/respoken"
"""The same, of commands said again within a session."""
KEEP_S: Final = 1.0
"""Within which a right answer is put into the journal, where what was found before lies already. Others are at once."""
KNOWN: Final = 4096
"""Answers judged right that are remembered, so that they are not judged again."""


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What an operator allows a tenant."""

    fuzzy: Literal["never", "shadow", "on_request", "always"] = "on_request"
    min_similarity: float = 0.0
    wrong_hit_limit: float = 0.005
    require_proof: bool = True
    """Serve fuzzy answers only once audits have brought the upper bound under the limit; else until they alarm."""
    require_near_proof: bool = False
    """The same for voices by embedding and moods by example."""
    pool_audits: bool = False
    respoken: Literal["never", "on_request"] = "on_request"
    """Whether a command said again within a session may be answered as before, where fuzzy answers are allowed."""

    @property
    def enrols(self) -> bool:
        return self.fuzzy != "never"

    @property
    def shadow(self) -> bool:
        """Recordings are looked up and audited as if fuzzy answers were served, and none is."""
        return self.fuzzy == "shadow"

    def allows_fuzzy(self, match: int) -> bool:
        if self.fuzzy in ("never", "shadow") or match == wire.Match.EXACT:
            return False
        return match == wire.Match.FUZZY or self.fuzzy == "always"

    def looks(self, match: int) -> bool:
        """Whether recall is asked at all."""
        return self.allows_fuzzy(match) or (self.shadow and match != wire.Match.EXACT)


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


def respoken_of(tenant: str) -> str:
    """Under what name the audits of commands said again are kept: another matcher, with errors of its own."""
    return tenant + RESPOKEN


def is_near(tenant: str) -> bool:
    return tenant.endswith(NEAR)


def is_respoken(tenant: str) -> bool:
    return tenant.endswith(RESPOKEN)


class Verdict(Protocol):
    """Judges one fuzzy answer after the fact; with the verdict goes the judge's power (`gateway.fingerprint.audit`)."""

    def __call__(self) -> Awaitable[tuple[Judgement, float]]: ...


class AuditJournal(Protocol):
    """Where audits are kept and told; Redis in production."""

    async def keep_tally(self, tenant: str, tally: bytes, told: bytes) -> None:
        """Keeps what this gateway found in place of what it kept before, and tells others `told`: the same, of the
        judged pairs those alone which came since."""
        ...

    async def tallies(self) -> list[tuple[str, str, bytes]] | None:
        """(tenant, gateway, tally) of every gateway; "" is this one. None while they cannot be read."""
        ...

    async def tell_quarantine(self, tenant: str, pair: Pair) -> None:
        """Keeps a pair that is never to be matched again, and tells other gateways of it."""
        ...

    async def quarantined(self) -> list[tuple[str, Pair]] | None:
        """Every pair that any gateway told of, with its tenant. None while they cannot be read."""
        ...


@dataclass(slots=True)
class AuditStats:
    """Counts since the start, of all tenants."""

    audited: int = 0
    served: int = 0
    withheld: int = 0
    """Recordings found but not served, because too little is known of them, or too many are wrong."""


class _Book:
    """One tenant's audit, or that of its near voices and moods, or of commands said again in its sessions."""

    def __init__(self, policy: TenantPolicy, near: bool, respoken: bool = False) -> None:
        self.policy, self.near, self.respoken = policy, near, respoken
        self.audit = Audit(policy.wrong_hit_limit, proof=policy.require_near_proof if near else policy.require_proof)
        self.serving = self.audit.served_from() < SETS
        self.alarms = self.withheld = self.would_serve = 0
        self.judged: list[JudgedPair] = []
        """What this gateway judged, as `kept` says."""
        self.untold: list[JudgedPair] = []
        """The last of them, which are not in the journal yet."""
        self.judged_by_others: dict[str, list[JudgedPair]] = {}

    def tally(self, pairs: Iterable[JudgedPair]) -> bytes:
        """What this gateway found, and `pairs` of it."""
        return self.audit.to_bytes(pairs=pairs_json(pairs))

    @property
    def recalled(self) -> bool:
        """Whether it is of recordings recalled."""
        return not self.near and not self.respoken

    @property
    def pooled(self) -> bool:
        return self.policy.pool_audits and self.recalled


class Audits:
    """The books of all tenants."""

    def __init__(
        self,
        policies: Callable[[str], TenantPolicy],
        journal: AuditJournal | None,
        spawn: Callable[[Coroutine[None, None, None]], None],
        *,
        seed: int | None = None,
        wall: Callable[[], float] = time.time,
        keep_s: float = KEEP_S,
    ) -> None:
        """`spawn` runs work beside the caller's, and waits for it at the end. `wall`: seconds since 1970."""
        self._policies, self._journal, self._spawn = policies, journal, spawn
        self._paced = Paced(spawn, keep_s)
        self._wall = wall
        self._books: dict[str, _Book] = {}
        self._random = random.Random(seed)
        self._judging = False
        self._right: dict[tuple[str, bytes, bytes, bytes], None] = {}
        """Books, pair and answer of the last KNOWN that were judged right."""
        self._resumed = False
        """What this gateway kept before it was started has been read, so that keeping does not overwrite it."""
        self.stats = AuditStats()

    def _of(self, tenant: str) -> _Book:
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = self._new(tenant)
            if book.pooled:
                self._pool()
        return book

    def _new(self, tenant: str) -> _Book:
        policy = self._policies(tenant.removesuffix(NEAR).removesuffix(RESPOKEN))
        return _Book(policy, is_near(tenant), is_respoken(tenant))

    # ----------------------------------------------------------------------------------------------- deciding

    def may_serve(self, tenant: str, found: Recalled) -> bool:
        """False while audits forbid it; such answers go on being audited, and begin again by themselves."""
        book = self._of(tenant)
        if not book.audit.serves(found.similarity):
            self.stats.withheld += 1
            book.withheld += 1
            return False
        book.audit.count_served()
        if book.policy.shadow:
            book.would_serve += 1
            return False
        self.stats.served += 1
        return True

    def shunned(self, tenant: str) -> Callable[[bytes, bytes], bool]:
        """Whether a recording asked must not be answered by one recalled; by their digests, from any thread."""
        audit = self._of(tenant).audit
        return lambda query, digest: audit.is_quarantined(half_pair(query, digest))

    # --------------------------------------------------------------------------------------------------- judging

    def maybe_audit(self, tenant: str, found: Recalled, judge: Verdict, label: str = "", answer: bytes = b"") -> None:
        """Judges a share of the fuzzy answers, off the caller's path. `label`, by which audits are counted: the
        language that was named, or, of a near voice, the voice that answered. `answer`: the digest in its cache key.

        One at a time: audits take the engine that callers wait for. A sample for which there is no room is dropped
        before anything is known of it, so that leaving it out tells nothing. What was judged right is not judged again:
        the same sound gets the same verdict, which says nothing of others, so that one recording asked a thousand times
        would open the way for all. Fewer right ones among those judged can only raise the bound.
        """
        known = (tenant, *half_pair(found.query, found.digest), answer)
        if self._judging or (answer and known in self._right):
            return
        sample = self._of(tenant).audit.draw(self._random, found.similarity)
        if sample is not None:
            self._judging = True
            self._spawn(self._audit(tenant, found, sample, judge, label, answer))

    async def _audit(
        self, tenant: str, found: Recalled, sample: Sample, judge: Verdict, label: str, answer: bytes
    ) -> None:
        try:
            judgement, power = await judge()
        except Overloaded:
            return
        except Exception:
            log.exception("an audit could not be judged", extra={"fields": {"tenant": tenant}})
            judgement, power = "unjudged", 1.0
        finally:
            self._judging = False
        self.stats.audited += 1
        names, similarity = half_pair(found.query, found.digest), max(0.0, found.similarity)
        label, at = label[:LABEL_CHARACTERS], int(self._wall())
        pair = JudgedPair(*names, similarity, judgement, label, answer, at)
        if judgement == "wrong":
            await self._quarantine(tenant, pair, sample)
        else:
            self._of(tenant).audit.record(sample, judgement, label, power)
            self._changed(tenant, pair)
            if judgement == "right":
                self._right[tenant, *names, answer] = None
                if len(self._right) > KNOWN:
                    del self._right[next(iter(self._right))]
                self._paced.ask(tenant, functools.partial(self._keep, tenant, always=False))
            else:
                await self._keep(tenant)

    async def report_wrong(self, tenant: str, query: bytes, digest: bytes) -> bool:
        """An operator or caller says that the pair is wrong: never matched again, and a failed audit. False if known.

        The pair must be one that was served; `gateway.keys` signs those.
        """
        pair = half_pair(query, digest)
        if pair in self._of(tenant).audit.quarantined:
            return False
        unknown = JudgedPair(*pair, 0.0, "wrong", "", b"", 0)
        known = next((one for one in self.judged(tenant) if one[:2] == pair), unknown)
        await self._quarantine(tenant, known._replace(judgement="wrong", at=int(self._wall())), None)
        return True

    async def _quarantine(self, tenant: str, pair: JudgedPair, sample: Sample | None) -> None:
        names = pair.asked, pair.recalled
        if self._of(tenant).audit.quarantine(names, sample, pair.label if sample is not None else ""):
            self._changed(tenant, pair)
            await self._keep(tenant)
            if self._journal is not None:
                await self._journal.tell_quarantine(tenant, names)

    def _changed(self, tenant: str, pair: JudgedPair) -> None:
        """Says what follows from the judgement of a pair."""
        book = self._of(tenant)
        book.judged = kept([*book.judged, pair])
        if book.pooled:
            self._pool()
        self._say(tenant, book)
        book.untold = kept([*book.untold, pair])

    async def _keep(self, tenant: str, always: bool = True) -> None:
        """Puts what this gateway found into the journal; unless `always` if there is anything new."""
        book = self._of(tenant)
        if self._journal is not None and self._resumed and (always or book.untold):
            untold, book.untold = book.untold, []
            await self._journal.keep_tally(tenant, book.tally(book.judged), book.tally(untold))

    def close(self) -> None:
        """Has all that is still to be kept kept now."""
        self._paced.end()

    def _say(self, tenant: str, book: _Book) -> None:
        serving = book.audit.served_from() < SETS
        before, alarmed = book.serving, book.audit.alarms > book.alarms
        book.serving, book.alarms = serving, book.audit.alarms
        if serving == before and not (serving and alarmed):
            return
        what = "stopped" if not serving else "narrowed" if before else "begun"
        facts = {
            "tenant": tenant,
            "bound": round(book.audit.bound(), 5),
            "limit": book.policy.wrong_hit_limit,
            "from_similarity": least_similarity(book.audit.served_from()),
        }
        log.warning("fuzzy answers have %s", what, extra={"fields": facts})

    # --------------------------------------------------------------------------------------- others, and sharing

    def hear_quarantine(self, tenant: str, pair: Pair) -> None:
        """Another gateway quarantined the pair; it has counted and kept it."""
        self._of(tenant).audit.shun(pair)

    def hear_tally(self, tenant: str, gateway: str, data: bytes) -> None:
        """Another gateway told what it has found so far. What cannot be read is of a newer one, and left out."""
        try:
            tally, pairs = tally_from_bytes(data)
        except ValueError:
            return
        book = self._of(tenant)
        for pair in pairs:
            book.audit.shun(pair)
        book.audit.others[gateway] = tally
        book.judged_by_others[gateway] = kept([*book.judged_by_others.get(gateway, ()), *pairs_of(data)])
        book.audit.changed()
        if book.pooled:
            self._pool()
        self._say(tenant, book)

    async def read_journal(self) -> None:
        """Takes in all that was kept: by other gateways, and by this one before it was started. And keeps what is not:
        what was found while the journal could not be written, or before it lost what it had."""
        if self._journal is None:
            return
        quarantined = await self._journal.quarantined()
        for tenant, pair in quarantined or ():
            self._of(tenant).audit.shun(pair)
        if quarantined is not None:
            ours = {(tenant, pair) for tenant, book in self._books.items() for pair in book.audit.quarantined}
            for tenant, pair in ours.difference(quarantined):
                await self._journal.tell_quarantine(tenant, pair)
        tallies = await self._journal.tallies()
        if tallies is None:
            return
        own = {tenant: data for tenant, gateway, data in tallies if not gateway}
        for tenant, gateway, data in tallies:
            if gateway:
                self.hear_tally(tenant, gateway, data)
            elif not self._resumed:
                with contextlib.suppress(ValueError):
                    book = self._of(tenant)
                    book.audit.resume(tally_from_bytes(data)[0])
                    book.judged = kept([*pairs_of(data), *book.judged])
                    self._say(tenant, book)
        self._resumed = True
        self._pool()
        for tenant, book in list(self._books.items()):
            if book.audit.own.totals and book.tally(book.judged) != own.get(tenant):
                await self._keep(tenant)

    def _pool(self) -> None:
        """Gives every tenant that shares its audits what the others of them know."""
        pooled = [book for book in self._books.values() if book.pooled]
        if len(pooled) < 2:
            return
        known = [book.audit.known_before_alarms() for book in pooled]
        total = np.sum(known, axis=0)
        for book, own in zip(pooled, known, strict=True):
            book.audit.pool = total - own
            book.audit.changed()

    # --------------------------------------------------------------------------------------------------- telling

    def count(self, tenant: str) -> AuditCount:
        """What audits have found for the tenant."""
        book = self._books.get(tenant) or self._new(tenant)  # asking is no reason to keep books
        audit, policy = book.audit, book.policy
        judged = audit.totals()
        never = policy.fuzzy == "never" or policy.shadow
        return AuditCount(
            audited=sum(judged.values()),
            wrong=judged["wrong"],
            undecided=judged["undecided"] + judged["unjudged"],
            wrong_upper_bound=audit.bound(),
            limit=policy.wrong_hit_limit,
            serving=not never and audit.served_from() < SETS,
            doubted_upper_bound=audit.bound(doubted=True),
            from_similarity=least_similarity(audit.served_from()),
            alarms=max(audit.eras()),
            shadow=policy.shadow,
            would_serve=book.would_serve,
            withheld=book.withheld,
        )

    def total(self) -> AuditCount:
        """All tenants' counts together, with the worst bounds of recordings recalled; for metrics."""
        books = {tenant: self.count(tenant) for tenant in self._books}
        counts = books.values()
        recalled = [count for tenant, count in books.items() if not is_near(tenant) and not is_respoken(tenant)]
        return AuditCount(
            audited=sum(count.audited for count in counts),
            wrong=sum(count.wrong for count in counts),
            undecided=sum(count.undecided for count in counts),
            wrong_upper_bound=max((count.wrong_upper_bound for count in recalled), default=1.0),
            limit=min((count.limit for count in recalled), default=0.0),
            serving=any(count.serving for count in recalled),
            doubted_upper_bound=max((count.doubted_upper_bound for count in recalled), default=1.0),
            from_similarity=max((count.from_similarity for count in recalled), default=0.0),
            alarms=sum(count.alarms for count in counts),
            shadow=any(count.shadow for count in recalled),
            would_serve=sum(count.would_serve for count in recalled),
            withheld=sum(count.withheld for count in recalled),
        )

    def by_language(self, tenants: Iterable[str] | None = None) -> list[LanguageAudits]:
        """What audits have found by the language that requests named; of all tenants, or of some."""
        books = self._books.values() if tenants is None else map(self._books.get, tenants)
        sums = _by_label(book for book in books if book is not None and book.recalled)
        return [LanguageAudits(label, *_judged(row)) for label, row in sums.items()]

    def by_voice(self, tenant: str) -> list[VoiceAudits]:
        """What audits have found of a tenant's voices and moods by likeness, by the voice that answered."""
        book = self._books.get(near_of(tenant))
        return [VoiceAudits(label, *_judged(row)) for label, row in _by_label([book] if book else ()).items()]

    def judged(self, tenant: str) -> list[JudgedPair]:
        """Pairs of one book that any gateway judged, the worst first; as `gateway.fingerprint.judged` says, some."""
        book = self._books.get(tenant)
        return kept(chain(book.judged, *book.judged_by_others.values())) if book else []


def _by_label(books: Iterable[_Book]) -> dict[str, list[int]]:
    """Audits by label and judgement; those without a label are left out."""
    sums: dict[str, list[int]] = {}
    for book in books:
        for label, row in book.audit.totals_by_label().items():
            if label:
                sums[label] = [a + b for a, b in zip(sums.get(label, [0] * len(row)), row, strict=True)]
    return dict(sorted(sums.items()))


def _judged(row: Sequence[int]) -> tuple[int, int, int, float]:
    """How many were judged, wrong, undecided, and the upper bound."""
    right, wrong, undecided, unjudged, _ = row
    bad = wrong + unjudged
    return sum(row), wrong, undecided + unjudged, upper_bound(bad, right + bad)


def least_similarity(band: int) -> float:
    """What a hit must be as alike as to be served, where serving begins with `band`; above 1 where none is."""
    return 0.0 if band == 0 else EDGES[band - 1] if band < SETS else 1.01


def half_pair(query: bytes, digest: bytes) -> Pair:
    """A pair by its half digests, which is what an entry_id carries."""
    return query[:16], digest[:16]

"""Why a recording was, or was not, answered from an earlier one: all that the decision rests on, for a person to see.

What is told is what the path would decide now, by the same index, verifier, audits and tiers. Nothing is stored,
enrolled, counted as a hit or audited, and nothing of another tenant is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

import numpy as np

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.read_through import ReadThrough
from gateway import audio
from gateway.call import Call
from gateway.errors import Overloaded
from gateway.fingerprint.bits import MAX_S, MIN_POWER, Fingerprint
from gateway.fingerprint.index import Explained, RecallIndex
from gateway.fingerprint.listen import listen
from gateway.fingerprint.verify import Verdict
from gateway.path import RequestPath
from gateway.recall import Recall
from gateway.stats import AuditCount
from gateway.tasks import RECOGNIZE
from gateway.wire.messages import transcript_of
from gateway.wire.values import Decoded
from models.utterance import RECOGNIZER_RATE, Samples

AT_ONCE: Final = 1
WAITING: Final = 8
"""Explanations at work, and those that may wait for that: they are for people, and lookups share the cores."""


class Outcome(IntEnum):
    """The numbers of ExplainRecallResponse.Outcome."""

    EXACT = 1
    ANSWERED = 2
    WITHHELD = 3
    FORGOTTEN = 4
    NOT_FOUND = 5
    NOT_COMPARED = 6
    NOT_READY = 7


class Made(IntEnum):
    """Whether there is a fingerprint: the numbers of ExplainRecallResponse.Fingerprint."""

    MADE = 1
    TOO_SHORT = 2
    TOO_LONG = 3
    SILENT = 4


class Serving(IntEnum):
    """Whether fuzzy answers are served: the numbers of ExplainRecallResponse.Serving."""

    SERVED = 1
    NOT_ASKED = 2
    NEVER = 3
    SHADOW = 4
    HELD_BACK = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recording heard before, beside the one asked about."""

    entry_id: str
    pair_id: str
    """Only of the one that answers, or would."""
    itself: bool
    quarantined: bool
    accepted: bool
    reason: str
    verdict: Verdict
    words: str | None
    """None where its answer is not stored any more."""

    @property
    def against(self) -> Samples:
        """float32 [frames]: log-odds by which each frame speaks against it beyond what is allowed; the sum of these
        odds is that of the score's negative, so that a frame from 0 on refuses by itself."""
        against = self.verdict.against
        if not len(against):
            return against
        top = float(against.max())
        total = top + float(np.log(np.exp(against - top).sum()))
        return np.asarray(against - np.float32(total + self.verdict.score), np.float32)


@dataclass(frozen=True, slots=True)
class Explanation:
    outcome: Outcome
    made: Made
    serving: Serving
    audits: AuditCount
    recordings: int
    """Of the tenant, that could be recalled."""
    seconds: float
    query: Fingerprint | None
    candidates: list[Candidate] = field(default_factory=list)
    """The one that answers, or would, first; then the nearest."""


class Explainer:
    """Asks the parts that answer requests, and changes none of them."""

    def __init__(self, path: RequestPath, recall: Recall, cache: ReadThrough) -> None:
        self._path, self._recall, self._cache = path, recall, cache
        self._room = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def explain(self, tenant: str, decoded: Decoded, input_digest: bytes, bytes_in: int) -> Explanation:
        """`decoded`: a recognition, as the path decodes it. Raises `Overloaded`, and `BadField` as the path does."""
        call = self._path.prepare(RECOGNIZE, tenant, decoded, self._path.now(), bytes_in, input_digest)
        async with self._turn():
            query, made = await self._path.in_thread(_listen, decoded.canonical)
            told = Explanation(
                outcome=Outcome.NOT_COMPARED,
                made=made,
                serving=_serving(call, self._recall.audits.count(tenant)),
                audits=self._recall.audits.count(tenant),
                recordings=len(self._recall.index_of(tenant)),
                seconds=decoded.input_seconds,
                query=query,
            )
            if query is not None:
                told = await self._compared(call, told, query)
        if await self._peek(call, call.key) is not None:
            return replace(told, outcome=Outcome.EXACT)
        return told

    async def _compared(self, call: Call, told: Explanation, query: Fingerprint) -> Explanation:
        index, shunned = self._recall.index_of(call.tenant), self._recall.audits.shunned(call.tenant)
        least = max(call.decoded.control.min_similarity, call.policy.min_similarity)
        found, explained = await self._path.in_thread(_look, index, query, call.input_digest, least, shunned)
        candidates = []
        for one in explained:
            key = call.keys.cache_key(call.fields, one.id)
            entry = await self._peek(call, key)
            apart = shunned(call.input_digest, one.id)
            accepted, reason = _standing(one, found, least, apart, call.input_digest)
            candidates.append(
                Candidate(
                    entry_id="e" + key.digest.hex(),
                    pair_id=call.keys.pair_id(call.input_digest, one.id) if one.id == found else "",
                    itself=one.id == call.input_digest,
                    quarantined=apart,
                    accepted=accepted,
                    reason=reason,
                    verdict=one.verdict,
                    words=None if entry is None else transcript_of(entry.frames[0]),
                )
            )
        return replace(told, outcome=self._outcome(told, candidates), candidates=candidates)

    def _outcome(self, told: Explanation, candidates: list[Candidate]) -> Outcome:
        if not self._recall.ready.is_set():
            return Outcome.NOT_READY
        if not candidates or not candidates[0].pair_id:
            return Outcome.NOT_FOUND
        if candidates[0].words is None:
            return Outcome.FORGOTTEN
        similar = candidates[0].verdict.similarity >= told.audits.from_similarity
        return Outcome.ANSWERED if told.serving is Serving.SERVED and similar else Outcome.WITHHELD

    async def _peek(self, call: Call, key: CacheKey) -> Entry | None:
        found = await self._cache.peek(key)
        max_age = call.decoded.control.max_age_s
        if found is None or (max_age is not None and found.age_s > max_age):
            return None
        return found.entry

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise Overloaded(1.0, "too many explanations are asked for")
        self._waiting += 1
        try:
            async with self._room:
                yield
        finally:
            self._waiting -= 1


def _listen(pcm: bytes) -> tuple[Fingerprint | None, Made]:
    samples = audio.waveform(pcm).samples
    query = listen(samples)
    if query is not None:
        return query, Made.MADE
    if len(samples) > MAX_S * RECOGNIZER_RATE:
        return None, Made.TOO_LONG
    power = float(np.dot(samples, samples)) / max(1, len(samples))
    return None, Made.SILENT if power < MIN_POWER else Made.TOO_SHORT


def _look(
    index: RecallIndex, query: Fingerprint, own: bytes, least: float, shunned: Callable[[bytes, bytes], bool]
) -> tuple[bytes | None, list[Explained]]:
    """What recall would find, and every candidate: that one first, then the nearest."""
    found = index.lookup(
        query, min_similarity=least or None, accept=lambda digest: digest != own and not shunned(own, digest)
    )
    id = None if found is None else found.id
    ranked = sorted(index.explain(query), key=lambda one: (one.id != id, one.verdict.distance))
    return id, ranked


def _standing(one: Explained, found: bytes | None, least: float, shunned: bool, own: bytes) -> tuple[bool, str]:
    """Whether it is accepted, and why not, where the verifier alone does not say it."""
    verdict = one.verdict
    if not verdict.accepted or one.id == found:
        return verdict.accepted, verdict.reason
    if verdict.similarity < least:
        return False, "min_similarity"
    if found is None and not shunned and one.id != own:  # or it would have been found
        return False, "not among the likeliest"
    return True, verdict.reason


def _serving(call: Call, audits: AuditCount) -> Serving:
    if call.policy.fuzzy == "never":
        return Serving.NEVER
    if call.policy.shadow:
        return Serving.SHADOW
    if not call.policy.allows_fuzzy(call.decoded.control.match):
        return Serving.NOT_ASKED
    return Serving.SERVED if audits.serving else Serving.HELD_BACK

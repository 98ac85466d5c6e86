"""The index of one tenant: fingerprints by id, candidates for a query, and which of them is the same recording.

Few recordings are scanned whole. Many are found by keys: a Bloom filter over all keys turns strangers away, a table
tells who has the keys that are left, and `rank` which of them are likely. Either way `verify` has the last word. The
index is a hint and holds no answers: ids mean something only to its owner. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.flat import FlatTable
from gateway.fingerprint.keys import PROBES, SHAPE, USUAL, Ints, Shape, probes, stored_keys
from gateway.fingerprint.rank import Places, ranked
from gateway.fingerprint.store import Joined, Store, Tags
from gateway.fingerprint.table import KeyTable
from gateway.fingerprint.verify import Verdict, verify

FLAT_FRAMES: Final = 400_000
"""Stored frames (1.8 h of sound) up to which everything is scanned: keys lose most of what was heard in a room."""
CANDIDATES: Final = 4
"""Looked at closely for a query."""
EXPLAINED: Final = 12
"""Told by `explain`."""
PLACES: Final = 1024
"""Places that a query's keys may point at and that are looked at: those of the rarest keys. By a million recordings all
of them would hold the right one of one query in 200 more."""
CLEARLY: Final = 0.1
"""A candidate with so much fewer votes than the first is not looked at closely."""
SWEEP: Final = 0.2
"""Share of removed recordings at which the key table begins to leave them behind."""
SMALL: Final = 5_000
"""Recordings up to which an index that has lost more than half of them is made anew."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The recording heard before."""

    id: bytes
    similarity: float
    """0..1; an identical copy has 1."""
    offset_s: float
    """How much later a sound comes in the query than in the stored recording: add it to stored word times."""
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Candidate:
    id: bytes
    fingerprint: Fingerprint
    votes: float
    """By keys the share of the evidence there could be, of a part of it; by a scan 1 minus the distance to a sketch."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a candidate matched or did not."""

    id: bytes
    votes: float
    verdict: Verdict


class RecallIndex:
    def __init__(
        self, capacity_hint: int = 0, *, flat_frames: int = FLAT_FRAMES, shape: Shape = SHAPE, budget: int = PROBES
    ) -> None:
        """`capacity_hint`: recordings to make room for at once. `shape` and `budget` are of keys; see `keys`."""
        self.capacity_hint = capacity_hint
        self.rebuilding = False
        """Set by the owner while entries are still being read back: the Bloom filter then says maybe to everything."""
        self.turned_away = 0
        """Lookups that ended at the Bloom filter."""
        self.shape = shape
        self.budget = budget
        self._flat_frames = flat_frames
        self._lock = threading.RLock()
        self._start()

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, id: bytes) -> bool:
        return self._store.slot(id) is not None

    def add(self, id: bytes, fp: Fingerprint, tags: Tags = ()) -> None:
        """Enrol; an `id` that is known is replaced."""
        self.add_many([(id, fp, tags)])

    def add_many(self, entries: Sequence[tuple[bytes, Fingerprint, Tags]]) -> None:
        """Enrol many, a few hundred at a time for speed; of two with one id the last counts."""
        with self._lock:
            entries = list({entry[0]: entry for entry in entries}.values())
            for id, _, _ in entries:
                self.remove(id)
            joined = Joined.of([fp for _, fp, _ in entries])
            slots = self._store.add_many(entries, joined)
            self._place([fp for _, fp, _ in entries], joined, slots)

    def remove(self, id: bytes) -> bool:
        with self._lock:
            slot = self._store.slot(id)
            if slot is None:
                return False
            self._forget([slot])
            return True

    def remove_tag(self, tag: str) -> int:
        """Forget everything of `tag` (a voice, a speaker, an engine); how many that was."""
        with self._lock:
            slots = self._store.tagged(tag)
            self._forget(slots)
            return len(slots)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._start()

    def candidates(self, fp: Fingerprint, limit: int = CANDIDATES, hopeless: bool = False) -> list[Candidate]:
        """Who might be the same recording, likeliest first; by keys `hopeless` ones only if asked for."""
        with self._lock:
            ranked = self._scanned(fp, limit) if self._flat is not None else self._found(fp, limit, hopeless)
            return [
                Candidate(id, self._store.fingerprint(slot), votes)
                for slot, votes in ranked
                if (id := self._store.ids[slot]) is not None
            ]

    def lookup(
        self,
        fp: Fingerprint,
        *,
        min_similarity: float | None = None,
        accept: Callable[[bytes], bool] | None = None,
    ) -> Recalled | None:
        """The nearest recording that passes `verify` and that `accept` (say: not quarantined) lets pass, or None."""
        return best_of(fp, self.candidates(fp), min_similarity=min_similarity, accept=accept)

    def explain(self, fp: Fingerprint, limit: int = EXPLAINED) -> list[Explained]:
        """Every candidate with all its distances, nearest first."""
        found = [Explained(c.id, c.votes, verify(fp, c.fingerprint)) for c in self.candidates(fp, limit, hopeless=True)]
        return sorted(found, key=lambda one: one.verdict.distance)

    @property
    def frames(self) -> int:
        """Frames of 16 ms that are stored."""
        return self._store.frames

    def entry(self, id: bytes) -> tuple[bytes, Fingerprint, Tags] | None:
        """What is stored under `id`, copied."""
        with self._lock:
            slot = self._store.slot(id)
            return None if slot is None else (id, self._store.fingerprint(slot), self._store.tags(slot))

    def entries(self) -> list[tuple[bytes, Fingerprint, Tags]]:
        """All that is stored, copied."""
        with self._lock:
            return self._store.entries()

    def turns_away(self, fp: Fingerprint) -> bool:
        """Whether a lookup would end at the Bloom filter."""
        with self._lock:
            return self._table is not None and not self._table.has(probes(fp, self.budget, self.shape)[0]).any()

    @property
    def memory(self) -> int:
        """Bytes of fingerprints and tables, without Python's own for ids and tags."""
        return sum(part.memory for part in (self._store, self._table, self._flat) if part is not None)

    def _start(self) -> None:
        self._store = Store()
        self._flat: FlatTable | None = FlatTable() if self._flat_frames else None
        self._table: KeyTable | None = None if self._flat_frames else KeyTable(self.capacity_hint * USUAL)
        self._placed = 0
        """Slots whose keys are in the table, while everything is scanned."""
        self._leaving: list[int] = []
        """Slots that nothing will point at when the table's walk is through."""

    def _place(self, fps: Sequence[Fingerprint], joined: Joined, slots: Ints) -> None:
        if self._flat is None:
            self._place_keys(joined, slots)
            return
        for slot, fp in zip(slots.tolist(), fps, strict=True):
            self._flat.add(slot, fp.bits)
        # The table is made ready in the second half of the scan's time, so that the change costs nobody a wait.
        if self._flat.frames > self._flat_frames / 2:
            if self._table is None:
                self._table = KeyTable(self.capacity_hint * USUAL)
            over = self._flat.frames > self._flat_frames
            end = self._store.slots if over else min(self._store.slots, self._placed + 3 * len(fps))
            alive = [slot for slot in range(self._placed, end) if self._store.ids[slot] is not None]
            self._place_keys(Joined.of([self._store.fingerprint(slot) for slot in alive]), np.array(alive, np.int64))
            self._placed = end
            if over:
                self._flat = None

    def _place_keys(self, joined: Joined, slots: Ints) -> None:
        assert self._table is not None
        if not len(slots):
            return
        hashes, which, frames = stored_keys(joined.bits, joined.mask, joined.level > 0, joined.lengths, self.shape)
        walks, walking = self._table.walks, self._table.walking
        self._table.add(hashes, slots[which], frames, self._store.some_alive)
        if self._table.walks > walks and walking:
            self._store.reuse(self._leaving)
            self._leaving = []
        if self._table.walking and not walking and self._flat is None:
            self._leaving = self._store.retired()

    def _forget(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._store.remove(slot)
        alive = len(self._store)
        if self._store.slots > 16 and self._store.slots > 2 * alive and alive <= SMALL:
            entries = self._store.entries()
            self._start()
            self.add_many(entries)
        elif self._flat is None and self._store.removed > max(64, SWEEP * alive):
            assert self._table is not None
            if not self._table.walking:
                self._table.start_walk()
                self._leaving = self._store.retired()

    def _scanned(self, fp: Fingerprint, limit: int) -> list[tuple[int, float]]:
        assert self._flat is not None
        dead = self._store.slots - len(self._store)
        slots, distances = self._flat.nearest(fp, limit + dead)
        alive = self._store.alive.array
        return [(int(s), 1.0 - float(d)) for s, d in zip(slots, distances, strict=True) if alive[s]][:limit]

    def _found(self, fp: Fingerprint, limit: int, hopeless: bool) -> list[tuple[int, float]]:
        assert self._table is not None
        hashes, at = probes(fp, self.budget, self.shape)
        if not self.rebuilding:
            known = self._table.has(hashes)
            if not known.any():
                self.turned_away += 1
                return []
            hashes, at = hashes[known], at[known]
        which, slots, frames = self._table.find(hashes)
        alive = self._store.some_alive
        if alive is not None:
            kept = alive[slots]
            which, slots, frames = which[kept], slots[kept], frames[kept]
        if len(which) > PLACES:
            # What few others have first: a key that many share says little of each, and costs a comparison for each.
            shared = np.bincount(which)[which].astype(np.uint8)
            rare = np.argsort(shared, kind="stable")[:PLACES]
            which, slots, frames = which[rare], slots[rare], frames[rare]
        return ranked(self._store, fp, Places(slots, frames, at[which]).once(), limit, hopeless)


def best_of(
    fp: Fingerprint,
    candidates: Sequence[Candidate],
    *,
    min_similarity: float | None = None,
    accept: Callable[[bytes], bool] | None = None,
) -> Recalled | None:
    """The one of `candidates`, likeliest first, that `lookup` would give."""
    best: Recalled | None = None
    for candidate in candidates:
        if candidate.votes < candidates[0].votes - CLEARLY:
            break
        verdict = verify(fp, candidate.fingerprint, min_similarity)
        if not verdict.accepted or (best is not None and verdict.similarity <= best.similarity):
            continue
        if accept is None or accept(candidate.id):
            best = Recalled(candidate.id, verdict.similarity, verdict.offset_s, verdict)
    return best

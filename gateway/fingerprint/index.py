"""The index of one tenant: fingerprints by id, candidates for a query, and which of them is the same recording.

Few recordings are scanned whole. Many are found by band keys: a Bloom filter over all keys turns most strangers away,
sorted tables give who shares keys, votes for one offset rank them. Either way `verify` has the last word. The index is
a hint and holds no answers: ids mean something only to its owner. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cache_tiers.bloom import RotatingBloom
from gateway.fingerprint.bands import BAND_SHIFTS, BandTable, band_keys, probe_keys
from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.flat import FlatTable
from gateway.fingerprint.verify import Verdict, verify

FLAT_FRAMES: Final = 200_000
"""Stored frames (53 min of sound) up to which everything is scanned."""
CANDIDATES: Final = 4
"""Looked at closely for a query: whom verify accepts was, but for 1 in 200, the likeliest or the next."""
EXPLAINED: Final = 12
"""Told by `explain`."""
BLOOM_ERROR: Final = 1e-4
KEYS_AN_UTTERANCE: Final = 64
"""What `capacity_hint` is multiplied by to size the Bloom filter; it grows when that was too little."""


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
    """Band keys shared at one offset, or 1 minus the distance to the sketch where everything is scanned."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a candidate matched or did not."""

    id: bytes
    votes: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Entry:
    slot: int
    packed: bytes
    tags: tuple[str, ...]


class RecallIndex:
    def __init__(self, capacity_hint: int = 10_000, *, flat_frames: int = FLAT_FRAMES) -> None:
        self.capacity_hint = max(1, capacity_hint)
        self.rebuilding = False
        """Set by the owner while entries are still being read back: the Bloom filter then says maybe to everything."""
        self.turned_away = 0
        """Lookups that ended at the Bloom filter."""
        self._flat_frames = flat_frames
        self._entries: dict[bytes, _Entry] = {}
        self._tagged: dict[str, set[bytes]] = {}
        self._lock = threading.RLock()
        self._start_tables()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: bytes) -> bool:
        return id in self._entries

    def add(self, id: bytes, fp: Fingerprint, tags: tuple[str, ...] = ()) -> None:
        """Enrol; an `id` that is known is replaced."""
        with self._lock:
            self.remove(id)
            entry = _Entry(len(self._ids), fp.to_bytes(), tags)
            self._entries[id] = entry
            for tag in tags:
                self._tagged.setdefault(tag, set()).add(id)
            self._place(id, fp)
            if self._flat is not None and self._flat.frames > self._flat_frames:
                self._rebuild_tables()

    def remove(self, id: bytes) -> bool:
        with self._lock:
            entry = self._entries.pop(id, None)
            if entry is None:
                return False
            self._ids[entry.slot] = None
            for tag in entry.tags:
                self._tagged[tag].discard(id)
                if not self._tagged[tag]:
                    del self._tagged[tag]
            if len(self._ids) > 64 and len(self._ids) > 2 * len(self._entries):
                self._rebuild_tables()
            return True

    def remove_tag(self, tag: str) -> int:
        """Forget everything of `tag` (a voice, a speaker, an engine); how many that was."""
        with self._lock:
            return sum(self.remove(id) for id in list(self._tagged.get(tag, ())))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._tagged.clear()
            self._start_tables()

    def candidates(self, fp: Fingerprint, limit: int = CANDIDATES) -> list[Candidate]:
        """Who might be the same recording, likeliest first."""
        with self._lock:
            ranked = self._scanned(fp, limit) if self._flat is not None else self._voted(fp, limit)
            return [
                Candidate(id, Fingerprint.from_bytes(self._entries[id].packed), votes)
                for slot, votes in ranked
                if (id := self._ids[slot]) is not None
            ]

    def lookup(
        self,
        fp: Fingerprint,
        *,
        min_similarity: float | None = None,
        accept: Callable[[bytes], bool] | None = None,
    ) -> Recalled | None:
        """The nearest recording that passes `verify` and that `accept` (say: not quarantined) lets pass, or None."""
        best: Recalled | None = None
        for candidate in self.candidates(fp):
            verdict = verify(fp, candidate.fingerprint, min_similarity)
            if not verdict.accepted or (best is not None and verdict.similarity <= best.similarity):
                continue
            if accept is None or accept(candidate.id):
                best = Recalled(candidate.id, verdict.similarity, verdict.offset_s, verdict)
        return best

    def explain(self, fp: Fingerprint, limit: int = EXPLAINED) -> list[Explained]:
        """Every candidate with all its distances, nearest first."""
        found = [Explained(c.id, c.votes, verify(fp, c.fingerprint)) for c in self.candidates(fp, limit)]
        return sorted(found, key=lambda one: one.verdict.distance)

    @property
    def memory(self) -> int:
        """Bytes of fingerprints and tables, without Python's own for ids and dicts."""
        tables = self._flat.memory if self._flat is not None else sum(table.memory for table in self._bands)
        return tables + sum(len(entry.packed) for entry in self._entries.values())

    def _start_tables(self, flat: bool = True) -> None:
        self._ids: list[bytes | None] = []
        self._flat: FlatTable | None = FlatTable() if flat else None
        self._bands = tuple(BandTable() for _ in BAND_SHIFTS)
        self._bloom: RotatingBloom | None = None
        if not flat:
            capacity = KEYS_AN_UTTERANCE * max(self.capacity_hint, len(self._entries))
            self._bloom = RotatingBloom(capacity, BLOOM_ERROR, forgets=False)

    def _rebuild_tables(self) -> None:
        """Leave the dead behind, and change from scanning to band keys when there is too much to scan."""
        entries = list(self._entries.items())
        frames = sum(len(entry.packed) for _, entry in entries) // 8
        self._start_tables(flat=frames <= self._flat_frames)
        for id, entry in entries:
            self._entries[id] = _Entry(len(self._ids), entry.packed, entry.tags)
            self._place(id, Fingerprint.from_bytes(entry.packed))

    def _place(self, id: bytes, fp: Fingerprint) -> None:
        slot = len(self._ids)
        self._ids.append(id)
        if self._flat is not None:
            self._flat.add(slot, fp.bits)
            return
        for number, (shift, table) in enumerate(zip(BAND_SHIFTS, self._bands, strict=True)):
            keys, frames = band_keys(fp.bits, fp.active, shift)
            table.add(keys, slot, frames)
            if self._bloom is not None:
                for item in _bloom_items(number, keys):
                    self._bloom.add(item)

    def _scanned(self, fp: Fingerprint, limit: int) -> list[tuple[int, float]]:
        assert self._flat is not None
        dead = len(self._ids) - len(self._entries)
        slots, distances = self._flat.nearest(fp, limit + dead)
        alive = [(int(s), 1.0 - float(d)) for s, d in zip(slots, distances, strict=True) if self._ids[s] is not None]
        return alive[:limit]

    def _voted(self, fp: Fingerprint, limit: int) -> list[tuple[int, float]]:
        places = []
        for number, (shift, table) in enumerate(zip(BAND_SHIFTS, self._bands, strict=True)):
            keys, at = probe_keys(fp, shift)
            if self._bloom is not None and not self.rebuilding:
                known = np.array([item in self._bloom for item in _bloom_items(number, keys)], dtype=bool)
                keys, at = keys[known], at[known]
            if len(keys):
                which, slots, frames = table.find(keys)
                # Offsets in steps of two frames: two grids and a speed of 1 % must not split a recording's votes.
                places.append((slots << 16) + ((at[which] - frames) // 2 + (1 << 15)))
        if not places:
            self.turned_away += 1
            return []
        place, votes = np.unique(np.concatenate(places), return_counts=True)
        best: dict[int, float] = {}
        for index in np.argsort(-votes, kind="stable"):
            slot = int(place[index] >> 16)
            if self._ids[slot] is not None:
                best.setdefault(slot, float(votes[index]))
                if len(best) >= limit:
                    break
        return list(best.items())


def _bloom_items(band: int, keys: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> list[bytes]:
    prefix = bytes([band])
    packed = keys.astype("<u4").tobytes()
    return [prefix + packed[i : i + 4] for i in range(0, len(packed), 4)]

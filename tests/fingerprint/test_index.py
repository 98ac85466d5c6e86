"""Candidates and lookups, scanned whole and by band keys: the same answers, deletable by id and by tag."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.fingerprint.bands import COMMON, BandTable, band_keys
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.index import RecallIndex
from tests.fingerprint.voice import RATE, hiss, say

SEEDS = range(40)


def of(seed: int, snr_db: float | None = None, late_s: float = 0.0) -> Fingerprint:
    samples = np.concatenate([np.zeros(round(late_s * RATE), np.float32), say(seed)])
    found = fingerprint(samples if snr_db is None else hiss(samples, snr_db, seed))
    assert found is not None
    return found


def name(seed: int) -> bytes:
    return seed.to_bytes(16, "big")


@pytest.fixture(params=["flat", "bands"])
def index(request: pytest.FixtureRequest) -> RecallIndex:
    """Forty utterances, scanned whole or, with no room for that, found by band keys."""
    made = RecallIndex(100, flat_frames=10**6 if request.param == "flat" else 0)
    for seed in SEEDS:
        made.add(name(seed), of(seed), (f"speaker {seed % 4}", "all"))
    return made


def test_what_was_heard_is_recalled(index: RecallIndex) -> None:
    for seed in SEEDS:
        found = index.lookup(of(seed, snr_db=8, late_s=0.1))
        assert found is not None
        assert found.id == name(seed)
        assert found.offset_s == pytest.approx(0.1, abs=0.006)
        assert 0 < found.similarity <= 1


def test_what_was_not_heard_is_not(index: RecallIndex) -> None:
    assert all(index.lookup(of(seed)) is None for seed in range(500, 540))


def test_candidates_come_likeliest_first(index: RecallIndex) -> None:
    candidates = index.candidates(of(7, snr_db=8), 5)
    assert candidates[0].id == name(7)
    assert len(candidates) <= 5
    votes = [candidate.votes for candidate in candidates]
    assert votes == sorted(votes, reverse=True)


def test_explain_tells_every_distance(index: RecallIndex) -> None:
    told = index.explain(of(7))
    assert told[0].id == name(7)
    assert told[0].verdict.reason == "same"
    assert all(one.verdict.reason != "same" for one in told[1:])


def test_removed_is_forgotten(index: RecallIndex) -> None:
    assert index.remove(name(3))
    assert not index.remove(name(3))
    assert index.lookup(of(3)) is None
    assert len(index) == len(SEEDS) - 1
    index.add(name(3), of(3))
    assert index.lookup(of(3)) is not None


def test_a_tag_is_forgotten_whole(index: RecallIndex) -> None:
    assert index.remove_tag("speaker 1") == 10
    assert index.remove_tag("speaker 1") == 0
    for seed in SEEDS:
        assert (index.lookup(of(seed)) is None) == (seed % 4 == 1)
    assert index.remove_tag("all") == 30
    assert len(index) == 0
    assert index.lookup(of(0)) is None


def test_tables_shrink_after_many_removals() -> None:
    index = RecallIndex(100)
    one = of(1)
    for number in range(200):
        index.add(number.to_bytes(4, "big"), one)
    full = index.memory
    for number in range(1, 200):
        index.remove(number.to_bytes(4, "big"))
    assert index.memory < full / 8
    assert index.lookup(one) is not None


def test_an_id_enrolled_again_is_replaced(index: RecallIndex) -> None:
    index.add(name(0), of(900))
    assert len(index) == len(SEEDS)
    assert index.lookup(of(0)) is None
    found = index.lookup(of(900))
    assert found is not None
    assert found.id == name(0)


def test_accept_can_veto_and_min_similarity_can_only_tighten(index: RecallIndex) -> None:
    query = of(5, snr_db=8)
    assert index.lookup(query, accept=lambda id: id != name(5)) is None
    assert index.lookup(query, min_similarity=0.0) is not None
    assert index.lookup(query, min_similarity=0.9999) is None


def test_growing_past_the_scan_changes_to_bands_and_keeps_everything() -> None:
    index = RecallIndex(100, flat_frames=1500)
    for seed in SEEDS:
        index.add(name(seed), of(seed), ("all",))
    assert all(index.lookup(of(seed)) is None for seed in range(900, 920))
    assert index.turned_away > 0, "most strangers end at the Bloom filter"
    assert all(index.lookup(of(seed)) is not None for seed in SEEDS)
    index.rebuilding = True
    assert index.lookup(of(3)) is not None


def test_an_empty_index_knows_nothing() -> None:
    for flat_frames in (0, 1000):
        index = RecallIndex(flat_frames=flat_frames)
        assert index.lookup(of(1)) is None
        assert index.explain(of(1)) == []


def test_band_table_equals_a_dict() -> None:
    rng = np.random.default_rng(1)
    table, truth = BandTable(), {}
    for slot in range(300):
        keys = rng.integers(0, 20_000, 50).astype(np.uint32)
        frames = np.arange(50)
        table.add(keys, slot, frames)
        for key, frame in zip(keys.tolist(), frames.tolist(), strict=True):
            truth.setdefault(key, set()).add((slot, frame))
    assert len(table) == 15_000
    probes = np.arange(0, 20_000, 7, dtype=np.uint32)
    which, slots, frames = table.find(probes)
    found: dict[int, set[tuple[int, int]]] = {}
    for at, slot, frame in zip(which.tolist(), slots.tolist(), frames.tolist(), strict=True):
        found.setdefault(int(probes[at]), set()).add((slot, frame))
    assert found == {key: truth[key] for key in probes.tolist() if key in truth}


def test_a_key_that_everybody_has_is_passed_over() -> None:
    table = BandTable()
    for slot in range(2 * COMMON):
        table.add(np.array([7], np.uint32), slot, np.array([0]))
    assert len(table.find(np.array([7], np.uint32))[0]) == 0


def test_band_keys_need_speech_at_both_ends() -> None:
    fp = of(1)
    keys, frames = band_keys(fp.bits, fp.active, 0)
    assert len(keys) == len(frames)
    assert fp.active[frames].all()

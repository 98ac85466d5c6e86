"""Candidates and lookups, scanned whole and by keys: the same answers, deletable by id and by tag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.flat import sketch
from gateway.fingerprint.index import RecallIndex
from gateway.fingerprint.keys import HASH_BITS, Shape, probes, stored_keys
from gateway.fingerprint.listen import listen
from gateway.fingerprint.rank import Places
from gateway.fingerprint.rows import Rows
from gateway.fingerprint.table import PLACES, SAME, KeyTable
from models.utterance import Samples
from tests.fingerprint.voice import RATE, hiss, say

SEEDS = range(40)


def of(seed: int, snr_db: float | None = None, late_s: float = 0.0) -> Fingerprint:
    """As it is stored."""
    found = listen(sound(seed, snr_db, late_s))
    assert found is not None
    return found


def heard(seed: int, snr_db: float | None = None, late_s: float = 0.0) -> Fingerprint:
    """As it is asked for."""
    found = listen(sound(seed, snr_db, late_s))
    assert found is not None
    return found


def sound(seed: int, snr_db: float | None, late_s: float) -> Samples:
    samples = np.concatenate([np.zeros(round(late_s * RATE), np.float32), say(seed)])
    return samples if snr_db is None else hiss(samples, snr_db, seed)


def name(seed: int) -> bytes:
    return seed.to_bytes(16, "big")


@pytest.fixture(params=["flat", "keys"])
def index(request: pytest.FixtureRequest) -> RecallIndex:
    """Forty utterances, scanned whole or, with no room for that, found by keys."""
    made = RecallIndex(100, flat_frames=10**6 if request.param == "flat" else 0)
    for seed in SEEDS:
        made.add(name(seed), of(seed), (f"speaker {seed % 4}", "all"))
    return made


def test_what_was_heard_is_recalled(index: RecallIndex) -> None:
    for seed in SEEDS:
        found = index.lookup(heard(seed, snr_db=8, late_s=0.1))
        assert found is not None
        assert found.id == name(seed)
        assert found.offset_s == pytest.approx(0.1, abs=0.006)
        assert 0 < found.similarity <= 1


def test_what_was_not_heard_is_not(index: RecallIndex) -> None:
    assert all(index.lookup(heard(seed)) is None for seed in range(500, 540))


def test_candidates_come_likeliest_first(index: RecallIndex) -> None:
    candidates = index.candidates(heard(7, snr_db=8), 5)
    assert candidates[0].id == name(7)
    assert len(candidates) <= 5
    votes = [candidate.votes for candidate in candidates]
    assert votes == sorted(votes, reverse=True)


def test_explain_tells_every_distance(index: RecallIndex) -> None:
    told = index.explain(heard(7))
    assert told[0].id == name(7)
    assert told[0].verdict.reason == "same"
    assert all(one.verdict.reason != "same" for one in told[1:])


def test_removed_is_forgotten(index: RecallIndex) -> None:
    assert index.remove(name(3))
    assert not index.remove(name(3))
    assert index.lookup(heard(3)) is None
    assert len(index) == len(SEEDS) - 1
    index.add(name(3), of(3))
    assert index.lookup(heard(3)) is not None


def test_a_tag_is_forgotten_whole(index: RecallIndex) -> None:
    assert index.remove_tag("speaker 1") == 10
    assert index.remove_tag("speaker 1") == 0
    for seed in SEEDS:
        assert (index.lookup(heard(seed)) is None) == (seed % 4 == 1)
    assert index.remove_tag("all") == 30
    assert len(index) == 0
    assert index.lookup(heard(0)) is None


def test_tables_shrink_after_many_removals() -> None:
    index = RecallIndex(100)
    one = of(1)
    for number in range(200):
        index.add(number.to_bytes(4, "big"), one)
    full = index.memory
    for number in range(1, 200):
        index.remove(number.to_bytes(4, "big"))
    assert index.memory < full / 4
    assert index.lookup(heard(1)) is not None


def test_an_id_enrolled_again_is_replaced(index: RecallIndex) -> None:
    index.add(name(0), of(900))
    assert len(index) == len(SEEDS)
    assert index.lookup(heard(0)) is None
    found = index.lookup(heard(900))
    assert found is not None
    assert found.id == name(0)


def test_accept_can_veto_and_min_similarity_can_only_tighten(index: RecallIndex) -> None:
    query = heard(5, snr_db=8)
    assert index.lookup(query, accept=lambda id: id != name(5)) is None
    assert index.lookup(query, min_similarity=0.0) is not None
    assert index.lookup(query, min_similarity=0.9999) is None


def test_growing_past_the_scan_changes_to_keys_and_keeps_everything() -> None:
    index = RecallIndex(100, flat_frames=1500, shape=Shape(16, 3, 6))
    for seed in SEEDS:
        index.add(name(seed), of(seed), ("all",))
    assert all(index.lookup(heard(seed)) is None for seed in range(900, 920))
    assert index.turned_away > 0, "with keys as long as these most strangers end at the Bloom filter"
    assert all(index.lookup(heard(seed)) is not None for seed in SEEDS)
    index.rebuilding = True
    assert index.lookup(heard(3)) is not None


@pytest.mark.parametrize("syllables", [3, 12])
def test_a_sketch_asks_for_what_was_said_where_noise_leaves_most_of_it(syllables: int) -> None:
    clean = say(21, syllables)
    stored, query = fingerprint(clean), listen(hiss(clean, 0, 1))
    assert stored is not None
    assert query is not None
    at, bits, mask = sketch(query)
    assert len(at) == 12
    assert (np.diff(at) > 0).all()
    assert np.bitwise_count(mask).tolist() == [20] * 12
    wrong = np.bitwise_count((bits ^ stored.bits[at]) & mask).sum() / np.bitwise_count(mask).sum()
    own = np.bitwise_count(query.bits ^ stored.bits)[stored.active].mean() / 32
    assert wrong < 0.1 < own


def test_an_empty_index_knows_nothing() -> None:
    for flat_frames in (0, 1000):
        index = RecallIndex(flat_frames=flat_frames)
        assert index.lookup(heard(1)) is None
        assert index.explain(heard(1)) == []


def test_key_table_equals_a_dict_while_it_grows() -> None:
    rng = np.random.default_rng(1)
    table, truth = KeyTable(), set()
    alive = np.ones(3000, np.bool_)
    for slot in range(3000):
        hashes = rng.integers(0, 1 << HASH_BITS, 40).astype(np.uint64)
        table.add(hashes, np.full(40, slot), np.arange(40), alive)
        truth |= {(key, slot, frame) for frame, key in enumerate(hashes.tolist())}
    assert table.walks > 0, "or nothing has grown"
    asked = np.array(sorted({key for key, _, _ in truth}), np.uint64)
    which, slots, frames = table.find(asked)
    found = set(zip(asked[which].tolist(), slots.tolist(), frames.tolist(), strict=True))
    assert found <= truth
    assert len(found) > 0.95 * len(truth), "what finds its row full is left out, and seldom"
    present = np.array([key for key, _, _ in found], np.uint64)
    assert table.has(present).all(), "a Bloom filter never says no to what is there"
    strangers = rng.integers(0, 1 << HASH_BITS, 20_000).astype(np.uint64)
    assert table.has(strangers).mean() < 1e-3


def test_a_walk_leaves_the_removed_behind_in_table_and_filter() -> None:
    rng = np.random.default_rng(2)
    table = KeyTable()
    alive = np.ones(100, np.bool_)
    hashes = rng.integers(0, 1 << HASH_BITS, (100, 40)).astype(np.uint64)
    for slot, keys in enumerate(hashes):
        table.add(keys, np.full(40, slot), np.arange(40), alive)
    alive[:50] = False
    table.start_walk()
    while table.walking:
        table.walk(1000, alive)
    assert table.count == 50 * 40
    assert not table.has(hashes[:50].ravel()).any()
    assert table.has(hashes[50:].ravel()).all()
    assert set(table.find(hashes.ravel())[1].tolist()) == set(range(50, 100))


def test_a_table_of_which_nothing_was_removed_fills_up_alike_and_faster() -> None:
    """`alive` is None then, and rows are filled by counting; otherwise the free places of each are looked for."""
    rng = np.random.default_rng(3)
    tables, alive = (KeyTable(), KeyTable()), np.ones(600, np.bool_)
    # The lowest rows overflow.
    keys = [rng.integers(0, 1 << (HASH_BITS - slot % 3), 300).astype(np.uint64) for slot in range(600)]
    for slot, hashes in enumerate(keys):
        for table, of_all in zip(tables, (alive, None), strict=True):
            table.add(hashes, np.full(300, slot), np.arange(300), of_all)
    assert tables[0].walks > 0
    asked = np.concatenate(keys)
    found = [table.find(asked) for table in tables]
    assert tables[0].count == tables[1].count == len(found[0][0]) < len(asked)
    assert all(np.array_equal(*both) for both in zip(*found, strict=True))
    alive[:] = False
    tables[1].add(asked[:100], np.full(100, 0), np.arange(100), alive)
    again = tables[1].find(asked[:100])
    assert set(zip(again[0].tolist(), again[1].tolist(), again[2].tolist(), strict=True)) >= {
        (n, 0, n) for n in range(100)
    }, "what was removed makes room"


def test_a_key_that_everybody_has_leaves_room_for_others_in_its_row() -> None:
    table = KeyTable()
    alive = np.ones(200, np.bool_)
    for slot in range(100):
        table.add(np.array([7], np.uint64), np.array([slot]), np.array([0]), alive)
    assert len(table.find(np.array([7], np.uint64))[0]) == SAME < PLACES
    for slot in range(100, 100 + PLACES - SAME):
        table.add(np.array([slot], np.uint64), np.array([slot]), np.array([0]), alive)  # hashes this near share the row
        assert table.find(np.array([slot], np.uint64))[1].tolist() == [slot]
    table.add(np.array([199], np.uint64), np.array([199]), np.array([0]), alive)
    assert not len(table.find(np.array([199], np.uint64))[0]), "the row is full"


def test_what_is_removed_and_enrolled_again_and_again_keeps_its_keys() -> None:
    """Places of removed recordings are taken at once, or the keys of what comes back would find their row full."""
    table = KeyTable()
    alive = np.zeros(100, np.bool_)
    key = np.array([7], np.uint64)
    for slot in range(100):
        alive[:] = False
        alive[slot] = True
        table.add(key, np.array([slot]), np.array([0]), alive)
        assert slot in table.find(key)[1]
    assert table.count <= SAME + 1


def test_the_rarest_keys_come_first_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that shares most keys of the query, and more of them than are looked at, does not hide the right one."""
    query = heard(7, snr_db=20)
    crowd = RecallIndex(flat_frames=0)
    rng = np.random.default_rng(4)
    right = of(7)
    for number in range(6):
        half = replace(right, bits=right.bits.copy())
        start = 0 if number % 2 else len(right) // 2
        half.bits[start : start + len(right) // 2] = rng.integers(0, 1 << 32, len(right) // 2, dtype=np.uint32)
        crowd.add(name(100 + number), half)
    crowd.add(name(7), right)
    monkeypatch.setattr("gateway.fingerprint.index.PLACES", 40)
    found = crowd.candidates(query)
    assert found[0].id == name(7)
    assert found[0].votes > 0.5


def test_sharing_keys_alone_makes_no_candidate() -> None:
    index = RecallIndex(flat_frames=0)
    right = of(7)
    other = replace(right, bits=right.bits ^ np.uint32(0xFFFFF800))  # the same keys, and nothing else
    index.add(name(8), other)
    assert index.candidates(heard(7)) == []
    assert index.lookup(heard(7)) is None
    index.add(name(7), right)
    assert [one.id for one in index.candidates(heard(7))] == [name(7)]


def test_of_places_that_say_the_same_one_is_looked_at() -> None:
    slots = np.array([9, 2, 9, 9, (1 << 24) - 2])
    frames = np.array([4, 7, 6, 6, 2047])
    at = np.array([10, 0, 14, 15, 0])
    once = Places(slots, frames, at).once()
    assert list(zip(once.slots.tolist(), once.frames.tolist(), once.at.tolist(), strict=True)) == [
        (2, 7, 0),
        (9, 4, 10),  # and (9, 6, 14) is as late in the query as in the recording
        (9, 6, 15),
        ((1 << 24) - 2, 2047, 0),
    ]


@pytest.mark.parametrize("speed", [0.98, 0.99, 1.01, 1.02])
def test_what_is_played_faster_or_slower_is_found_by_keys(speed: float) -> None:
    index = RecallIndex(flat_frames=0)
    for seed in SEEDS:
        index.add(name(seed), fingerprint(say(seed, 12)) or of(seed))
    for seed in (3, 7):
        samples = say(seed, 12)
        at = np.arange(0, len(samples) - 1, speed)
        query = listen(np.interp(at, np.arange(len(samples)), samples).astype(np.float32))
        assert query is not None
        assert index.candidates(query)[0].id == name(seed)


def test_probes_of_a_clean_copy_are_its_stored_keys() -> None:
    fp = of(1)
    hashes, which, frames = stored_keys(fp.bits, fp.mask, fp.active, np.array([len(fp)]))
    assert not which.any()
    asked, at = probes(fp)
    places = set(zip(asked.tolist(), at.tolist(), strict=True))
    shared = [(key, 2 * frame) in places for key, frame in zip(hashes.tolist(), frames.tolist(), strict=True)]
    assert sum(shared) >= 10


def test_keys_of_many_are_the_keys_of_each() -> None:
    prints = [of(seed) for seed in range(5)]
    lengths = np.array([len(fp) for fp in prints])
    bits, mask, active = (
        np.concatenate(parts) for parts in zip(*((f.bits, f.mask, f.active) for f in prints), strict=True)
    )
    hashes, which, frames = stored_keys(bits, mask, active, lengths)
    for number, fp in enumerate(prints):
        own, _, own_frames = stored_keys(fp.bits, fp.mask, fp.active, np.array([len(fp)]))
        assert np.array_equal(hashes[which == number], own)
        assert np.array_equal(frames[which == number], own_frames)
        assert fp.active[own_frames].all()


def test_flipped_bits_are_asked_for_least_certain_first() -> None:
    fp = of(2)
    odds = fp.odds.copy()
    doubted = int(np.argmin(np.abs(odds[40, :14])))
    odds[40, doubted] *= -0.01  # nearly unknown, and wrong
    hashes, _ = probes(replace(fp, strength=odds), budget=512)
    assert np.isin(probes(fp, budget=40)[0], hashes).mean() > 0.9


def test_a_row_that_is_given_out_again_is_no_one_elses() -> None:
    """Slots and room of what was removed are used again once the table's walk is through, and only then."""
    index = RecallIndex(flat_frames=0)
    codes = [of(seed) for seed in range(8)]
    for number in range(600):
        index.add(number.to_bytes(4, "big"), codes[number % 8], (f"round {number // 100}",))
        if number >= 200:
            index.remove((number - 200).to_bytes(4, "big"))
    assert len(index) == 200
    assert index.remove_tag("round 5") == 100
    for candidate in index.candidates(heard(3), 12):
        number = int.from_bytes(candidate.id, "big")
        assert 400 <= number < 500
        assert np.array_equal(candidate.fingerprint.bits, codes[number % 8].bits)


def test_rows_keep_what_was_written_when_they_grow() -> None:
    rows = Rows(np.uint32, 3, 10)
    rows.array[:10] = np.arange(30).reshape(10, 3)
    held = rows.array[:2]  # a view keeps the old mapping from moving: it is copied then
    rows.reserve(200_000)
    assert len(rows) >= 200_000
    assert np.array_equal(rows.array[:10].ravel(), np.arange(30))
    assert not rows.array[10:].any()
    assert np.array_equal(held.ravel(), np.arange(6))
    del held
    rows.reserve(900_000)
    assert np.array_equal(rows.array[:10].ravel(), np.arange(30))


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    entries = [(name(seed), of(seed), (f"speaker {seed % 4}",)) for seed in range(12)]
    many, single = RecallIndex(flat_frames=0), RecallIndex(flat_frames=0)
    many.add_many([*entries, (name(3), of(900), ("other",))])  # of two with one id the last counts
    for entry in entries:
        single.add(*entry)
    single.add(name(3), of(900), ("other",))
    assert len(many) == len(single) == 12
    assert {(id, tags) for id, _, tags in many.entries()} == {(id, tags) for id, _, tags in single.entries()}
    for seed in (0, 3, 900):
        found = [[c.id for c in index.candidates(heard(seed))] for index in (many, single)]
        assert found[0] == found[1]
    assert many.remove_tag("speaker 3") == 2

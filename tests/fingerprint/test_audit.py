"""The bound on wrong fuzzy answers: right at every look, and the limit that it opens and shuts."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fingerprint.audit import (
    ALPHA,
    EDGES,
    JUDGEMENTS,
    LEAST_SHARE,
    SETS,
    WEIGHTS,
    Audit,
    Judgement,
    Sample,
    Tally,
    band_of,
    log_capital,
    tally_from_bytes,
    upper_bound,
    upper_bound_of,
)

TOP = Sample(SETS - 1, 0)
ALIKE, UNLIKE = 1.0, 0.0


def told(audit: Audit, judgement: Judgement, times: int, sample: Sample = TOP) -> None:
    for _ in range(times):
        audit.record(sample, judgement)


def proved(audit: Audit) -> int:
    """Clean audits of the most alike until all is served."""
    count = 0
    while audit.served_from():
        audit.record(TOP, "right")
        count += 1
        assert count < 5000
    return count


# ------------------------------------------------------------------------------------------------------ the bound


@given(st.integers(0, 30), st.integers(1, 3000))
def test_bound_is_above_the_share_and_moves_the_right_way(wrong: int, right: int) -> None:
    bound = upper_bound(wrong, wrong + right)
    assert wrong / (wrong + right) < bound <= 1
    assert upper_bound(wrong, wrong + right + 1) <= bound + 1e-9
    assert upper_bound(wrong + 1, wrong + right + 1) >= bound - 1e-9


def test_bound_is_not_under_the_fixed_sample_one() -> None:
    """A bound for every moment cannot beat the exact one for a single moment: Clopper-Pearson, 1 - 0.05 ** (1 / n)."""
    for n in (10, 100, 1000, 10_000):
        assert upper_bound(0, n) > 1 - 0.05 ** (1 / n)


@pytest.mark.parametrize("rate", [0.002, 0.005, 0.03])
def test_bound_holds_at_all_times_at_once(rate: float) -> None:
    """Of 400 tenants watched at every audit, at most 5 % (and luck: 1 in 10,000) ever see it fail."""
    rng = np.random.default_rng(7)
    assert _failures(rng.random((400, 2000)) < rate, np.zeros((400, 2000), np.int64), rate) <= 38


@pytest.mark.parametrize("rates", [(0.02, 0.004), (0.001, 0.02)])
def test_bound_holds_when_shares_and_rates_differ_by_similarity(rates: tuple[float, float]) -> None:
    """Half of the hits are less alike, and audited four times as often as the others: the weights make up for it."""
    rng = np.random.default_rng(8)
    unlike = rng.random((400, 8000)) < 0.5
    wrong = rng.random((400, 8000)) < np.where(unlike, rates[0], rates[1])
    audited = rng.random((400, 8000)) < np.where(unlike, 1.0, 0.25)
    assert _failures(wrong, np.where(unlike, 2, 0), sum(rates) / 2, audited) <= 38


def _failures(wrong: np.ndarray, weight: np.ndarray, rate: float, audited: np.ndarray | None = None) -> int:
    """Rows in which the claim of the true rate was ever given up."""
    audited = np.ones_like(wrong) if audited is None else audited
    counts = np.zeros((len(wrong), WEIGHTS, len(JUDGEMENTS)), np.int64)
    row = np.arange(len(wrong))
    failed = np.zeros(len(wrong), bool)
    for step in range(wrong.shape[1]):
        counts[row, weight[:, step], wrong[:, step].astype(int)] += audited[:, step]
        if step % 20 == 0:
            failed |= log_capital(counts, rate) >= -np.log(ALPHA)
    return int(failed.sum())


def test_undecided_audits_are_left_out_or_doubted() -> None:
    counts = np.zeros((WEIGHTS, len(JUDGEMENTS)), np.int64)
    counts[0] = 700, 0, 3, 0, 50
    assert upper_bound_of(counts) == upper_bound(0, 700)
    assert upper_bound_of(counts, doubted=True) == upper_bound(3, 703)
    counts[0] = 700, 0, 0, 3, 0
    assert upper_bound_of(counts) == upper_bound(3, 703), "what nobody could judge counts as wrong"


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 wrong of 2"):
        upper_bound(3, 2)


# -------------------------------------------------------------------------------------------------------- the gate


def test_nothing_known_nothing_served() -> None:
    audit = Audit()
    assert audit.bound() == 1.0
    assert not audit.serves(1.0)
    assert audit.share(0.0) == audit.share(1.0) == 1.0
    assert Audit(proof=False).serves(0.0), "unless no proof is asked"


def test_clean_audits_open_and_a_wrong_one_shuts() -> None:
    audit = Audit()
    assert 750 < proved(audit) < 900
    assert audit.bound() <= audit.limit
    audit.record(TOP, "wrong")
    assert not audit.serves(1.0)
    assert audit.bound() > audit.limit


def test_a_judge_who_finds_half_has_to_find_nothing_for_twice_as_long() -> None:
    audit, rng, count = Audit(), random.Random(5), 0
    while audit.served_from():
        audit.record(Sample(SETS - 1, 0, rng.random()), "right", power=0.5)
        count += 1
    assert count == pytest.approx(2 * proved(Audit()), rel=0.1)
    assert audit.totals()["faint"] == pytest.approx(count / 2, rel=0.1)


def test_what_is_alike_is_served_where_what_is_less_alike_is_wrong() -> None:
    audit, rng = Audit(), random.Random(4)
    for _ in range(6000):
        band = rng.randrange(SETS)
        sample = audit.draw(rng, (0.0, *EDGES)[band])
        if sample is not None:
            audit.record(sample, "wrong" if band == 0 and rng.random() < 0.1 else "right")
    assert not audit.serves(UNLIKE)
    assert audit.serves(EDGES[0])
    assert audit.bound() <= audit.limit
    assert audit.share(UNLIKE) == 1.0, "what is held back is audited, all of it"


def test_an_alarm_voids_what_was_known_though_the_average_is_still_good() -> None:
    audit = Audit()
    told(audit, "right", 20_000)
    assert audit.serves(1.0)
    wrong = 0
    while audit.served_from() < SETS:
        told(audit, "right", 20)
        audit.record(TOP, "wrong")
        wrong += 1
    assert wrong < 8
    assert audit.alarms == 1
    assert audit.totals()["right"] > 20_000, "what is told is not voided"
    assert audit.evidence().sum() == 0
    assert audit.bound() == 1.0


def test_undecided_and_unjudged_audits_raise_no_alarm() -> None:
    audit = Audit(proof=False)
    told(audit, "undecided", 50)
    told(audit, "unjudged", 50)
    assert audit.serves(0.0)
    told(audit, "wrong", 5)
    assert not audit.serves(0.0)


# ---------------------------------------------------------------------------------------------------- the sampling


def test_fewer_are_audited_the_more_were_served_and_more_where_they_are_less_alike() -> None:
    audit = Audit()
    proved(audit)
    shares: list[list[float]] = []
    for _ in range(4):
        shares.append([audit.share(similarity) for similarity in (0.0, *EDGES)])
        for _ in range(3 * len(shares) ** 2 * 400):
            audit.count_served()
    assert shares[0] == [1.0] * SETS
    assert shares[-1] == [4 * LEAST_SHARE, 2 * LEAST_SHARE, 2 * LEAST_SHARE, LEAST_SHARE]
    assert all(later <= before for before, later in itertools.pairwise(shares))
    rng = random.Random(3)
    taken = [audit.draw(rng, 1.0) is not None for _ in range(4000)]
    assert abs(sum(taken) / 4000 - audit.share(1.0)) < 0.02
    samples = [one for seed in range(50) if (one := audit.draw(random.Random(seed), 0.0)) is not None]
    assert {(one.band, one.weight) for one in samples} == {(0, 2)}, (
        "a quarter of the weight: four times as many are audited"
    )


def test_bands() -> None:
    assert [band_of(similarity) for similarity in (0.0, *EDGES, 1.0)] == [0, *range(1, SETS), SETS - 1]


# ------------------------------------------------------------------------------------------------------ quarantine


def test_quarantine_is_for_good_and_counts_once() -> None:
    audit, pair = Audit(), (b"asked", b"recalled")
    told(audit, "right", 1000)
    before = audit.bound()
    assert audit.quarantine(pair)
    assert not audit.quarantine(pair)
    assert audit.totals()["wrong"] == 1
    assert audit.bound() > before
    assert audit.is_quarantined(pair)
    assert not audit.is_quarantined((b"recalled", b"asked"))


def test_a_recording_that_was_wrong_twice_answers_nobody() -> None:
    audit = Audit()
    audit.quarantine((b"one", b"recalled"))
    assert not audit.is_quarantined((b"three", b"recalled"))
    audit.shun((b"two", b"recalled"))
    assert audit.is_quarantined((b"three", b"recalled"))
    assert audit.totals()["wrong"] == 1, "who told of the other has counted it"


# ------------------------------------------------------------------------------------------------------ what is kept


@given(st.lists(st.tuples(st.integers(0, SETS - 1), st.integers(0, 2), st.sampled_from(JUDGEMENTS)), max_size=30))
def test_bytes_come_back(records: list[tuple[int, int, Judgement]]) -> None:
    audit = Audit()
    for band, weight, judgement in records:
        audit.record(Sample(band, weight), judgement, "en-US")
    audit.count_served()
    tally, pairs = tally_from_bytes(audit.to_bytes())
    assert tally.to_json() == audit.own.to_json()
    assert pairs == set()


def test_records_of_the_first_version_are_read() -> None:
    old = {"version": 1, "right": 700, "wrong": 1, "undecided": 2, "quarantined": [["aa", "bb"]]}
    tally, pairs = tally_from_bytes(json.dumps(old).encode())
    assert pairs == {(b"\xaa", b"\xbb")}
    audit = Audit()
    audit.others["before"] = tally
    audit.changed()
    assert audit.totals() == {"right": 700, "wrong": 1, "undecided": 2, "unjudged": 0, "faint": 0}
    assert audit.bound() == upper_bound(1, 701, ALPHA / 2)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        tally_from_bytes(data)


def test_bytes_nested_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match="audit record"):
        tally_from_bytes(b"[" * 100_000)


@pytest.mark.parametrize(
    "change", [{"served": -1}, {"eras": [0]}, {"eras": "0000"}, {"counts": [1]}, {"totals": {"": [1]}}, {"version": 3}]
)
def test_records_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    record = {"version": 2, **Tally().to_json(), **change}
    with pytest.raises(ValueError, match="audit record"):
        tally_from_bytes(json.dumps(record).encode())


def test_tallies_add_up_and_a_later_era_voids_the_others() -> None:
    one, two = Audit(), Audit()
    told(one, "right", 300)
    told(two, "right", 200)
    two.others["one"] = one.own
    two.changed()
    assert two.evidence()[0].sum() == 500
    told(one, "wrong", 10)
    two.changed()
    assert two.eras() == one.eras()
    assert two.evidence()[0].sum() <= 10
    assert two.totals()["right"] == 500


def test_resuming_adds_what_was_found_before_and_after() -> None:
    before, after = Audit(), Audit()
    told(before, "right", 300)
    told(after, "right", 5)
    after.resume(tally_from_bytes(before.to_bytes())[0])
    assert after.evidence()[0].sum() == after.totals()["right"] == 305

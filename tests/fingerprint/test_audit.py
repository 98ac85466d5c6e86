"""The bound on wrong fuzzy answers: right at every look, and the limit that it opens and shuts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fingerprint.audit import LEAST_SHARE, Audit, upper_bound


def test_nothing_known_nothing_allowed() -> None:
    audit = Audit()
    assert audit.bound() == 1.0
    assert not audit.allowed()
    assert audit.should_audit(random.Random(1))


@given(st.integers(0, 30), st.integers(1, 3000))
def test_bound_is_above_the_share_and_moves_the_right_way(wrong: int, right: int) -> None:
    bound = upper_bound(wrong, wrong + right)
    assert wrong / (wrong + right) < bound <= 1
    assert upper_bound(wrong, wrong + right + 1) <= bound + 1e-12
    assert upper_bound(wrong + 1, wrong + right + 1) >= bound - 1e-12


def test_bound_is_not_under_the_fixed_sample_one() -> None:
    """A bound for every moment cannot beat the exact one for a single moment: Clopper-Pearson, 1 - 0.05 ** (1 / n)."""
    for n in (10, 100, 1000, 10_000):
        assert upper_bound(0, n) > 1 - 0.05 ** (1 / n)


@pytest.mark.parametrize("rate", [0.002, 0.005, 0.03])
def test_bound_holds_at_all_times_at_once(rate: float) -> None:
    """Of 400 tenants watched at every audit, at most 5 % (and luck: 1 in 10,000) ever see it fail."""
    rng = np.random.default_rng(7)
    worst_wrong = {}
    for total in range(1, 2001):
        # The bound falls below the rate when wrong answers are few: find for each total the largest count that fails.
        count = worst_wrong.get(total - 1, -1)
        while upper_bound(count + 1, total) < rate:
            count += 1
        worst_wrong[total] = count
    limit = np.array([worst_wrong[total] for total in range(1, 2001)])
    wrong = np.cumsum(rng.random((400, 2000)) < rate, axis=1)
    failed = (wrong <= limit).any(axis=1).sum()
    assert failed <= 38


def test_clean_audits_open_and_wrong_ones_shut() -> None:
    audit = Audit()
    while not audit.allowed(0.005):
        audit.record("right")
    assert 600 < audit.audited < 800
    audit.record("wrong")
    assert not audit.allowed(0.005)
    assert audit.should_audit(random.Random(1)), "while shut, every one is judged"


def test_undecided_counts_against() -> None:
    decided, undecided = Audit(right=700), Audit(right=700, undecided=3)
    assert undecided.bound() > decided.bound()
    assert undecided.bound() == Audit(right=700, wrong=3).bound()


def test_fewer_are_audited_as_more_is_known() -> None:
    shares = [Audit(right=n).share() for n in (0, 49, 200, 2000, 10**6)]
    assert shares[0] == shares[1] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == LEAST_SHARE
    rng = random.Random(3)
    open_ = Audit(right=5000)
    taken = sum(open_.should_audit(rng) for _ in range(4000))
    assert abs(taken / 4000 - open_.share()) < 0.03


def test_quarantine_is_for_good_and_counts_once() -> None:
    audit, pair = Audit(right=1000), (b"asked", b"recalled")
    before = audit.bound()
    assert audit.quarantine(pair)
    assert not audit.quarantine(pair)
    assert audit.wrong == 1
    assert audit.bound() > before
    assert audit.is_quarantined(pair)
    assert not audit.is_quarantined((b"recalled", b"asked"))


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.sets(st.tuples(st.binary(), st.binary())))
def test_bytes_come_back(right: int, wrong: int, undecided: int, pairs: set[tuple[bytes, bytes]]) -> None:
    audit = Audit(right, wrong, undecided, pairs)
    assert Audit.from_bytes(audit.to_bytes()) == audit


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Audit.from_bytes(data)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 wrong of 2"):
        upper_bound(3, 2)
    with pytest.raises(ValueError, match="negative"):
        Audit.from_bytes(b'{"version":1,"right":-1,"wrong":0,"undecided":0,"quarantined":[]}')

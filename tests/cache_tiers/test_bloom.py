"""The filter never says no to what it was told and still holds, and its errors stay within what was asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_tiers.bloom import RotatingBloom

RANDOM = random.Random(7)


def items(count: int) -> list[bytes]:
    return [RANDOM.randbytes(16) for _ in range(count)]


@given(st.lists(st.binary(max_size=40), max_size=60))
@settings(max_examples=50, deadline=None)
def test_whatever_bytes_were_added_are_held(added: list[bytes]) -> None:
    bloom = RotatingBloom(1000)
    for item in added:
        bloom.add(item)
    assert all(item in bloom for item in added)


@pytest.mark.parametrize("error_rate", [1e-2, 1e-3])
@pytest.mark.parametrize("added", [2000, 15_000])
def test_the_error_rate_holds_also_after_growth(error_rate: float, added: int) -> None:
    bloom = RotatingBloom(2000, error_rate, forgets=False)
    for item in items(added):
        bloom.add(item)
    wrong = sum(item in bloom for item in items(20_000))
    assert wrong <= 20_000 * error_rate * 1.5 + 10


def test_a_forgetting_filter_keeps_the_last_capacity_items_and_forgets_older_ones() -> None:
    bloom = RotatingBloom(500, forgets=True)
    added = items(5000)
    for item in added:
        bloom.add(item)
    assert all(item in bloom for item in added[-500:])
    assert sum(item in bloom for item in added[:3000]) < 30
    assert bloom.stats.rotations > 0


def test_a_filter_that_does_not_forget_grows_without_losing_anything() -> None:
    bloom = RotatingBloom(100, forgets=False)
    added = items(3000)
    for item in added:
        bloom.add(item)
    assert all(item in bloom for item in added)
    assert 0 < bloom.fill <= 1


def test_while_rebuilding_everything_is_maybe_and_nothing_told_meanwhile_is_lost() -> None:
    bloom = RotatingBloom(100)
    old, meanwhile, found = items(3)
    bloom.add(old)
    bloom.start_rebuild(200)
    assert bloom.rebuilding
    assert items(1)[0] in bloom
    bloom.add(meanwhile)
    bloom.add_to_rebuild(found)
    bloom.end_rebuild()
    assert not bloom.rebuilding
    assert [item in bloom for item in (old, meanwhile, found)] == [False, True, True]
    assert bloom.capacity == 200


def test_a_rebuild_of_a_trusted_filter_lets_it_answer_meanwhile() -> None:
    bloom = RotatingBloom(100)
    held, absent = items(2)
    bloom.add(held)
    bloom.start_rebuild(blind=False)
    assert held in bloom
    assert absent not in bloom


def test_a_blind_rebuild_stays_blind_when_started_again_as_trusted() -> None:
    bloom = RotatingBloom(100)
    bloom.start_rebuild()
    bloom.start_rebuild(blind=False)
    assert bloom.rebuilding


def test_false_answers_are_counted_by_who_looked() -> None:
    bloom = RotatingBloom(100)
    for item in items(9):
        assert item not in bloom
    bloom.was_wrong(absent=True)
    assert bloom.stats.false_positive_rate == pytest.approx(1 / 10)
    bloom.was_wrong(absent=False)
    assert bloom.stats.false_negatives == 1


def test_peeking_is_not_counted() -> None:
    bloom = RotatingBloom(100)
    assert not bloom.peek(b"x")
    assert bloom.stats.said_no == 0


@pytest.mark.parametrize(("capacity", "error_rate"), [(0, 0.1), (10, 0.0), (10, 1.0)])
def test_impossible_filters_are_refused(capacity: int, error_rate: float) -> None:
    with pytest.raises(ValueError, match="must"):
        RotatingBloom(capacity, error_rate)

"""Which judged pairs are kept: the worst and the last, each once, and back from what was stored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fingerprint.audit import JUDGEMENTS, Judgement
from gateway.fingerprint.judged import LAST, WORST, JudgedPair, badness, kept, pairs_json, pairs_of


def pair(number: int, judgement: Judgement = "right", similarity: float = 0.9, at: int = 0) -> JudgedPair:
    return JudgedPair(bytes(16), number.to_bytes(16, "big"), similarity, judgement, "en-US", bytes(32), at or number)


def test_the_worst_come_first() -> None:
    right, less = pair(1, "right", 0.9), pair(2, "right", 0.6)
    wrong, convincing = pair(3, "wrong", 0.7), pair(4, "wrong", 0.95)
    unsure, unheard = pair(5, "undecided", 0.8), pair(6, "unjudged", 0.8)
    assert kept([right, unsure, wrong, less, unheard, convincing]) == [
        convincing, wrong, unheard, unsure, less, right,
    ]  # fmt: skip


def test_of_many_the_worst_and_the_last_are_kept() -> None:
    pairs = [pair(number, "right", 0.5 + number / 1000) for number in range(1, 200)]
    numbers = [int.from_bytes(one.recalled, "big") for one in kept(pairs)]
    assert numbers == [*range(1, WORST + 1), *range(200 - LAST, 200)]


def test_a_pair_is_kept_once_with_its_worst_judgement() -> None:
    judged = [pair(1, "wrong", at=1), pair(1, "right", at=2), pair(2, "right", 0.8, at=1), pair(2, "right", 0.9, at=5)]
    assert [(one.judgement, one.at) for one in kept(judged)] == [("wrong", 1), ("right", 5)]


PAIRS = st.builds(pair, st.integers(0, 60), st.sampled_from(JUDGEMENTS), st.floats(0, 1), st.integers(1, 1 << 40))


@given(st.lists(PAIRS, max_size=80))
def test_keeping_what_is_kept_changes_nothing(pairs: list[JudgedPair]) -> None:
    once = kept(pairs)
    assert len(once) <= WORST + LAST
    assert kept(once) == once == sorted(once, key=badness)
    back = pairs_of(json.dumps({"version": 2, "pairs": pairs_json(once)}).encode())
    assert [one._replace(similarity=0) for one in back] == [one._replace(similarity=0) for one in once]
    assert all(abs(one.similarity - other.similarity) < 1e-4 for one, other in zip(back, once, strict=True))


GOOD = pairs_json([pair(1)])[0]


@pytest.mark.parametrize(
    "row",
    [
        None, [], GOOD[:-1], ["zz", *GOOD[1:]], ["00", *GOOD[1:]], [*GOOD[:2], -1, *GOOD[3:]],
        [*GOOD[:2], float("nan"), *GOOD[3:]], [*GOOD[:3], "fine", *GOOD[4:]], [*GOOD[:3], [], *GOOD[4:]],
        [*GOOD[:6], -1], [*GOOD[:6], 1e400],
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(row: object) -> None:
    assert pairs_of(json.dumps({"pairs": [row, GOOD]}).encode()) == [pair(1)]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"pairs": 3}', b"\xff", b"[" * 100_000])
def test_a_tally_without_pairs_has_none(data: bytes) -> None:
    assert pairs_of(data) == []

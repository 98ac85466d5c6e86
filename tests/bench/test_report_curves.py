"""Hit rates by size: no policy beats the bound, a sample says what the whole does, and advice follows the curve."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import trace_frames as frames
from bench import trace_synth
from bench.miss_ratio import Sample, _drawn, curve, sampled
from bench.report_advice import advice, enough, larger, rate_at, restart
from bench.report_counts import count
from bench.report_keys import ByKey, by_key
from bench.simulation import DEFAULT, POLICIES, belady, simulate
from cache_tiers.policy.worth import WorthPolicy
from gateway.settings import Device
from gateway.stats import BYPASS, HIT_FUZZY, MISS

KEYS = st.lists(st.integers(0, 12), min_size=1, max_size=120)


def keys_of(keys: list[int], sizes: list[int] | None = None) -> ByKey:
    rows = np.zeros(len(keys), frames.ROW)
    rows["digest"], rows["status"], rows["cost_ms"] = np.array(keys) + 1, MISS, 2.0
    rows["bytes_out"] = [sizes[key] for key in keys] if sizes else 1
    return by_key(count([rows]).kept)


@given(KEYS, st.integers(1, 12))
@settings(deadline=None)
def test_belady_is_beaten_by_no_policy_and_by_no_luck(keys: list[int], capacity: int) -> None:
    sample = sampled(keys_of(keys))
    best = int(belady(sample.keys, sample.sizes, capacity).sum())
    for make in POLICIES.values():
        missed = simulate(make(capacity), sample.keys.tolist(), sample.sizes, sample.costs)
        assert best <= missed.sum()
    assert best >= len(set(keys)), "the first request of each key is a miss for all"
    if capacity >= len(set(keys)):
        assert best == len(set(keys))


def optimum(keys: list[int], capacity: int) -> int:
    """The fewest misses there can be, by trying everything; for answers of one size, which need not be taken in."""
    states = {frozenset[int](): 0}
    for key in keys:
        following: dict[frozenset[int], int] = {}
        for held, misses in states.items():
            choices = [(held, 0)] if key in held else [(held, 1)]
            if key not in held:
                larger = held | {key}
                choices += [(larger, 1)] if len(larger) <= capacity else [(larger - {out}, 1) for out in held]
            for after, cost in choices:
                following[after] = min(following.get(after, len(keys)), misses + cost)
        states = following
    return min(states.values())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=14), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_belady_is_the_optimum_for_answers_of_one_size(keys: list[int], capacity: int) -> None:
    sample = sampled(keys_of(keys))
    assert belady(sample.keys, sample.sizes, capacity).sum() == optimum(keys, capacity)


@given(KEYS, st.lists(st.integers(1, 50), min_size=13, max_size=13), st.integers(1, 300))
@settings(deadline=None)
def test_the_bound_by_bytes_is_above_every_policy_and_belady(keys: list[int], sizes: list[int], capacity: int) -> None:
    sample = sampled(keys_of(keys, sizes))
    bound = sample.bounded(capacity)
    ways = [belady(sample.keys, sample.sizes, capacity)]
    ways += [simulate(make(capacity), sample.keys.tolist(), sample.sizes, sample.costs) for make in POLICIES.values()]
    for missed in ways:
        for of, rate in sample.rates(missed).items():
            assert rate <= bound[of] + 1e-9


def speech(requests: int = 40_000) -> ByKey:
    shape = trace_synth.Shape(requests=requests, days=3, new_model_day=0)
    return by_key(count([trace_synth.synth(shape, seed=11)]).kept)


def test_a_sample_of_the_keys_says_what_the_whole_does() -> None:
    by = speech()
    whole, part = sampled(by, most=1 << 62), sampled(by, most=8000)
    assert whole.rate == 1
    assert part.rate < 0.35
    assert len(part) <= 12_000
    first = 0.05 * whole.all_bytes
    full, thin = curve(whole, DEFAULT, first), curve(part, DEFAULT, first)
    assert full["ceiling"] == thin["ceiling"], "that is of all requests in either"
    errors = []
    for size in full["sizes"]:
        near = rate_at(thin, size["bytes"])
        errors.append(abs(near - size[DEFAULT]["requests"]))
    assert np.mean(errors) < 0.01
    assert max(errors) < 0.03, "where a handful of keys fill the small cache; see docs/report.md for larger samples"


def test_of_keys_alike_a_share_is_drawn() -> None:
    counts = np.array([1] * 60 + [64] * 30 + [9])
    weights = np.array([10, 1000] * 45 + [5])
    asked = counts != 9
    luck = np.random.default_rng(1).permutation(len(counts)) / len(counts)
    drawn = _drawn(asked, counts, weights, luck, 1 / 3)
    assert not drawn[-1]
    for often in (1, 64):
        for weight in (10, 1000):
            alike = (counts == often) & (weights == weight)
            assert drawn[alike].sum() == alike.sum() / 3
    other = _drawn(asked, counts, weights, luck[::-1], 1 / 3)
    assert other.sum() == drawn.sum()
    assert (other != drawn).any(), "which of them is luck"


def test_a_key_too_large_for_the_head_that_is_asked_for_all_the_time_is_not_simulated() -> None:
    keys = [0] * 900 + list(range(1, 101))
    for seed in range(5):
        part = sampled(keys_of(keys, [5000] + [1] * 100), most=50, seed=seed)
        assert len(part) <= 75
        assert part.endless()["requests"] == pytest.approx(0.9, abs=0.02)


def test_a_sample_is_simulated_with_the_exponents_that_the_whole_finds() -> None:
    by = speech(20_000)
    part = sampled(by, most=5000)
    size = 0.05 * part.all_bytes
    policy = part.policy("worth", size)
    assert isinstance(policy, WorthPolicy)
    part.missed(policy, size)
    whole = sampled(by, most=1 << 62)
    itself = whole.policy("worth", size)
    assert isinstance(itself, WorthPolicy)
    whole.missed(itself, size)
    assert policy.exponent == itself.exponent
    assert part.lesson is not None
    assert len(part.lesson.exponents(size)) > 1
    assert whole.lesson is None


def test_a_sample_in_parts_misses_what_it_does_in_one() -> None:
    part = sampled(speech(20_000), most=5000)
    size, middle = 0.05 * part.all_bytes, len(part) // 3
    for name in ("lru", "worth"):
        at_once, in_parts = part.policy(name, size), part.policy(name, size)
        missed = [part.missed(in_parts, size, 0, middle), part.missed(in_parts, size, middle)]
        assert np.array_equal(np.concatenate(missed), part.missed(at_once, size))


def test_every_policy_that_a_gateway_may_have_can_be_simulated() -> None:
    assert set(POLICIES) == set(get_args(get_type_hints(Device)["policy"]))
    assert DEFAULT in POLICIES


def test_an_endless_cache_is_the_ceiling() -> None:
    keys = [1, 2, 1, 3, 1, 2, 4, 1]
    found = curve(sampled(keys_of(keys)), "lru", 2)
    assert found["ceiling"]["requests"] == pytest.approx(4 / 8)
    assert found["sizes"][-1]["lru"]["requests"] == found["sizes"][-1]["belady"]["requests"] == pytest.approx(4 / 8)
    assert larger(found)[-1]["requests"] == pytest.approx(4 / 8)


def test_what_exact_keys_can_not_answer_is_not_simulated() -> None:
    rows = np.zeros(4, frames.ROW)
    rows["digest"], rows["status"] = 1, [MISS, BYPASS, HIT_FUZZY, MISS]
    assert len(sampled(by_key(count([rows]).kept))) == 2


def flat(first_tier: int, rates: list[float]) -> dict[str, object]:
    """A curve with these rates at 1, 2, 4, ... MiB."""
    sizes = [{"bytes": 1 << (20 + at), "lru": {"requests": rate}, "bound": {"requests": 0.5}} for at, rate in
             enumerate(rates)]  # fmt: skip
    return {
        "policy": "lru", "even": False, "sizes": sizes, "first_tier_bytes": first_tier,
        "all_bytes": 1 << (19 + len(rates)), "ceiling": {"requests": rates[-1]},
    }  # fmt: skip


def test_memory_is_advised_until_doubling_it_gains_nothing() -> None:
    found = flat(1 << 20, [0.2, 0.4, 0.5, 0.502, 0.503])
    assert enough(found) == 4 << 20
    told, policy = advice(found, [], 100, None)
    assert told.startswith(
        "Twice the first tier's memory, 2.00 MiB, would answer 40.0 % of requests instead of 20.0 %."
    )
    assert "up to 4.00 MiB (50.0 %)" in told
    assert "answers at least 40.0 % of what any policy could at 1.00 MiB" in policy
    told, policy = advice(flat(2 << 20, [0.2, 0.4, 0.5, 0.502, 0.503]), [], 100, None)
    assert told.startswith("Give the first tier 4.00 MiB instead of 2.00 MiB: 50.0 % of requests instead of 40.0 %")
    told, policy = advice(flat(8 << 20, [0.2, 0.4, 0.5, 0.502, 0.503]), [], 100, None)
    assert told.startswith("The first tier's 8.00 MiB are enough: 4.00 MiB would answer 50.0 % of requests")


def test_reasons_worth_a_deed_are_told_by_their_weight() -> None:
    reasons = [{"reason": "expired", "requests": 10}, {"reason": "evicted", "requests": 20}]
    told = advice(None, [*reasons, {"reason": "withheld", "requests": 1}], 100, None)
    assert [line.split()[0] for line in told] == ["20.0", "10.0"]
    assert "redis.maxmemory" in told[0]
    assert "redis.ttl" in told[1]


def test_a_restart_with_the_head_is_better_than_an_empty_one() -> None:
    sample: Sample = sampled(speech(10_000), most=1 << 62)
    rows = restart(sample, "lfu", 0.2 * sample.all_bytes)["rows"]
    _, empty, fetched = (row["hit_rate"] for row in rows)
    assert empty < fetched
    assert rows[1]["missed_s"] > rows[2]["missed_s"]

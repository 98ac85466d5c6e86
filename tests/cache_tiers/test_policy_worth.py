"""Refrain's own policy: its order, its history, pins, quotas, and the trial that finds its exponent."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache_tiers.policy.base import Pinning, PinRefused
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.ranking import Ranking, Worths, list_of
from cache_tiers.policy.remembered import Remembered
from cache_tiers.policy.tinylfu import Sketch
from cache_tiers.policy.trial import DENSEST, FREQUENCY, LARGEST, RECENCY, THINNEST, Trial
from cache_tiers.policy.worth import FEWEST, HISTORY, WorthPolicy


def use(policy: WorthPolicy[int], keys: Iterable[int]) -> int:
    """Requests for keys of one size and cost; returns how many were hits."""
    hits = 0
    for key in keys:
        if key in policy:
            policy.touch(key)
            hits += 1
        else:
            policy.offer(key, 1, 1.0)
    return hits


def test_what_saves_least_a_byte_goes_first() -> None:
    policy = WorthPolicy[str](100)
    policy.offer("dear", 40, 4000.0)
    policy.offer("cheap", 40, 40.0)
    assert policy.offer("between", 40, 400.0) == ["cheap"]
    assert policy.offer("cheap", 40, 40.0) is None, "it would be the lowest of all"
    assert "dear" in policy


def test_a_refusal_remembers_the_use_and_lets_the_second_in() -> None:
    policy = WorthPolicy[str](100, exponent=2.0)
    policy.offer("a", 50, 100.0)
    policy.offer("b", 50, 100.0)
    assert policy.offer("c", 50, 50.0) is None
    assert policy.used == 100
    assert policy.offer("c", 50, 50.0) == ["a"], "two uses of half the value stand higher than one"


def test_whoever_is_not_used_sinks_against_those_refused_again_and_again() -> None:
    policy = WorthPolicy[str](10)
    policy.offer("old", 10, 1000.0)
    refused = 0
    while policy.offer(f"new {refused}", 10, 100.0) is None:
        refused += 1
    assert 5 <= refused <= 12
    assert "old" not in policy


def test_a_refusal_after_some_have_been_looked_at_changes_nothing() -> None:
    policy = WorthPolicy[str](100)
    for name, cost in (("low", 10.0), ("high", 10_000.0), ("higher", 20_000.0)):
        policy.offer(name, 30, cost)
    assert policy.offer("large", 60, 600.0) is None
    assert (policy.used, len(policy)) == (90, 3)
    assert policy.shed(1) == ["low"]
    assert policy.shed(1) == ["high"]


def test_counts_outlive_eviction_but_not_for_ever() -> None:
    policy = WorthPolicy[int](10, exponent=4.0)
    use(policy, [1] * 9)
    policy.remove(1)
    use(policy, range(100, 120))
    use(policy, [1])
    use(policy, range(200, 220))
    assert 1 in policy, "with the nine uses before it stands above what came once"
    policy.remove(1)
    use(policy, range(1000, 1000 + 10 + HISTORY * 10 + FEWEST))
    use(policy, [1])
    use(policy, range(2000, 2010))
    assert 1 not in policy


def test_the_history_is_bounded_by_what_is_resident() -> None:
    policy = WorthPolicy[int](50)
    use(policy, range(10_000))
    assert len(policy._history) <= HISTORY * 50 + FEWEST
    for key in list(policy._residents):
        policy.remove(key)
    assert len(policy._history) <= FEWEST


@given(
    steps=st.lists(st.tuples(st.sampled_from(["add", "take"]), st.integers(0, 400), st.integers(1, 15)), max_size=600),
    most=st.integers(0, 300),
)
def test_counts_are_remembered_as_an_ordered_dict_would(steps: list[tuple[str, int, int]], most: int) -> None:
    ours, model = Remembered(), OrderedDict[int, int]()
    for step, number, uses in steps:
        if step == "take" or number in model:
            assert ours.take(number) == model.pop(number, 0)
        else:
            ours.add(number, uses, most)
            model[number] = uses
            while len(model) > most:
                model.popitem(last=False)
        assert len(ours) == len(model)
    ours.keep(lambda number: number % 3 == 0)
    assert len(ours) == sum(number % 3 == 0 for number in model)
    assert [ours.take(number) for number in model] == [uses if number % 3 == 0 else 0 for number, uses in model.items()]


def test_counts_of_many_generations_are_forgotten_in_their_order() -> None:
    """Also of numbers that two keys share, which are not told apart and may be there twice."""
    counts, most = Remembered(), 2_000
    for number in range(20_000):
        counts.add(number, 1 + number % 15, most)
        counts.add(number, 1 + number % 15, most)
        counts.add(number - 1_500, 1, most)
        assert len(counts) <= most
    counts = Remembered()
    for number in range(20_000):
        counts.add(number, 1 + number % 15, most)
    assert [counts.take(number) for number in (17_999, 18_000, 19_999)] == [0, 1, 5]
    assert len(counts) == most - 2


def test_pinned_keys_are_never_evicted() -> None:
    policy = WorthPolicy[int](100, pin_share=0.25)
    assert isinstance(policy, Pinning)
    policy.offer(1, 20, 0.001)
    policy.pin(1)
    policy.pin(1)
    use(policy, range(10, 2000))
    assert 1 in policy
    assert policy.pinned == 20
    assert 1 not in policy.shed(1000)
    assert policy.used == 20
    policy.touch(1)
    policy.unpin(1)
    policy.unpin(1)
    assert policy.shed(1) == [1]
    assert (policy.used, policy.pinned) == (0, 0)


def test_pins_take_no_more_than_their_share() -> None:
    policy = WorthPolicy[str](100, pin_share=0.25)
    policy.offer("a", 20, 1.0)
    policy.offer("b", 6, 1.0)
    policy.pin("a")
    with pytest.raises(PinRefused, match=r"20 bytes and may take 25; this one takes 6"):
        policy.pin("b")
    with pytest.raises(KeyError):
        policy.pin("absent")
    with pytest.raises(KeyError):
        policy.unpin("absent")
    assert policy.offer("a", 30, 1.0) == []
    assert policy.pinned == 0, "grown past the share, it is a key like others"
    policy.remove("a")
    policy.pin("b")
    assert policy.pinned == 6


def test_one_groups_pins_take_no_more_than_its_share_of_them() -> None:
    policy = WorthPolicy[tuple[str, int]](
        100, group=lambda key: key[0], pin_share=0.5, pins_of={"loud": 0.4, "quiet": 1.0}.__getitem__
    )
    for key in (("loud", 1), ("loud", 2), ("quiet", 1), ("quiet", 2)):
        policy.offer(key, 15, 1.0)
    policy.pin(("loud", 1))
    with pytest.raises(PinRefused, match=r"of 'loud' take 15 bytes and may take 20; this one takes 15"):
        policy.pin(("loud", 2))
    policy.pin(("quiet", 1))
    policy.pin(("quiet", 2))
    policy.unpin(("quiet", 2))
    assert policy.offer(("loud", 1), 21, 1.0) == []
    assert not policy.is_pinned(("loud", 1)), "grown past the group's share"
    assert policy.pinned == 15


def test_what_pins_leave_no_room_for_is_refused() -> None:
    policy = WorthPolicy[str](100, pin_share=0.5)
    policy.offer("pinned", 50, 1.0)
    policy.pin("pinned")
    policy.offer("a", 30, 1.0)
    assert policy.offer("b", 51, 1e9) is None
    assert ("a" in policy, policy.used) == (True, 80)
    assert policy.offer("a", 51, 1e9) is None
    assert ("a" in policy, policy.used) == (True, 80)
    assert policy.offer("pinned", 50, 1.0) == []
    assert policy.pinned == 50


PIN_SHARES = {"loud": 0.5, "small": 0.2, "free": 1.0, "quiet": 1.0}


def by_tenant() -> WorthPolicy[tuple[str, int]]:
    return WorthPolicy(
        100,
        group=lambda key: key[0],
        quotas={"loud": 50, "small": 10},
        pins_of=lambda tenant: PIN_SHARES[str(tenant)],
        number=lambda key: key[1],
    )


def test_a_tenant_that_floods_makes_room_for_itself_alone() -> None:
    policy = by_tenant()
    for n in range(50):
        policy.offer(("quiet", n), 1, 1.0)
    for n in range(1000, 5000):
        policy.offer(("loud", n), 1, 1e6)
    assert sum(key[0] == "loud" for key in policy._residents) == 50
    assert sum(key[0] == "quiet" for key in policy._residents) == 50


def test_what_exceeds_its_tenant_s_quota_alone_is_refused() -> None:
    policy = by_tenant()
    assert policy.offer(("small", 3), 11, 1.0) is None
    assert policy.offer(("small", 1), 10, 1.0) == []
    assert policy.offer(("small", 2), 10, 1.0) == [("small", 1)]
    assert policy.offer(("small", 2), 11, 1.0) is None
    assert policy.used == 10


def test_within_the_capacity_tenants_compete_by_worth() -> None:
    policy = by_tenant()
    policy.offer(("loud", 1), 50, 1.0)
    policy.offer(("quiet", 2), 50, 1e6)
    assert policy.offer(("small", 3), 10, 1e6) == [("loud", 1)]


class PinsAndQuotas(RuleBasedStateMachine):
    """Any sequence of calls keeps pins resident and quotas kept, and pins within their share."""

    keys = st.tuples(st.sampled_from(["loud", "small", "free"]), st.integers(0, 5))

    def __init__(self) -> None:
        super().__init__()
        self.policy = by_tenant()
        self.weights: dict[tuple[str, int], int] = {}
        self.pins: set[tuple[str, int]] = set()

    @rule(key=keys, weight=st.integers(0, 40), cost=st.floats(0, 1000))
    def offer(self, key: tuple[str, int], weight: int, cost: float) -> None:
        victims = self.policy.offer(key, weight, cost)
        if victims is None:
            return
        self._gone(victims)
        was_pinned = key in self.pins
        self.pins.discard(key)
        self.weights[key] = weight
        if was_pinned and self._fits(key):
            self.pins.add(key)

    @rule(key=keys)
    def use(self, key: tuple[str, int]) -> None:
        if key in self.weights:
            self.policy.touch(key)

    @rule(key=keys)
    def pin(self, key: tuple[str, int]) -> None:
        if key not in self.weights:
            return
        fits = key in self.pins or self._fits(key)
        try:
            self.policy.pin(key)
            assert fits
            self.pins.add(key)
        except PinRefused:
            assert not fits

    @rule(key=keys)
    def unpin(self, key: tuple[str, int]) -> None:
        if key in self.weights:
            self.policy.unpin(key)
            self.pins.discard(key)

    @rule(key=keys)
    def remove(self, key: tuple[str, int]) -> None:
        self.policy.remove(key)
        self.weights.pop(key, None)
        self.pins.discard(key)

    @rule(weight=st.integers(0, 60))
    def shed(self, weight: int) -> None:
        self._gone(self.policy.shed(weight))

    def _pinned(self, tenant: str = "") -> int:
        return sum(self.weights[key] for key in self.pins if tenant in ("", key[0]))

    def _fits(self, key: tuple[str, int]) -> bool:
        weight, limit = self.weights[key], self.policy.pin_limit
        share = int(PIN_SHARES[key[0]] * limit)
        return self._pinned() + weight <= limit and self._pinned(key[0]) + weight <= share

    def _gone(self, victims: Iterable[tuple[str, int]]) -> None:
        for victim in victims:
            assert victim not in self.pins
            del self.weights[victim]

    @invariant()
    def in_step(self) -> None:
        assert set(self.weights) == set(self.policy._residents)
        assert self.policy.used == sum(self.weights.values()) <= 100
        assert self.policy.pinned == self._pinned() <= self.policy.pin_limit
        assert self.policy._pinned_of == {key[0]: many for key in self.pins if (many := self._pinned(key[0]))}
        for tenant, quota in (("loud", 50), ("small", 10)):
            assert sum(weight for key, weight in self.weights.items() if key[0] == tenant) <= quota


TestPinsAndQuotas = PinsAndQuotas.TestCase
TestPinsAndQuotas.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def popular(count: int, seed: int = 3) -> list[int]:
    """A power law that never changes: frequency is all."""
    chance = random.Random(seed)
    return chance.choices(range(5000), [1 / rank for rank in range(1, 5001)], k=count)


def passing(count: int, seed: int = 3) -> list[int]:
    """What is asked for was asked for lately, and never comes again: recency is all."""
    chance = random.Random(seed)
    return [n // 4 - int(chance.expovariate(1 / 30)) for n in range(count)]


@pytest.mark.parametrize(("requests", "goes_to"), [(popular, FREQUENCY), (passing, RECENCY)])
def test_the_exponent_follows_the_requests(requests: object, goes_to: float) -> None:
    policy = WorthPolicy[int](100)
    assert callable(requests)
    use(policy, requests(20_000))
    assert abs(policy.exponent - goes_to) < abs(policy.exponent - (RECENCY + FREQUENCY - goes_to))


def test_it_turns_when_the_requests_do() -> None:
    policy = WorthPolicy[int](100)
    use(policy, popular(20_000))
    before = policy.exponent
    use(policy, [10_000 + key for key in passing(30_000)])
    assert policy.exponent < 1 < before
    lru = LruPolicy[int](100)
    after = [50_000 + key for key in passing(5_000)]
    hits = use(policy, after)
    theirs = 0
    for key in after:
        if key in lru:
            lru.touch(key)
            theirs += 1
        else:
            lru.offer(key, 1, 1.0)
    assert hits > 0.95 * theirs


def test_it_is_better_than_lfu_where_frequency_is_all_for_it_remembers_counts() -> None:
    requests = popular(30_000)
    lfu, theirs = LfuPolicy[int](100), 0
    for key in requests:
        if key in lfu:
            lfu.touch(key)
            theirs += 1
        else:
            lfu.offer(key, 1, 1.0)
    assert use(WorthPolicy(100), requests) > theirs


def test_the_sample_is_halved_while_the_small_caches_are_large() -> None:
    made: list[WorthPolicy[int]] = []

    def make(capacity: int, exponent: float) -> WorthPolicy[int]:
        made.append(WorthPolicy(capacity, exponent=exponent))
        return made[-1]

    trial = Trial(10_000, make)
    for key in range(200_000):
        if trial.wants(key):
            trial.access(key, 1, 1.0)
    assert trial.mask + 1 == THINNEST
    for shadow in made:
        assert shadow.capacity == 10_000 // THINNEST
        assert all(trial.wants(key) for key in shadow._residents)
    small = Trial(DENSEST * (LARGEST - 2), make)
    for key in range(2000):
        if small.wants(key):
            small.access(key, 1, 1.0)
    assert small.mask + 1 == DENSEST


def test_the_sketch_counts_to_fifteen_and_halves() -> None:
    sketch = Sketch(64)
    for _ in range(40):
        sketch.add(7)
    assert sketch.count(7) == 15
    for number in range(1000, 1600):
        sketch.add(number)
    assert sketch.count(7) == 7
    sketch.fit(1000)
    assert sketch.keys >= 1000


def test_keys_put_back_find_their_lists_again_though_these_were_forgotten_meanwhile() -> None:
    ranking: Ranking[str] = Ranking(Worths(1.0))
    numbers = {"a": list_of(1, 1.0, 1), "b": list_of(1, 100.0, 1)}
    for key, number in numbers.items():
        ranking.place(key, number, 0.0)
    for _ in range(100):  # each leaves a head behind in the heap, until that is made anew
        clocks = {key: ranking.take(key, number) for key, number in numbers.items()}
        for key, clock in clocks.items():
            ranking.put_back(key, numbers[key], clock)
    lowest = ranking.lowest()
    assert lowest is not None
    assert lowest[1] == "a"

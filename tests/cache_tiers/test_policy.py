"""What every policy promises: a conformance suite, a validator behind every step, and each policy's own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache_tiers.policy.base import Policy
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.tinylfu import TinyLfuPolicy
from cache_tiers.policy.worth import WorthPolicy


def by_name(key: str) -> int:
    """The same number in every process, unlike hash."""
    return int.from_bytes(key.encode(), "big")


POLICIES: dict[str, Callable[[int], Policy[str]]] = {
    "lru": LruPolicy,
    "lfu": LfuPolicy,
    "tinylfu": lambda capacity: TinyLfuPolicy(capacity, number=by_name),
    "worth": lambda capacity: WorthPolicy(capacity, number=by_name),
}


@pytest.fixture(params=sorted(POLICIES))
def make(request: pytest.FixtureRequest) -> Callable[[int], Policy[str]]:
    return POLICIES[request.param]


def fill(policy: Policy[str], names: str, weight: int) -> None:
    """Costs are in proportion to weights, here and below, so that a byte of each is worth the same."""
    for name in names:
        assert policy.offer(name, weight, float(weight)) == []


def test_an_empty_policy_takes_what_fits(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "a", 4)
    fill(policy, "b", 6)
    assert (policy.used, policy.capacity, len(policy)) == (10, 10, 2)


def test_what_weighs_more_than_the_capacity_is_refused_and_changes_nothing(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "a", 4)
    assert policy.offer("b", 11, 11.0) is None
    assert policy.offer("a", 11, 11.0) is None
    assert policy.used == 4
    assert "a" in policy
    assert "b" not in policy


def test_as_many_go_as_the_newcomer_needs(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "abcde", 2)
    for _ in range(4):  # a policy with an admission sketch has to be asked more than once
        victims = policy.offer("f", 5, 5.0)
        if victims is not None:
            break
        assert policy.used == 10
    assert victims is not None
    assert len(victims) == 3
    assert policy.used == 9


def test_a_resident_key_is_weighed_anew(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "ab", 4)
    assert policy.offer("b", 2, 2.0) == []
    assert policy.used == 6
    assert policy.offer("b", 7, 7.0) == ["a"]
    assert policy.used == 7


def test_a_key_that_grows_is_never_its_own_victim(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "a", 4)
    fill(policy, "b", 6)
    assert policy.offer("a", 10, 10.0) == ["b"]
    assert "a" in policy
    assert policy.used == 10


def test_removing_frees_and_what_is_absent_is_no_matter(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "a", 10)
    policy.remove("a")
    policy.remove("a")
    assert (policy.used, len(policy)) == (0, 0)
    fill(policy, "b", 10)


def test_touching_what_is_absent_is_an_error(make: Callable[[int], Policy[str]]) -> None:
    with pytest.raises(KeyError):
        make(10).touch("a")


def test_shedding_goes_until_enough_is_gone(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    fill(policy, "abcde", 2)
    assert policy.shed(0) == []
    assert len(policy.shed(3)) == 2
    assert policy.used == 6
    assert len(policy.shed(100)) == 3
    assert policy.used == 0


def test_what_weighs_and_costs_nothing_is_taken(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    assert policy.offer("a", 0, 0.0) == []
    assert policy.used == 0
    fill(policy, "b", 10)
    policy.touch("a")
    assert "a" in policy


def test_a_phrase_said_often_outlives_many_said_once(make: Callable[[int], Policy[str]]) -> None:
    """Least recently used is the policy that cannot do this, and is why the others are there."""
    policy = make(20)
    for turn in range(600):
        name = "often" if turn % 30 < 3 else f"once {turn}"
        if name in policy:
            policy.touch(name)
        else:
            policy.offer(name, 1, 1.0)
    assert ("often" in policy) is not isinstance(policy, LruPolicy)


def test_lru_evicts_what_was_hit_longest_ago() -> None:
    policy = LruPolicy[str](3)
    for name in "abc":
        policy.offer(name, 1, 1.0)
    policy.touch("a")
    policy.offer("b", 1, 1.0)
    assert policy.offer("d", 1, 1.0) == ["c"]
    assert policy.offer("e", 1, 1.0) == ["a"]


def test_lfu_evicts_what_was_hit_least_and_of_those_the_oldest() -> None:
    policy = LfuPolicy[str](3)
    for name in "abc":
        policy.offer(name, 1, 1.0)
    for name in "aabb":
        policy.touch(name)
    assert policy.offer("d", 1, 1.0) == ["c"]
    assert policy.offer("e", 1, 1.0) == ["d"]
    policy.touch("e")
    policy.touch("e")
    assert policy.offer("f", 1, 1.0) == ["a"], "a, b and e stand at three: a came there first"


def test_lfu_forgets_the_count_of_what_it_evicted() -> None:
    policy = LfuPolicy[str](2)
    policy.offer("a", 1, 1.0)
    for _ in range(5):
        policy.touch("a")
    policy.remove("a")
    policy.offer("a", 1, 1.0)
    policy.offer("b", 1, 1.0)
    policy.touch("b")
    assert policy.offer("c", 1, 1.0) == ["a"]


class PolicyMachine(RuleBasedStateMachine):
    """Any sequence of calls, against a dictionary of weights."""

    make: Callable[[int], Policy[str]]
    capacity = 20
    keys = st.sampled_from("abcdefgh")

    def __init__(self) -> None:
        super().__init__()
        self.policy: Any = type(self).make(self.capacity)
        self.weights: dict[str, int] = {}

    @rule(key=keys, weight=st.integers(0, 25), cost=st.floats(0, 100))
    def offer(self, key: str, weight: int, cost: float) -> None:
        victims = self.policy.offer(key, weight, cost)
        if victims is None:
            return  # refused: the validator sees that nothing has changed
        assert weight <= self.capacity
        assert key not in victims
        self._gone(victims)
        self.weights[key] = weight

    @precondition(lambda self: self.weights)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        self.policy.touch(data.draw(st.sampled_from(sorted(self.weights))))

    @rule(key=keys)
    def remove(self, key: str) -> None:
        self.policy.remove(key)
        self.weights.pop(key, None)

    @rule(weight=st.integers(0, 30))
    def shed(self, weight: int) -> None:
        before = self.policy.used
        self._gone(self.policy.shed(weight))
        assert before - self.policy.used >= min(weight, before)

    def _gone(self, victims: object) -> None:
        assert isinstance(victims, list | tuple)
        assert len(set(victims)) == len(victims)
        for victim in victims:
            del self.weights[victim]  # was resident

    @invariant()
    def in_step(self) -> None:
        assert self.policy.used == sum(self.weights.values()) <= self.policy.capacity
        assert len(self.policy) == len(self.weights)
        assert all(key in self.policy for key in self.weights)


class TwinMachine(PolicyMachine):
    """Beside each policy runs another that is told the same: a policy has no chance in it."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Twins(self.policy, type(self).make(self.capacity))


class Twins:
    def __init__(self, one: Policy[str], other: Policy[str]) -> None:
        self.one, self.other = one, other

    def __getattr__(self, name: str) -> Any:
        return getattr(self.one, name)

    def offer(self, key: str, weight: int, cost_ms: float) -> Sequence[str] | None:
        victims = self.one.offer(key, weight, cost_ms)
        assert victims == self.other.offer(key, weight, cost_ms)
        return victims

    def shed(self, weight: int) -> Sequence[str]:
        victims = self.one.shed(weight)
        assert victims == self.other.shed(weight)
        return victims

    def touch(self, key: str) -> None:
        self.one.touch(key)
        self.other.touch(key)

    def remove(self, key: str) -> None:
        self.one.remove(key)
        self.other.remove(key)

    def __contains__(self, key: object) -> bool:
        return key in self.one

    def __len__(self) -> int:
        return len(self.one)


def machine_of(name: str) -> Any:
    machine = type(f"{name.title()}Machine", (TwinMachine,), {"make": staticmethod(POLICIES[name])}).TestCase
    machine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return machine


TestAnySequenceOnLru = machine_of("lru")
TestAnySequenceOnLfu = machine_of("lfu")
TestAnySequenceOnTinyLfu = machine_of("tinylfu")
TestAnySequenceOnWorth = machine_of("worth")

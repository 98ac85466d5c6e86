"""What every policy promises: a conformance suite, a validator behind every step, and each policy's own order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache_tiers.policy.base import Policy
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy

POLICIES: dict[str, Callable[[int], Policy[str]]] = {"lru": LruPolicy, "lfu": LfuPolicy}


@pytest.fixture(params=sorted(POLICIES))
def make(request: pytest.FixtureRequest) -> Callable[[int], Policy[str]]:
    return POLICIES[request.param]


def test_an_empty_policy_takes_what_fits(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    assert policy.offer("a", 4, 1.0) == []
    assert policy.offer("b", 6, 1.0) == []
    assert (policy.used, policy.capacity, len(policy)) == (10, 10, 2)


def test_what_weighs_more_than_the_capacity_is_refused_and_changes_nothing(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    policy.offer("a", 4, 1.0)
    assert policy.offer("b", 11, 1.0) is None
    assert policy.offer("a", 11, 1.0) is None
    assert policy.used == 4
    assert "a" in policy
    assert "b" not in policy


def test_as_many_go_as_the_newcomer_needs(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    for name in "abcde":
        policy.offer(name, 2, 1.0)
    assert policy.offer("f", 5, 1.0) == ["a", "b", "c"]
    assert policy.used == 9


def test_a_resident_key_is_weighed_anew(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    policy.offer("a", 4, 1.0)
    policy.offer("b", 4, 1.0)
    assert policy.offer("b", 2, 1.0) == []
    assert policy.used == 6
    assert policy.offer("b", 7, 1.0) == ["a"]
    assert policy.used == 7


def test_a_key_that_grows_is_never_its_own_victim(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    policy.offer("a", 4, 1.0)
    policy.offer("b", 6, 1.0)
    assert policy.offer("a", 10, 1.0) == ["b"]
    assert "a" in policy
    assert policy.used == 10


def test_removing_frees_and_what_is_absent_is_no_matter(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    policy.offer("a", 10, 1.0)
    policy.remove("a")
    policy.remove("a")
    assert (policy.used, len(policy)) == (0, 0)
    assert policy.offer("b", 10, 1.0) == []


def test_touching_what_is_absent_is_an_error(make: Callable[[int], Policy[str]]) -> None:
    with pytest.raises(KeyError):
        make(10).touch("a")


def test_shedding_goes_until_enough_is_gone(make: Callable[[int], Policy[str]]) -> None:
    policy = make(10)
    for name in "abcde":
        policy.offer(name, 2, 1.0)
    assert policy.shed(0) == []
    assert policy.shed(3) == ["a", "b"]
    assert policy.used == 6
    assert policy.shed(100) == ["c", "d", "e"]
    assert policy.used == 0


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
        self.policy = type(self).make(self.capacity)
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


class LruMachine(PolicyMachine):
    make = staticmethod(POLICIES["lru"])


class LfuMachine(PolicyMachine):
    make = staticmethod(POLICIES["lfu"])


TestAnySequenceOnLru = LruMachine.TestCase
TestAnySequenceOnLfu = LfuMachine.TestCase
TestAnySequenceOnLru.settings = TestAnySequenceOnLfu.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)

"""The device tier: its synchronous side, leases, and that policy, memory and counts never part."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache_tiers.device import DeviceTier, Lease
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.memory import HostMemory
from cache_tiers.policy.base import PinRefused
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.worth import WorthPolicy

SIZE = 1000


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


def entry(weight: int = SIZE, *, expires: float = 0.0, tags: tuple[str, ...] = ()) -> Entry:
    made = Entry((bytes(weight - 320),), cost_ms=5.0, created=900.0, expires=expires, tags=tags)
    assert made.weight == weight
    return made


def tier_of(entries: int, clock: Clock | None = None) -> tuple[DeviceTier, HostMemory]:
    memory = HostMemory(entries * SIZE)
    return DeviceTier(memory, LruPolicy(entries * SIZE), clock=clock or Clock()), memory


def leased(tier: DeviceTier, k: CacheKey) -> Lease:
    lease = tier.lookup(k)
    assert lease is not None
    return lease


def test_a_hit_hands_out_the_very_bytes_that_were_stored() -> None:
    tier, _ = tier_of(2)
    stored = entry()
    assert tier.store(key(1), stored)
    with leased(tier, key(1)) as lease:
        assert lease.entry is stored
        assert lease.block.frames is stored.frames
    assert tier.lookup(key(2)) is None
    assert (tier.stats.hits, tier.stats.misses) == (1, 1)


def test_a_hit_counts_for_the_policy() -> None:
    tier, _ = tier_of(2)
    tier.store(key(1), entry())
    tier.store(key(2), entry())
    leased(tier, key(1)).release()
    tier.store(key(3), entry())
    assert key(1) in tier
    assert key(2) not in tier
    assert tier.stats.evictions["capacity"] == 1


def test_a_pinned_entry_stays_until_it_is_unpinned_or_dropped() -> None:
    memory = HostMemory(8 * SIZE)
    tier = DeviceTier(memory, WorthPolicy(4 * SIZE), clock=Clock())
    for n in range(3):
        tier.store(key(n), entry())
    assert tier.pin(key(1))
    assert not tier.pin(key(99))
    with pytest.raises(PinRefused, match="may take 1000"):
        tier.pin(key(2))
    for n in range(10, 40):
        tier.store(key(n), entry())
    assert key(1) in tier
    assert tier.unpin(key(1))
    assert not tier.unpin(key(99))
    for n in range(40, 70):
        tier.store(key(n), entry())
    assert key(1) not in tier
    tier.store(key(1), entry())
    assert tier.pin(key(1))
    assert tier.drop(key(1))
    assert key(1) not in tier


def test_pinned_entries_that_have_expired_make_room_for_pins() -> None:
    clock = Clock()
    tier = DeviceTier(HostMemory(4 * SIZE), WorthPolicy[CacheKey](4 * SIZE, pin_share=0.5), clock=clock)
    for n in (1, 2, 3):
        tier.store(key(n), entry(expires=1010.0 if n == 1 else 0.0))
    assert tier.pin(key(1))
    assert tier.pin(key(2))
    with pytest.raises(PinRefused):
        tier.pin(key(3))
    clock.now = 1010.0
    assert tier.pin(key(3))
    assert [n for n in (1, 2, 3) if key(n) in tier] == [2, 3]
    assert tier.stats.evictions["expired"] == 1


def test_a_policy_without_pins_says_so() -> None:
    tier, _ = tier_of(2)
    tier.store(key(1), entry())
    with pytest.raises(PinRefused, match="LruPolicy has no pins"):
        tier.pin(key(1))
    assert not tier.unpin(key(1))


def test_an_entry_expires_by_the_given_clock_and_is_dropped() -> None:
    clock = Clock()
    tier, memory = tier_of(2, clock)
    tier.store(key(1), entry(expires=1010.0))
    clock.now = 1009.9
    leased(tier, key(1)).release()
    clock.now = 1010.0
    assert tier.lookup(key(1)) is None
    assert tier.stats.evictions["expired"] == 1
    assert memory.free_bytes == 2 * SIZE


def test_what_has_expired_already_is_refused() -> None:
    tier, _ = tier_of(2)
    assert not tier.store(key(1), entry(expires=999.0))
    assert tier.stats.rejected == 1


def test_what_is_too_large_is_refused_and_takes_the_old_answer_with_it() -> None:
    tier, memory = tier_of(2)
    tier.store(key(1), entry())
    tier.store(key(2), entry())
    assert not tier.store(key(1), entry(3 * SIZE))
    assert key(1) not in tier
    assert key(2) in tier, "nothing else is evicted for what cannot be kept"
    assert memory.free_bytes == SIZE


def test_a_dropped_block_lives_until_its_last_lease_is_released() -> None:
    tier, memory = tier_of(2)
    tier.store(key(1), entry())
    first, second = leased(tier, key(1)), leased(tier, key(1))
    block = first.block
    assert tier.drop(key(1))
    assert tier.lookup(key(1)) is None
    assert (tier.stats.bytes, tier.stats.leased_bytes, memory.free_bytes) == (0, SIZE, SIZE)
    first.release()
    first.release()
    assert memory.copy_out(block) == second.entry.frames
    second.release()
    assert (tier.stats.leased_bytes, memory.free_bytes) == (0, 2 * SIZE)
    with pytest.raises(ValueError, match="released"):
        memory.copy_out(block)
    with pytest.raises(ValueError, match="released"):
        _ = second.block


def test_replacing_a_leased_entry_frees_the_old_one_with_its_lease() -> None:
    tier, memory = tier_of(2)
    tier.store(key(1), entry())
    old = leased(tier, key(1))
    newer = entry()
    assert tier.store(key(1), newer)
    assert leased(tier, key(1)).entry is newer
    assert tier.stats.leased_bytes == SIZE
    assert memory.free_bytes == 0
    old.release()
    assert memory.free_bytes == SIZE
    assert tier.stats.evictions["replaced"] == 1


def test_a_slow_reader_of_a_dropped_entry_does_not_stop_storing() -> None:
    tier, memory = tier_of(3)
    for n in range(3):
        tier.store(key(n), entry())
    slow = leased(tier, key(0))
    tier.drop(key(0))
    assert tier.store(key(3), entry()), "another entry made room for the block that is still leased"
    assert [key(n) in tier for n in range(4)] == [False, False, True, True]
    assert memory.free_bytes == 0
    slow.release()
    assert memory.free_bytes == SIZE


def test_an_entry_is_refused_when_its_victims_are_all_in_use() -> None:
    tier, memory = tier_of(1)
    tier.store(key(1), entry())
    in_use = leased(tier, key(1))
    assert not tier.store(key(2), entry())
    assert memory.copy_out(in_use.block) == in_use.entry.frames
    in_use.release()
    assert tier.store(key(2), entry())


def test_a_lease_that_is_lost_is_given_back_and_counted() -> None:
    tier, memory = tier_of(2)
    tier.store(key(1), entry())
    lost = leased(tier, key(1))
    tier.drop(key(1))
    del lost
    gc.collect()
    tier.store(key(2), entry())
    assert tier.stats.abandoned == 1
    assert memory.free_bytes == SIZE


def test_tags_and_conditions_drop_what_they_name() -> None:
    tier, memory = tier_of(5)
    for n in range(4):
        tier.store(key(n, "ab"[n % 2]), entry(tags=(f"s{n // 2}", f"s{n // 2}", "all")))
    assert tier.drop_tag("s0") == 2
    assert tier.drop_tag("s0") == 0
    assert tier.drop_where(lambda k: k.tenant == "a") == 1
    assert tier.stats.evictions == {"capacity": 0, "expired": 0, "deleted": 1, "tag": 2, "replaced": 0}
    assert tier.drop_tag("all") == 1
    assert memory.free_bytes == 5 * SIZE
    assert not tier._by_tag


def test_hit_keys_are_handed_out_once_in_the_order_of_waiting() -> None:
    tier, _ = tier_of(5)
    for n in range(5):
        tier.store(key(n), entry())
    for n in (3, 1, 3, 2, 4):
        leased(tier, key(n)).release()
    tier.drop(key(2))
    assert tier.resident_keys(2) == [key(3), key(1)]
    assert tier.resident_keys(10) == [key(4)]
    assert tier.resident_keys(10) == []


def test_a_second_look_counts_a_hit_but_no_miss_and_a_hold_counts_neither() -> None:
    tier, _ = tier_of(2)
    assert tier.lookup_again(key(1)) is None
    assert tier.hold(key(1)) is None
    tier.store(key(1), entry())
    for lease in (tier.lookup_again(key(1)), tier.hold(key(1))):
        assert lease is not None
        lease.release()
    assert (tier.stats.hits, tier.stats.misses) == (1, 0)


def test_a_policy_larger_than_its_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="2000 bytes of a memory with 1000 free"):
        DeviceTier(HostMemory(1000), LruPolicy(2000), clock=Clock())


def test_host_memory_refuses_what_does_not_fit_and_a_second_release() -> None:
    memory = HostMemory(10)
    block = memory.allocate(8)
    assert block is not None
    memory.copy_in(block, (b"abc",))
    assert memory.copy_out(block) == (b"abc",)
    assert memory.allocate(3) is None
    memory.release(block)
    assert memory.free_bytes == 10
    with pytest.raises(ValueError, match="released before"):
        memory.release(block)
    with pytest.raises(ValueError, match="-1"):
        HostMemory(-1)


class DeviceMachine(RuleBasedStateMachine):
    """Any sequence of stores, look-ups, drops, releases and time; the validator reads the tier's inside."""

    keys = st.integers(0, 5).map(key)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.memory = HostMemory(5 * SIZE + 300)
        self.tier = DeviceTier(self.memory, LfuPolicy(5 * SIZE), clock=self.clock)
        self.leases: list[tuple[Lease, tuple[bytes, ...]]] = []
        self.model: dict[CacheKey, Entry] = {}

    @rule(
        k=keys,
        weight=st.sampled_from([400, 1000, 2000, 6000]),
        ttl=st.sampled_from([0, 0, 5, -1]),
        tags=st.sampled_from([(), ("x",), ("x", "y")]),
    )
    def store(self, k: CacheKey, weight: int, ttl: float, tags: tuple[str, ...]) -> None:
        new = entry(weight, expires=self.clock.now + ttl if ttl else 0.0, tags=tags)
        self.model.pop(k, None)
        if self.tier.store(k, new):
            self.model[k] = new

    @rule(k=keys)
    def lookup(self, k: CacheKey) -> None:
        lease = self.tier.lookup(k)
        if lease is not None:
            assert lease.entry is self.model[k], "what a hit gives is what was stored last"
            assert not 0 < lease.entry.expires <= self.clock.now
            self.leases.append((lease, lease.entry.frames))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.leases:
            lease, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            lease.release()

    @rule(k=keys)
    def drop(self, k: CacheKey) -> None:
        resident = k in self.tier
        assert self.tier.drop(k) is resident
        self.model.pop(k, None)

    @rule(tag=st.sampled_from(["x", "y"]))
    def drop_tag(self, tag: str) -> None:
        self.tier.drop_tag(tag)
        self.model = {k: e for k, e in self.model.items() if tag not in e.tags}

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def in_step(self) -> None:
        tier, stats = self.tier, self.tier.stats
        assert set(tier._residents) <= set(self.model)
        assert stats.entries == len(tier._residents) == len(tier._policy)
        assert all(k in tier._policy for k in tier._residents)
        assert stats.bytes == tier._policy.used == sum(r.block.size for r in tier._residents.values())
        assert stats.bytes + stats.leased_bytes + self.memory.free_bytes == 5 * SIZE + 300
        assert stats.stores == stats.entries + sum(stats.evictions.values())
        assert {k for keys in tier._by_tag.values() for k in keys} == {
            k for k, r in tier._residents.items() if r.entry.tags
        }
        assert set(tier._hit) <= set(tier._residents)
        for lease, frames in self.leases:
            assert self.memory.copy_out(lease.block) is frames, "nothing is freed under a lease"


TestAnySequence = DeviceMachine.TestCase
TestAnySequence.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

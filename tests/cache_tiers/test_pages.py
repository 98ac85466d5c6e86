"""Paged memory: whatever comes and goes, what is free can be allocated, and what lies there stays what it was."""

from __future__ import annotations

import random
import threading
from array import array
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.memory import HostMemory
from cache_tiers.pages import PagedBlock, PagedMemory
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.read_through import ReadThrough

PAGE = 16


class Row:
    """Pages of host memory for bytes."""

    def __init__(self, count: int, page_bytes: int = PAGE) -> None:
        self.count, self.page_bytes = count, page_bytes
        self.data = bytearray(count * page_bytes)

    def write(self, pages: array[int], value: bytes) -> tuple[int, ...]:
        if not 0 < len(value) <= len(pages) * self.page_bytes:
            raise ValueError(f"{len(value)} bytes do not fit into {len(pages)} pages")
        for place, page in enumerate(pages):
            part = value[place * self.page_bytes : (place + 1) * self.page_bytes]
            self.data[page * self.page_bytes : page * self.page_bytes + len(part)] = part
        return (len(value),)

    def read(self, pages: array[int], shape: tuple[int, ...]) -> bytes:
        width = self.page_bytes
        return b"".join(self.data[page * width : (page + 1) * width] for page in pages)[: shape[0]]


def key(n: int) -> CacheKey:
    return CacheKey("t", n.to_bytes(32, "big"))


def placed(memory: PagedMemory[bytes], value: bytes) -> PagedBlock:
    block = memory.allocate(memory.footprint(len(value)))
    assert block is not None
    memory.copy_in(block, value)
    return block


def test_a_value_takes_whole_pages_and_comes_back_as_it_was() -> None:
    memory = PagedMemory(Row(4))
    assert [memory.footprint(weight) for weight in (0, 1, 16, 17, 64)] == [0, 16, 16, 32, 64]
    block = placed(memory, b"a value of more than one page")
    assert (block.size, memory.free_bytes) == (32, 32)
    assert memory.copy_out(block) == b"a value of more than one page"
    memory.release(block)
    assert memory.free_bytes == 64


def test_pages_far_apart_make_one_block() -> None:
    memory = PagedMemory(Row(6))
    blocks = [placed(memory, bytes([n]) * PAGE) for n in range(6)]
    for block in blocks[::2]:
        memory.release(block)
    scattered = placed(memory, bytes(range(48)))
    assert scattered.pages is not None
    assert any(abs(a - b) > 1 for a, b in pairwise(scattered.pages)), "no two free pages were neighbours"
    assert memory.copy_out(scattered) == bytes(range(48))
    assert [memory.copy_out(block) for block in blocks[1::2]] == [bytes([n]) * PAGE for n in (1, 3, 5)]
    assert memory.free_bytes == 0


def test_what_cannot_be_is_refused() -> None:
    memory = PagedMemory(Row(2))
    assert memory.allocate(33) is None
    with pytest.raises(ValueError, match="-1"):
        memory.allocate(-1)
    block = memory.allocate(16)
    assert block is not None
    with pytest.raises(ValueError, match="17 bytes do not fit into 1 pages"):
        memory.copy_in(block, bytes(17))
    memory.release(block)
    with pytest.raises(ValueError, match="released before"):
        memory.release(block)
    for use in (lambda: memory.copy_out(block), lambda: memory.copy_in(block, b"x")):
        with pytest.raises(ValueError, match="released"):
            use()
    assert memory.free_bytes == 32


def test_threads_never_share_a_page() -> None:
    memory = PagedMemory(Row(64))
    wrong: list[str] = []

    def work(mark: int) -> None:
        for turn in range(300):
            value = bytes([mark]) * (1 + (turn * 7 + mark) % 200)
            block = memory.allocate(memory.footprint(len(value)))
            if block is not None:
                memory.copy_in(block, value)
                if memory.copy_out(block) != value:
                    wrong.append(f"{mark} at {turn}")
                memory.release(block)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.free_bytes == 64 * PAGE


class PagesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = PagedMemory(Row(32))
        self.held: list[tuple[PagedBlock, bytes]] = []

    @rule(value=st.binary(min_size=1, max_size=200))
    def place(self, value: bytes) -> None:
        size = self.memory.footprint(len(value))
        block = self.memory.allocate(size)
        assert (block is None) == (size > 32 * PAGE - sum(b.size for b, _ in self.held)), "free means allocatable"
        if block is not None:
            self.memory.copy_in(block, value)
            self.held.append((block, value))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            self.memory.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))[0])

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.memory.free_bytes == 32 * PAGE - sum(block.size for block, _ in self.held)
        for block, value in self.held:
            assert self.memory.copy_out(block) == value


TestAnySequence = PagesMachine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_hundred_thousand_inserts_of_mixed_sizes_leave_nothing_behind() -> None:
    """`python -m bench.device` does it a million times, on a device's pages, and measures."""
    row = Row(4096, 64)
    memory, rng = PagedMemory(row), random.Random(5)
    total = memory.free_bytes
    tier = DeviceTier(memory, LfuPolicy(total - total // 8), clock=lambda: 0.0)
    leases = []
    largest = total - total // 8
    for n in range(100_000):
        size = min(int(rng.lognormvariate(7.5, 1.2)) + 1, 32_000)
        block = memory.allocate(memory.footprint(size))
        if block is not None:
            tier.store(key(n % 5000), Entry((), 1.0, 0.0), block)
        if n % 3 == 0 and (lease := tier.lookup(key(rng.randrange(5000)))) is not None:
            leases.append(lease)
        if len(leases) > 5:
            leases.pop(rng.randrange(6)).release()
        if n % 10_000 == 0:
            assert tier.stats.bytes + tier.stats.leased_bytes + memory.free_bytes == total
            whole = memory.allocate(memory.free_bytes)
            assert whole is not None, "all that is free is one block, at any time"
            memory.release(whole)
    assert tier.stats.evictions["capacity"] > 10_000
    for lease in leases:
        lease.release()
    block = memory.allocate(memory.free_bytes)
    assert block is not None
    memory.release(block)
    tier.drop_where(lambda _: True)
    assert memory.free_bytes == total
    full = memory.allocate(largest)
    assert full is not None
    assert tier.store(key(0), Entry((), 1.0, 0.0), full), "the largest that could ever be placed can be placed now"


def test_a_block_that_the_tier_does_not_keep_goes_back() -> None:
    memory = PagedMemory(Row(8))
    tier = DeviceTier(memory, LfuPolicy(4 * PAGE), clock=lambda: 10.0)
    late, large = memory.allocate(PAGE), memory.allocate(5 * PAGE)
    assert late is not None
    assert large is not None
    assert not tier.store(key(1), Entry((), 1.0, 0.0, expires=9.0), late)
    assert not tier.store(key(1), Entry((), 1.0, 0.0), large)
    assert (tier.stats.rejected, memory.free_bytes) == (2, 8 * PAGE)


def test_pages_of_a_dropped_value_are_kept_from_others_while_it_is_read() -> None:
    memory = PagedMemory(Row(4))
    tier = DeviceTier(memory, LfuPolicy(2 * PAGE), clock=lambda: 0.0)
    tier.store(key(1), Entry((), 1.0, 0.0), placed(memory, b"one" * 10))
    lease = tier.lookup(key(1))
    assert lease is not None
    tier.store(key(2), Entry((), 1.0, 0.0), placed(memory, b"two" * 10))
    assert key(1) not in tier
    assert (memory.free_bytes, memory.allocate(PAGE)) == (0, None)
    assert memory.copy_out(lease.block) == b"one" * 10
    lease.release()
    assert memory.free_bytes == 2 * PAGE


def test_what_is_erased_from_the_answers_leaves_the_tier_beside_them() -> None:
    memory = PagedMemory(Row(8))
    beside = DeviceTier(memory, LfuPolicy(8 * PAGE), clock=lambda: 0.0)
    cache = ReadThrough(DeviceTier(HostMemory(100), LfuPolicy(100), clock=lambda: 0.0), max_entry_bytes=100)
    cache.beside = beside
    for n, (tenant, tag) in enumerate([("a", "x"), ("a", "y"), ("b", "x"), ("b", "z")]):
        entry = Entry((), 1.0, 0.0, tags=(tag,))
        assert beside.store(CacheKey(tenant, n.to_bytes(32, "big")), entry, placed(memory, b"mel"))
    assert cache.evict_local("x") == 0, "only answers are counted"
    assert beside.stats.entries == 2
    cache.drop_where(lambda k: k.tenant == "a")
    assert beside.stats.entries == 1
    cache.drop_where(lambda _: True)
    assert memory.free_bytes == 8 * PAGE

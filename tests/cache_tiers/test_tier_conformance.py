"""What every tier and every wrapper of one promises, whatever holds the entries."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.tier import Tier
from tests.cache_tiers.tiers import tier_factories

NOW = time.time()
ENTRY = Entry(
    (b"first frame", b"", b"\x00\xff" * 500), cost_ms=12.5, created=NOW, expires=NOW + 3600, tags=("s1", "v1")
)


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


@pytest.fixture(params=sorted(tier_factories))
async def tier(request: pytest.FixtureRequest) -> AsyncIterator[Tier]:
    async with tier_factories[request.param]() as tier:
        yield tier


async def test_the_tier_has_a_name(tier: Tier) -> None:
    assert tier.name in ("device", "redis")


async def test_an_absent_key_is_a_miss(tier: Tier) -> None:
    assert await tier.get(key(1)) is None


async def test_what_was_put_comes_back_whole(tier: Tier) -> None:
    assert await tier.put(key(1), ENTRY)
    got = await tier.get(key(1))
    assert got is not None
    assert got.frames == ENTRY.frames
    assert got.cost_ms == pytest.approx(ENTRY.cost_ms, rel=1e-3)
    assert got.created == pytest.approx(ENTRY.created, abs=1e-3)
    assert got.expires == pytest.approx(ENTRY.expires, abs=1)
    assert sorted(got.tags) == ["s1", "v1"]


async def test_a_second_put_replaces_the_first(tier: Tier) -> None:
    await tier.put(key(1), ENTRY)
    assert await tier.put(key(1), replace(ENTRY, frames=(b"newer",), tags=("s2",)))
    got = await tier.get(key(1))
    assert got is not None
    assert got.frames == (b"newer",)
    await tier.evict("s1")
    assert await tier.get(key(1)) is not None, "the tags of the replaced entry no longer count"


async def test_an_expired_entry_is_a_miss(tier: Tier) -> None:
    await tier.put(key(1), replace(ENTRY, created=NOW - 100, expires=NOW - 50))
    assert await tier.get(key(1)) is None


async def test_putting_an_expired_entry_hides_the_one_before(tier: Tier) -> None:
    await tier.put(key(1), ENTRY)
    await tier.put(key(1), replace(ENTRY, created=NOW - 100, expires=NOW - 50))
    assert await tier.get(key(1)) is None


async def test_an_entry_without_tags_or_expiry_is_kept(tier: Tier) -> None:
    await tier.put(key(1), replace(ENTRY, expires=0.0, tags=()))
    assert await tier.get(key(1)) is not None


async def test_delete_drops_one_entry_and_says_whether_it_was_there(tier: Tier) -> None:
    await tier.put(key(1), ENTRY)
    await tier.put(key(2), ENTRY)
    assert await tier.delete(key(1))
    assert not await tier.delete(key(1))
    assert await tier.get(key(1)) is None
    assert await tier.get(key(2)) is not None


async def test_evict_drops_what_carries_the_tag_and_counts_it(tier: Tier) -> None:
    await tier.put(key(1), replace(ENTRY, tags=("s1", "v1")))
    await tier.put(key(2), replace(ENTRY, tags=("s2", "v1")))
    await tier.put(key(3), replace(ENTRY, tags=("s1", "v2")))
    await tier.put(key(4), replace(ENTRY, tags=()))
    assert await tier.evict("s1") == 2
    assert await tier.evict("s1") == 0
    assert [await tier.get(key(n)) is not None for n in (1, 2, 3, 4)] == [False, True, False, True]


async def test_an_evicted_tag_may_be_used_again(tier: Tier) -> None:
    await tier.put(key(1), ENTRY)
    await tier.evict("s1")
    assert await tier.put(key(1), ENTRY)
    assert await tier.get(key(1)) is not None
    assert await tier.evict("s1") == 1


async def test_tenants_with_one_digest_do_not_meet(tier: Tier) -> None:
    await tier.put(key(1, "a"), ENTRY)
    assert await tier.get(key(1, "b")) is None
    assert not await tier.delete(key(1, "b"))
    assert await tier.get(key(1, "a")) is not None

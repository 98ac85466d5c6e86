"""L2 on a real server: one round trip or a miss within the deadline, sealed, evictable, and true hints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_tiers.codec import (
    Malformed,
    pack_entry,
    pack_names,
    pack_record,
    unpack_entry,
    unpack_names,
    unpack_record,
)
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.events import INSERTED, REMOVED, Event, tenant_tag
from cache_tiers.link import Names, RedisLink, Refused, Unavailable
from cache_tiers.redis import RedisTier
from cache_tiers.write_behind import Write
from tests.cache_tiers.conftest import Clock, MakeGateway, Server, gateway_on, until

ENTRY = Entry((b"first", b"", b"\x00" * 1000), cost_ms=12.5, created=time.time(), tags=("s1", "v1"))
OTHER_MASTER = bytes(range(1, 33))


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


def put_with_record(tier: RedisTier, key: CacheKey, record: bytes = b"record") -> None:
    tier.put_behind(key, ENTRY)
    tier.put_record_behind(key, ENTRY, record)


# Bytes.

ENTRIES = st.builds(
    Entry,
    frames=st.lists(st.binary(max_size=50), max_size=4).map(tuple),
    cost_ms=st.floats(0, 1e6),
    created=st.floats(0, 1e10),
    expires=st.floats(0, 1e10),
    tags=st.lists(st.text(max_size=8), max_size=3).map(tuple),
)
EPOCHS = st.lists(st.tuples(st.text(max_size=8), st.integers(0, 2**60)), max_size=3).map(lambda of: Epochs(tuple(of)))


@given(ENTRIES, EPOCHS)
def test_an_entry_comes_back_from_its_bytes(entry: Entry, epochs: Epochs) -> None:
    assert unpack_entry(pack_entry(entry, epochs)) == (entry, epochs)


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed_or_an_entry_and_never_a_crash(data: bytes) -> None:
    for unpack in (unpack_entry, unpack_record, unpack_names):
        with contextlib.suppress(Malformed):
            unpack(data)  # type: ignore[operator]


def test_a_cut_entry_is_malformed() -> None:
    data = pack_entry(ENTRY, Epochs((("s1", 3),)))
    for size in range(len(data)):
        with pytest.raises(Malformed):
            unpack_entry(data[:size])


def test_records_and_names_come_back() -> None:
    epochs = Epochs((("s1", 3),))
    assert unpack_record(pack_record(b"bits", epochs)) == (b"bits", epochs)
    keys = [(key(1, "tenant: {odd}"), True), (key(2, ""), False)]
    assert unpack_names(pack_names(keys)) == keys


@given(st.text(max_size=20), st.binary(min_size=1, max_size=40), st.binary(min_size=12, max_size=12))
def test_names_in_redis_give_the_key_back(tenant: str, digest: bytes, stamp: bytes) -> None:
    names, named = Names("p:1"), CacheKey(tenant, digest)
    assert names.key_of(names.value(named).encode()) == named
    assert names.key_of(names.record(named).encode()) == named
    field = names.membership(named, stamp)
    assert names.of_membership(field, b"") == (field, named, stamp)
    header = b"before the nonce" + stamp
    assert names.of_membership(field[:-12], header) == (field[:-12], named, stamp), "as the first version wrote it"


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_garbage_in_a_tag_names_nothing_and_never_crashes(field: bytes, content: bytes) -> None:
    assert Names().of_membership(field, content).field == field


def test_names_that_are_not_ours_are_no_keys() -> None:
    for name in (b"refrain:v:", b"refrain:v:{zz}:t", b"refrain:v:{00", b"other", b"\xff\xfe"):
        assert Names().key_of(name) is None
    with pytest.raises(ValueError, match="prefix"):
        Names("a*b")


# Contract 1: two kinds of data.


async def test_contract_1_values_have_a_ttl_with_jitter_and_never_beyond_their_expiry(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway(ttl=1000.0)).tier
    names = Names()
    for n in range(40):
        put_with_record(tier, key(n), b"record")
    await tier.drain()
    ttls = [server.client.pttl(names.value(key(n))) for n in range(40)]
    assert len(set(ttls)) > 10
    assert 890_000 < min(ttls) < max(ttls) <= 1_100_000
    assert 890_000 < server.client.pttl(names.record(key(0))) <= 1_100_000
    await tier.put(key(50), replace(ENTRY, expires=time.time() + 10))
    assert 0 < server.client.pttl(names.value(key(50))) <= 10_000


async def test_contract_1_a_full_server_evicts_values_and_keeps_control_records(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    own_server.client.config_set("maxmemory", 8 << 20)
    gateway = await make_gateway(on=own_server)
    tier, names = gateway.tier, gateway.link.names
    await gateway.gateways.invalidate("erased before")
    big = replace(ENTRY, frames=(os.urandom(100_000),))  # which no packing makes smaller
    for n in range(300):
        assert tier.put_behind(key(n), big)
        if n % 50 == 49:
            await tier.drain()
    await tier.drain()
    held = sum(own_server.client.exists(names.value(key(n))) for n in range(300))
    assert 10 < held < 100
    assert tier.stats.stored == 300
    assert own_server.client.hget(names.epochs, "erased before") == b"1"
    assert own_server.client.hlen(names.data_keys("t")) == 2
    assert own_server.client.hlen(names.tag("s1")) == 300
    own_server.client.config_set("maxmemory", 0)
    held = sum(own_server.client.exists(names.value(key(n))) for n in range(300))
    await tier.census.take()
    assert own_server.client.hlen(names.tag("s1")) == held, "members whose entry is gone are pruned"
    assert len(tier.filter) == held


# Contract 2: heat flows down.


async def test_contract_2_touching_makes_keys_hotter_in_redis(server: Server, make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    for n in range(3):
        await tier.put(key(n), ENTRY)
    for _ in range(200):  # Redis counts at random: less often the hotter a key is
        assert await tier.touch([key(0), key(9)]) == 1
    heat = [server.client.object("freq", Names().value(key(n))) for n in range(3)]
    assert heat[0] > max(heat[1:])
    assert tier.stats.touched == 200


# Contract 3: hints.


async def test_contract_3_the_filter_follows_own_writes_and_those_of_others(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    for gateway in (a, b):
        await gateway.tier.census.done()
        assert not gateway.tier.may_hold(key(1))
    await a.tier.put(key(1), ENTRY)
    assert a.tier.may_hold(key(1))
    await until(lambda: b.tier.filter.peek(key(1).digest))
    assert not b.tier.may_hold(key(2))


async def test_contract_3_the_filter_is_rebuilt_at_the_start_and_says_maybe_until_then(
    make_gateway: MakeGateway,
) -> None:
    a = await make_gateway("a", filter_capacity=100)
    for n in range(1000):
        a.tier.put_behind(key(n), ENTRY)
    await a.tier.drain()
    b = await make_gateway("b", start=False, filter_capacity=100)
    assert b.tier.may_hold(key(5000))
    await b.start()
    await b.tier.census.done()
    assert all(b.tier.may_hold(key(n)) for n in range(1000))
    assert sum(b.tier.may_hold(key(n)) for n in range(5000, 6000)) < 20


async def test_contract_3_a_stale_hint_costs_one_lookup_and_is_counted(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    await tier.census.done()
    await tier.put(key(1), ENTRY)
    server.client.delete(Names().value(key(1)))
    assert tier.may_hold(key(1))
    assert await tier.get(key(1)) is None
    assert tier.filter.stats.false_positives == 1
    await tier.census.take()
    assert not tier.may_hold(key(1))


async def test_contract_3_a_false_negative_is_counted_where_it_is_seen(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    await b.tier.census.done()
    await b.events.close()
    await a.tier.put(key(1), ENTRY)
    assert not b.tier.may_hold(key(1))
    assert await b.tier.put(key(1), ENTRY)
    assert b.tier.filter.stats.false_negatives == 1
    assert b.tier.stats.replaced == 1


async def test_contract_3_what_is_written_while_a_census_goes_by_is_known_after_it(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    await tier.census.done()
    steps = tier._writer._steps
    write = steps.write

    async def late(*args: Any) -> Any:
        await tier.census.take()
        return await write(*args)

    steps.write = late  # type: ignore[method-assign]
    assert await tier.put(key(1), ENTRY)
    await until(lambda: tier.may_hold(key(1)))


async def test_a_census_that_is_answered_with_nonsense_is_taken_again(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(start=False)
    call, nonsense = gateway.link.call, 2

    async def answer(*command: Any, **settings: Any) -> Any:
        nonlocal nonsense
        if command[0] == "SCAN" and nonsense:
            nonsense -= 1
            return b"OK"
        return await call(*command, **settings)

    gateway.link.call = answer  # type: ignore[method-assign]
    gateway.tier.census._retry_after = 0.01
    await gateway.start()
    await until(lambda: not gateway.tier.filter.rebuilding)
    assert nonsense == 0


async def test_a_tag_that_cannot_be_cleared_is_left_to_the_next_census(
    server: Server, make_gateway: MakeGateway
) -> None:
    """Another application's key, or, which is none, another prefix that begins as a tag's name does."""
    names = Names()
    for name in (names.tag("x"), Names(names.tags + "v").value(key(1))):
        server.client.set(name, b"no hash")
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    server.client.delete(names.value(key(1)))
    await gateway.tier.census.take()
    await until(lambda: gateway.tier.census.pruned == 2)  # those of the tags beside it
    assert server.client.get(names.tag("x")) == b"no hash"


async def test_contract_3_a_periodic_census_lets_the_old_filter_answer(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway(census_every=0.02)).tier
    await tier.put(key(1), ENTRY)
    await tier.census.done()
    taken = tier.census.taken
    await until(lambda: tier.census.taken > taken + 1)
    assert not tier.may_hold(key(2))
    assert tier.may_hold(key(1))


async def test_other_data_on_the_same_server_is_not_touched_or_counted(
    server: Server, make_gateway: MakeGateway
) -> None:
    server.client.mset({f"other:{n}": "x" for n in range(50)})
    tier = (await make_gateway()).tier
    await tier.put(key(1), ENTRY)
    await tier.census.take()
    assert len(tier.filter) == 1
    await tier.erase("s1")
    assert server.client.exists(*(f"other:{n}" for n in range(50))) == 50


# Contract 6: delete only what is ours.


@pytest.mark.parametrize(
    ("change", "survives"),
    [
        (lambda value: b"garbage of somebody", True),
        (lambda value: b"", True),
        (lambda value: value[:10], True),
        (lambda value: value[:2] + b"\x09" + value[3:], True),
        (lambda value: value[:3] + b"\x00" * 8 + value[11:], True),
        (lambda value: value[:11] + bytes(12) + value[23:], False),
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), False),
        (lambda value: value[:-20], False),
        (lambda value: value + b"x", False),
    ],
    ids=["garbage", "empty", "header cut", "schema", "key id", "nonce", "tag", "cut", "longer"],
)
async def test_contract_6_a_value_that_fails_is_a_miss_and_deleted_only_if_ours(
    server: Server, make_gateway: MakeGateway, change: object, survives: bool
) -> None:
    tier = (await make_gateway()).tier
    await tier.put(key(1), ENTRY)
    name = Names().value(key(1))
    server.client.set(name, change(server.client.get(name)))  # type: ignore[operator]
    assert await tier.get(key(1)) is None
    assert bool(server.client.exists(name)) == survives
    assert (tier.stats.foreign, tier.stats.tampered) == ((1, 0) if survives else (0, 1))
    assert await tier.put(key(1), ENTRY)
    assert await tier.get(key(1)) == ENTRY


async def test_contract_6_a_value_moved_to_another_key_or_tenant_is_a_miss(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    await tier.put(key(1), ENTRY)
    for moved in (key(2), key(1, "other")):
        server.client.copy(Names().value(key(1)), Names().value(moved))
        assert await tier.get(moved) is None
    assert await tier.get(key(1)) == ENTRY


async def test_contract_6_gateways_with_different_master_keys_leave_each_others_values_alone(
    server: Server, make_gateway: MakeGateway
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b", masters=[OTHER_MASTER])
    await a.tier.put(key(1), ENTRY)
    assert await b.tier.get(key(1)) is None
    assert await a.tier.get(key(1)) == ENTRY
    await a.keyring.rotate(OTHER_MASTER)
    b.keyring.forget_all()
    assert await b.tier.get(key(1)) == ENTRY


async def test_a_key_of_the_wrong_type_is_a_miss_and_left_alone(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    server.client.rpush(Names().value(key(1)), "x")
    assert await gateway.tier.get(key(1)) is None
    assert server.client.llen(Names().value(key(1))) == 1
    assert not gateway.link.breaker.open


# Writing behind, records, tags.


async def test_a_get_is_one_round_trip(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.tier.census.done()
    await gateway.tier.put(key(1), ENTRY)
    before = gateway.link.stats.calls
    assert await gateway.tier.get(key(1)) is not None
    assert await gateway.tier.get(key(2)) is None
    assert gateway.link.stats.calls == before + 2


async def test_a_full_queue_drops_and_counts_and_the_rest_is_written(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway(queue_entries=10)).tier
    taken = [tier.put_behind(key(n), ENTRY) for n in range(15)]
    assert taken == [True] * 10 + [False] * 5
    assert tier.stats.dropped == 5
    await tier.drain()
    assert tier.stats.stored == 10
    assert tier.put_behind(key(20), ENTRY)


async def test_the_queue_is_bounded_in_bytes(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway(queue_bytes=5 * ENTRY.weight)).tier
    assert [tier.put_behind(key(n), ENTRY) for n in range(7)] == [True] * 5 + [False] * 2
    await tier.drain()
    assert [tier.put_behind(key(n), ENTRY) for n in range(5)] == [True] * 5


async def test_too_large_an_entry_is_not_stored(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway(max_value_bytes=5000)).tier
    large = replace(ENTRY, frames=(bytes(5001),))
    assert not await tier.put(key(1), large)
    assert not tier.put_behind(key(1), large)
    assert tier.stats.too_large == 2


async def test_a_large_entry_comes_back_whole(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    large = replace(ENTRY, frames=(os.urandom(3 << 20), os.urandom(1 << 20)))
    assert await tier.put(key(1), large)
    assert await tier.get(key(1)) == large


async def test_closing_writes_what_waits(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    for n in range(200):
        gateway.tier.put_behind(key(n), ENTRY)
    await gateway.tier.close()
    assert sum(server.client.exists(Names().value(key(n))) for n in range(200)) == 200


async def test_an_entry_that_expired_by_the_clock_is_a_miss(make_gateway: MakeGateway) -> None:
    clock = Clock(time.time())
    tier = (await make_gateway(now=clock)).tier
    await tier.put(key(1), replace(ENTRY, expires=clock.now + 100))
    assert await tier.get(key(1)) is not None
    clock.now += 100
    assert await tier.get(key(1)) is None
    assert tier.stats.expired == 1


async def test_records_are_kept_sealed_beside_their_entries_and_found_again(
    server: Server, make_gateway: MakeGateway
) -> None:
    a = await make_gateway("a")
    expected = {}
    for n in range(700):
        expected[key(n, f"tenant {n % 3}")] = record = f"record {n}".encode()
        put_with_record(a.tier, key(n, f"tenant {n % 3}"), record)
    a.tier.put_behind(key(5000), ENTRY)
    await a.tier.drain()
    assert b"record" not in server.client.get(Names().record(key(0, "tenant 0")))
    server.client.set(Names().record(key(6000)), "garbage")
    b = await make_gateway("b")
    assert {found: record async for found, record in b.tier.records()} == expected
    assert await b.tier.get_record(key(4, "tenant 1")) == b"record 4"
    assert await b.tier.get_record(key(5000)) is None


async def test_a_write_without_a_record_keeps_the_one_there_is(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    put_with_record(tier, key(1), b"record")
    tier.put_behind(key(1), ENTRY)
    await tier.drain()
    assert await tier.get_record(key(1)) == b"record"


async def test_a_record_stays_as_long_as_its_value(server: Server, make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    await tier.put(key(1), ENTRY)
    server.client.pexpire(Names().value(key(1)), 5000)
    tier.put_record_behind(key(1), ENTRY, b"record")
    await tier.drain()
    assert await tier.get_record(key(1)) == b"record"
    assert 0 < server.client.pttl(Names().record(key(1))) <= 5000


async def test_a_record_is_written_only_beside_the_entry_it_was_made_from(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    newer = replace(ENTRY, frames=(b"newer",))
    for n in range(3):
        await tier.put(key(n), ENTRY)
    await tier.delete(key(0))
    await tier.put(key(1), newer)
    server.client.set(Names().value(key(2)), "garbage", keepttl=True)
    for n in range(4):
        tier.put_record_behind(key(n), ENTRY, b"record")
    await tier.drain()
    assert [await tier.get_record(key(n)) for n in range(4)] == [None] * 4
    assert [await tier.get(key(n)) for n in range(4)] == [None, newer, None, None], "and brings nothing back"


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_record_is_not_written_when_its_value_goes_between_looking_and_writing(
    server: Server, make_gateway: MakeGateway, replaced: bool
) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    seal = gateway.keyring.seal

    async def slow_seal(*args: Any) -> bytes:
        server.client.unlink(Names().value(key(1)))
        if replaced:
            server.client.set(Names().value(key(1)), "another gateway's", ex=100)
        return await seal(*args)

    gateway.keyring.seal = slow_seal  # type: ignore[method-assign, assignment]
    gateway.tier.put_record_behind(key(1), ENTRY, b"record")
    await gateway.tier.drain()
    assert server.client.exists(Names().value(key(1))) == replaced
    assert not server.client.exists(Names().record(key(1)))
    assert gateway.tier.stats.write_failures == 0


async def test_a_record_goes_with_its_tag_even_if_its_value_was_evicted_before(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    for n in range(2):
        put_with_record(tier, key(n))
    await tier.drain()
    server.client.delete(Names().value(key(0)))
    await tier.census.take()
    assert not server.client.exists(Names().record(key(0))), "as does one whose membership is pruned"
    server.client.delete(Names().value(key(1)))
    assert await tier.erase("s1") == 0
    assert not server.client.exists(Names().record(key(1)))


async def test_records_are_read_beside_requests_and_may_take_longer(make_gateway: MakeGateway) -> None:
    a = await make_gateway("a")
    put_with_record(a.tier, key(1))
    await a.tier.drain()
    hurried = await make_gateway("b", deadline=1e-6, failures=1_000_000)
    assert [found async for found in hurried.tier.records()] == [(key(1), b"record")]
    assert await hurried.tier.get_record(key(1)) == b"record"


async def test_what_waits_to_be_written_is_not_written_after_a_delete(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    for n in range(200):
        put_with_record(tier, key(n % 100))
    assert not await tier.delete(key(1))
    await tier.drain()
    assert await tier.get(key(1)) is None
    assert await tier.get_record(key(1)) is None
    assert await tier.get(key(2)) == ENTRY
    assert tier._queue._bytes == 0
    assert tier.put_behind(key(1), ENTRY)
    assert await tier.delete(key(1)) is False, "all that waited was that"
    await tier.drain()
    assert await tier.put(key(1), ENTRY)


async def test_a_delete_waits_for_the_write_that_is_under_way(make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    write, begun, go = tier._queue._write, asyncio.Event(), asyncio.Event()

    async def slow(batch: Sequence[Write]) -> None:
        begun.set()
        await go.wait()
        await write(batch)

    tier._queue._write = slow
    tier.put_behind(key(1), ENTRY)
    await begun.wait()
    tier.put_behind(key(1), ENTRY)
    deleting = asyncio.create_task(tier.delete(key(1)))
    assert await tier.delete(key(2)) is False, "another key's delete does not wait"
    go.set()
    assert await deleting
    await tier.drain()
    assert await tier.get(key(1)) is None


async def test_what_waits_to_be_written_is_not_written_after_another_gateways_delete(
    server: Server, make_gateway: MakeGateway
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    write, begun, go, heard = b.tier._queue._write, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(batch: Sequence[Write]) -> None:
        begun.set()
        await go.wait()
        await write(batch)

    b.tier._queue._write = slow
    b.events.on(REMOVED, lambda event: heard.set())
    b.tier.put_behind(key(1), ENTRY)
    await begun.wait()
    put_with_record(b.tier, key(2))
    b.tier.put_behind(key(3), ENTRY)
    await a.tier.erase_key(key(2))
    await heard.wait()
    go.set()
    await b.tier.drain()
    assert [await a.tier.get(key(n)) for n in (1, 2, 3)] == [ENTRY, None, ENTRY]
    assert b.tier._queue._bytes == 0


async def test_a_tenant_whose_data_keys_cannot_be_had_costs_the_others_no_write(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier = (await make_gateway()).tier
    for n in range(3):
        for tenant in ("well", "broken"):
            put_with_record(tier, key(n, tenant))
    server.client.set(Names().data_keys("broken"), b"no hash")
    await tier.drain()
    assert [await tier.get(key(n, "well")) for n in range(3)] == [ENTRY] * 3
    assert [await tier.get_record(key(n, "well")) for n in range(3)] == [b"record"] * 3
    assert tier.stats.write_failures == 3
    server.client.delete(Names().data_keys("broken"))
    assert await tier.put(key(0, "broken"), ENTRY)
    tier._keyring.forget_all()
    server.client.set(Names().data_keys("broken"), b"no hash")
    tier.put_record_behind(key(0, "broken"), ENTRY, b"record")
    tier.put_record_behind(key(0, "well"), ENTRY, b"another")
    await tier.drain()
    assert await tier.get_record(key(0, "well")) == b"another"
    assert tier.stats.write_failures == 4


async def test_erasing_a_tenant_counts_and_removes_only_its_own(server: Server, make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    tenants = ("a*", "ab", "[a]", "a?:a*", "")
    for tenant in tenants:
        for n in range(3):
            tier.put_behind(key(n, tenant), ENTRY)
            tier.put_record_behind(key(n, tenant), ENTRY, b"record")
    await tier.drain()
    for i, tenant in enumerate(tenants):
        assert await tier.erase(tenant_tag(tenant)) == 3
        left = {found.tenant for name in server.client.keys("refrain:[vr]:*") if (found := Names().key_of(name))}
        assert left == set(tenants[i + 1 :])


async def test_peers_hear_of_inserts_with_records_and_of_removals(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b", start=False)
    heard: list[tuple[str, CacheKey, bool]] = []

    def note(event: Event) -> None:
        heard.extend((event.kind, *name) for name in unpack_names(event.payload))

    b.events.on(INSERTED, note)
    b.events.on(REMOVED, note)
    await b.start()
    put_with_record(a.tier, key(1), b"record")
    a.tier.put_behind(key(2), ENTRY)
    await a.tier.drain()
    await a.tier.delete(key(2))
    await a.tier.evict("s1")
    await until(lambda: len(heard) >= 5)
    assert heard[:2] == [(INSERTED, key(1), False), (INSERTED, key(2), False)]
    assert heard[2:4] == [(INSERTED, key(1), True), (REMOVED, key(2), False)]
    assert (REMOVED, key(1), False) in heard[4:]


async def test_contract_6_what_the_first_version_noted_under_a_tag_is_evicted_and_pruned(
    server: Server, make_gateway: MakeGateway
) -> None:
    tier, names = (await make_gateway()).tier, Names()
    for n in range(2):
        await tier.put(key(n), replace(ENTRY, tags=("s1",)))
    header = {names.membership(key(n), b""): server.client.get(names.value(key(n)))[:23] for n in range(2)}
    server.client.delete(names.tag("s1"))
    server.client.hset(names.tag("s1"), mapping=header)
    await tier.census.take()
    assert server.client.hlen(names.tag("s1")) == 2
    server.client.delete(names.value(key(0)))
    await tier.census.take()
    assert server.client.hlen(names.tag("s1")) == 1
    assert await tier.erase("s1") == 1
    assert not server.client.exists(names.tag("s1"), names.value(key(1)))


async def test_a_tag_forgets_the_value_that_another_replaced(server: Server, make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    for _ in range(3):
        assert await tier.put(key(1), ENTRY)
    assert server.client.hlen(Names().tag("s1")) == 1
    server.client.delete(Names().value(key(1)))
    server.client.rpush(Names().value(key(1)), "no value")
    assert await tier.put(key(1), ENTRY), "even over what is none"
    assert await tier.get(key(1)) == ENTRY


async def test_evicting_takes_the_record_along(server: Server, make_gateway: MakeGateway) -> None:
    tier = (await make_gateway()).tier
    for n in range(1000):
        put_with_record(tier, key(n), b"record")
    await tier.drain()
    assert await tier.evict("s1") == 1000
    assert await tier.get_record(key(1)) is None
    assert server.client.exists(Names().tag("s1")) == 0


# Faults.


async def test_a_killed_server_gives_misses_and_its_return_gives_hits(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    clock = Clock()
    gateway = await make_gateway(on=own_server, failures=3, probe_after=1.0, clock=clock)
    tier = gateway.tier
    await tier.put(key(1), ENTRY)
    own_server.kill()
    for _ in range(6):
        assert await tier.get(key(1)) is None
    assert gateway.link.breaker.open
    assert tier.stats.unavailable == 6
    assert not await tier.put(key(2), ENTRY)
    assert tier.put_behind(key(3), ENTRY)
    await tier.drain()
    assert await tier.delete(key(1)) is False
    assert await tier.evict("s1") == 0
    assert await tier.touch([key(1)]) == 0
    assert await tier.get_record(key(1)) is None
    for erasing in (tier.erase("s1"), tier.erase(tenant_tag("t")), tier.erase_key(key(1))):
        with pytest.raises(Unavailable):
            await erasing
    with pytest.raises(Unavailable):
        _ = [record async for record in tier.records()]
    own_server.run()
    assert await tier.get(key(1)) is None, "the breaker is open and its time has not come"
    assert gateway.link.breaker.open
    clock.now += 1.0
    assert await tier.get(key(1)) is None, "the probe runs beside the request"
    await until(lambda: not gateway.link.breaker.open)
    await until(lambda: gateway.events.stats.gaps == 1 and gateway.events.following)
    assert await tier.put(key(1), ENTRY)
    assert await tier.get(key(1)) == ENTRY


async def test_a_paused_server_is_a_miss_within_the_deadline_and_soon_costs_nothing(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    clock = Clock()
    gateway = await make_gateway(on=own_server, deadline=0.02, failures=3, probe_after=1.0, clock=clock)
    tier, link = gateway.tier, gateway.link
    await until(lambda: not link.breaker.open)
    with own_server.paused():
        async with asyncio.timeout(30):
            while not link.breaker.open:  # a stall of this process does not count as the server's
                assert await tier.get(key(1)) is None
        assert link.stats.timeouts >= 3
        calls = link.stats.calls
        for _ in range(100):
            assert await tier.get(key(1)) is None
        assert link.stats.calls == calls
        assert link.stats.skipped >= 100


async def test_a_get_does_not_wait_longer_for_the_data_key_than_for_the_value(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=own_server)
    await gateway.tier.put(key(1), ENTRY)
    gateway.keyring.forget_all()
    asked: dict[object, float | None] = {}
    call = gateway.link.call

    async def noting(*command: Any, deadline: float | None = None, **where: Any) -> Any:
        asked[command[0]] = deadline
        return await call(*command, deadline=deadline, **where)

    gateway.link.call = noting  # type: ignore[method-assign]
    gateway.link.deadline = 4.0
    async with gateway.keyring._locks["t"]:  # a data key is being made, which may take longer
        assert await gateway.tier.get(key(1)) == ENTRY
    assert asked["HGETALL"] == 4.0


async def test_a_server_that_answers_garbage_gives_misses(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(os.urandom(300) + b"\r\n$abc\r\n:\r\n")
        writer.close()

    garbage = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    link = RedisLink(f"unix://{tmp_path}/s", deadline=0.5, failures=3)
    try:
        for _ in range(10):
            with pytest.raises(Unavailable):
                await link.call("GET", "k")
        assert link.breaker.open
    finally:
        await link.aclose()
        garbage.close()
        await garbage.wait_closed()


async def test_a_server_that_refuses_writes_still_serves_reads(own_server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(on=own_server)
    await gateway.tier.put(key(1), ENTRY)
    own_server.client.config_set("min-replicas-to-write", 1)
    for n in range(2, 12):
        assert not await gateway.tier.put(key(n), ENTRY)
    assert gateway.tier.stats.write_failures == 10
    assert await gateway.tier.get(key(1)) == ENTRY
    assert not gateway.link.breaker.open
    with pytest.raises(Refused):
        await gateway.gateways.erase("s1")
    for erasing in (gateway.tier.erase_key(key(1)), gateway.tier.erase(tenant_tag("t"))):
        with pytest.raises(Unavailable, match="refused"):
            await erasing


async def test_a_server_restarted_empty_is_used_again(own_server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(on=own_server, probe_after=0.01)
    await gateway.tier.put(key(1), ENTRY)
    own_server.kill()
    own_server.run()
    # Data keys are lost with the rest. What is sealed before the loss is noticed nobody opens, which makes a miss.
    await until(lambda: gateway.events.stats.gaps == 1 and gateway.events.following)
    assert await gateway.tier.put(key(1), ENTRY)
    assert await gateway.tier.get(key(1)) == ENTRY


async def test_many_gets_at_once_share_the_connections(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    before = gateway.link.stats.calls
    found = await asyncio.gather(*(gateway.tier.get(key(n % 2)) for n in range(500)))
    assert [entry is not None for entry in found] == [False, True] * 250
    assert gateway.link.stats.calls - before < 50


async def test_gets_that_wait_for_each_other_fail_and_are_cancelled_each_for_itself(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=own_server, failures=1000)
    await gateway.tier.put(key(1), ENTRY)
    with own_server.paused():
        gets = [asyncio.create_task(gateway.tier.get(key(1))) for _ in range(40)]
        await asyncio.sleep(0)
        for get in gets[::2]:
            get.cancel()
        await asyncio.gather(*gets[::2], return_exceptions=True)
    assert await asyncio.gather(*gets[1::2]) == [ENTRY] * 20
    assert all(get.cancelled() for get in gets[::2])
    own_server.kill()
    assert await asyncio.gather(*(gateway.tier.get(key(1)) for _ in range(40))) == [None] * 40
    assert gateway.tier.stats.unavailable == 40


async def test_a_cancelled_get_leaves_the_connection_in_order(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    for _ in range(50):
        task = asyncio.create_task(gateway.tier.get(key(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await gateway.tier.get(key(2)) is None
    assert await gateway.tier.get(key(1)) == ENTRY


async def test_a_tier_that_starts_without_redis_serves_misses(tmp_path: Path, own_server: Server) -> None:
    own_server.kill()
    gateway = gateway_on(own_server)
    await gateway.start()
    try:
        assert gateway.tier.may_hold(key(1))
        assert await gateway.tier.get(key(1)) is None
        assert not await gateway.tier.put(key(1), ENTRY)
    finally:
        await gateway.close()

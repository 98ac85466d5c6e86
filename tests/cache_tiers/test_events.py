"""Gateways on one Redis hear everything in order or know that they did not; and what is erased stays erased."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.events import ACKNOWLEDGED, ERASE, INSERTED, QUARANTINED, Event, id_order, tenant_tag
from cache_tiers.link import Unavailable
from tests.cache_tiers.conftest import Clock, MakeGateway, Server, until

ENTRY = Entry((b"frame",), cost_ms=1.0, created=time.time(), tags=("subject",))


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


# The stream.


async def test_events_reach_every_gateway_in_order(make_gateway: MakeGateway) -> None:
    heard: dict[str, list[bytes]] = {"a": [], "b": []}
    gateways = [await make_gateway(name, start=False) for name in heard]
    for gateway in gateways:
        gateway.events.on(QUARANTINED, lambda event, name=gateway.name: heard[name].append(event.payload))
        await gateway.start()
    sent = [str(n).encode() for n in range(50)]
    for n, payload in enumerate(sent):
        await gateways[n % 2].events.publish(QUARANTINED, payload)
    await until(lambda: all(len(each) == 50 for each in heard.values()))
    assert heard == {"a": sent, "b": sent}


async def test_an_event_says_who_told_it_and_async_handlers_are_awaited_in_order(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b", start=False)
    heard: list[tuple[str, str]] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(("first", event.source))

    b.events.on(QUARANTINED, slow)
    b.events.on(QUARANTINED, lambda event: heard.append(("second", event.source)))
    await b.start()
    await a.events.publish(QUARANTINED)
    await until(lambda: len(heard) == 2)
    assert heard == [("first", "a"), ("second", "a")]


async def test_a_failing_handler_stops_neither_the_others_nor_the_stream(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(start=False)
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("a test's")

    gateway.events.on(QUARANTINED, fail)
    gateway.events.on(QUARANTINED, heard.append)
    await gateway.start()
    for _ in range(2):
        await gateway.events.publish(QUARANTINED)
    await until(lambda: len(heard) == 2)
    assert gateway.events.stats.handler_failures == 2
    assert gateway.events.following


def test_ids_are_ordered_as_numbers() -> None:
    assert id_order("9-0") < id_order("10-0") < id_order("10-2") < id_order("10-11")


async def test_contract_3_a_trimmed_stream_is_a_gap_and_what_depends_on_it_is_rebuilt(
    server: Server, make_gateway: MakeGateway
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    await b.tier.census.done()
    taken, joined = b.tier.census.taken, b.events.joined_at
    await b.events.close()  # cut off, while the others go on
    await a.tier.put(key(1), ENTRY)
    server.client.xtrim(b.link.names.events, maxlen=0, approximate=False)
    await a.events.publish(QUARANTINED)
    b.events.following = True
    b.events._task = asyncio.create_task(b.events._follow())
    await until(lambda: b.events.stats.gaps == 1 and b.events.following)
    await until(lambda: b.tier.census.taken > taken and not b.tier.filter.rebuilding)
    assert b.tier.may_hold(key(1))
    assert id_order(b.events.joined_at) > id_order(joined)


async def test_contract_3_a_redis_that_lost_everything_is_a_gap(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    await gateway.tier.census.done()
    server.client.flushall()
    await until(lambda: gateway.events.stats.gaps >= 1 and gateway.events.following)
    await until(lambda: not gateway.tier.filter.rebuilding and not gateway.tier.may_hold(key(1)))
    assert await gateway.tier.put(key(1), ENTRY)
    assert await gateway.tier.get(key(1)) is not None


async def test_contract_3_a_redis_that_lost_the_last_events_is_a_gap_though_newer_ones_have_come(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    """As after a failover or a crash: whoever writes first hides that the stream has gone back in time."""
    a, b = await make_gateway("a", on=own_server), await make_gateway("b", on=own_server)
    await a.tier.put(key(1), ENTRY)
    own_server.client.save()
    assert (await a.gateways.erase("subject")).complete
    for gateway in (a, b):
        assert gateway.events._task is not None
        gateway.events._task.cancel()
    own_server.kill()
    own_server.run()
    assert own_server.client.exists(a.link.names.value(key(1))), "what was erased is there again"
    async with asyncio.timeout(10):
        while True:
            try:
                await a.events.publish(QUARANTINED)
                break
            except Unavailable:  # of connections to the server that was killed
                await asyncio.sleep(0.01)
    for gateway in (a, b):
        gateway.events._task = asyncio.create_task(gateway.events._follow())
    await until(lambda: all(gateway.events.stats.gaps and gateway.events.following for gateway in (a, b)))
    c = await make_gateway("c", on=own_server)
    assert await c.tier.get(key(1)) is None
    assert not own_server.client.exists(a.link.names.value(key(1))), "and is removed once more"


async def test_a_stream_that_starts_without_redis_joins_when_it_comes(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    own_server.kill()
    gateway = await make_gateway(on=own_server, probe_after=0.01)
    assert not gateway.events.following
    own_server.run()
    await until(lambda: gateway.events.following)
    await until(lambda: not gateway.tier.filter.rebuilding)


async def test_a_handler_of_a_gap_that_fails_is_called_again(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(start=False)
    calls: list[int] = []

    def fail_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a test's")

    gateway.events.on_gap(fail_once)
    await gateway.start()
    await until(lambda: gateway.events.following)
    assert len(calls) == 2


# Epochs.


async def test_a_moved_epoch_is_seen_by_all_and_by_who_comes_later(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    before = {gateway.name: gateway.epochs.of(("x", "y")) for gateway in (a, b)}
    assert await a.epochs.bump("x") == 1
    assert not a.epochs.unchanged(before["a"])
    await until(lambda: not b.epochs.unchanged(before["b"]))
    c = await make_gateway("c")
    assert c.epochs.of(("x", "y")) == a.epochs.of(("x", "y")) == b.epochs.of(("x", "y"))


async def test_an_epoch_that_redis_lost_is_put_back_by_who_knows_it(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.epochs.bump("x")
    await gateway.epochs.bump("x")
    begun = gateway.epochs.of(("x",))
    server.client.delete(gateway.link.names.epochs)
    assert await gateway.epochs.load() == []
    assert server.client.hget(gateway.link.names.epochs, "x") == b"2"
    assert gateway.epochs.unchanged(begun)


async def test_an_epoch_that_is_put_back_reaches_who_has_joined_without_it(
    server: Server, make_gateway: MakeGateway
) -> None:
    a = await make_gateway("a")
    await a.gateways.erase("subject")
    assert a.events._task is not None
    a.events._task.cancel()
    server.client.flushall()
    b = await make_gateway("b")
    dropped: list[str] = []
    b.gateways.on_erase(dropped.append)
    a.events._task = asyncio.create_task(a.events._follow())
    await until(lambda: a.events.stats.gaps and a.events.following)
    await until(lambda: dropped == ["subject"])
    assert b.epochs.of(("subject",)) == a.epochs.of(("subject",))
    assert await b.tier.put(key(1), ENTRY), "it would be refused for ever"
    assert await a.tier.get(key(1)) == ENTRY
    assert server.client.scard(a.link.names.erasing) == 0


# Erasing.


async def test_contract_5_an_erasure_returns_when_every_gateway_has_acknowledged(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    dropped: dict[str, list[str]] = {"a": [], "b": []}
    for gateway in (a, b):
        gateway.gateways.on_erase(dropped[gateway.name].append)
    for n in range(600):
        a.tier.put_behind(key(n), ENTRY)
    await a.tier.put(key(1000), replace(ENTRY, tags=("other",)))
    await a.tier.drain()
    erased = await b.gateways.erase("subject")
    assert erased.complete
    assert erased.count == 600
    assert erased.acknowledged == {"a", "b"}
    assert dropped == {"a": ["subject"], "b": ["subject"] * 2}, "who erases drops at once, and as all others do"
    assert await a.tier.get(key(1)) is None
    assert await a.tier.get(key(1000)) is not None


async def test_contract_5_who_does_not_answer_is_missing_and_a_retry_completes(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    reader = b.events._task
    assert reader is not None
    reader.cancel()
    erased = await a.gateways.erase("subject", timeout=0.05)
    assert not erased.complete
    assert "b" in erased.missing, "and perhaps the other, on a busy machine"
    b.events._task = asyncio.create_task(b.events._follow())
    assert (await a.gateways.erase("subject")).complete


async def test_contract_5_a_gateway_that_cannot_drop_does_not_acknowledge_until_it_can(
    make_gateway: MakeGateway,
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    broken = True

    def drop(tag: str) -> None:
        if broken:
            raise RuntimeError("a test's")

    b.gateways.on_erase(drop)
    assert "b" in (await a.gateways.erase("subject", timeout=0.1)).missing
    broken = False
    assert (await a.gateways.erase("subject")).complete


async def test_contract_5_an_acknowledgement_that_failed_is_sent_with_a_later_heartbeat(
    make_gateway: MakeGateway,
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b", lease=0.3)
    publish, failures = b.events.publish, 2

    async def failing(kind: str, payload: bytes = b"") -> str:
        nonlocal failures
        if kind == ACKNOWLEDGED and failures:
            failures -= 1
            raise Unavailable("a test's")
        return await publish(kind, payload)

    b.events.publish = failing  # type: ignore[method-assign]
    assert (await a.gateways.erase("subject", timeout=30)).complete
    assert failures == 0
    await until(lambda: not b.gateways._owed)


async def test_contract_5_a_gateway_that_was_away_applies_what_it_missed(
    server: Server, make_gateway: MakeGateway
) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    dropped: list[str] = []
    b.gateways.on_erase(dropped.append)
    begun = b.epochs.of(("subject",))
    assert b.events._task is not None
    b.events._task.cancel()
    assert "b" in (await a.gateways.erase("subject", timeout=0.05)).missing
    server.client.xtrim(a.link.names.events, maxlen=0, approximate=False)
    b.events._task = asyncio.create_task(b.events._follow())
    await until(lambda: dropped == ["subject"])
    assert not b.epochs.unchanged(begun)


async def test_contract_5_a_handler_that_fails_at_a_gap_keeps_no_tag_from_being_dropped(
    server: Server, make_gateway: MakeGateway
) -> None:
    a = await make_gateway("a")
    tags = {f"subject {n}" for n in range(5)}
    for tag in tags:
        await a.gateways.erase(tag)
    b = await make_gateway("b", start=False)
    failures, dropped = 7, set[str]()

    def fail(tag: str) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise RuntimeError("a test's")

    b.gateways.on_erase(fail)
    b.gateways.on_erase(lambda tag: dropped.add(tag))
    await b.start()
    assert not b.events.following
    assert dropped == tags, "beside the handler that failed"
    await until(lambda: b.events.following)
    assert failures < -1
    assert not b.gateways._failed
    assert (await a.gateways.erase("subject 1")).complete


@pytest.mark.parametrize("how", ["erase", "invalidate", "erase_tenant"])
async def test_contract_5_who_erases_has_dropped_it_when_the_call_returns(make_gateway: MakeGateway, how: str) -> None:
    """Before its own event comes back, which here it never does."""
    gateway = await make_gateway()
    dropped: list[str] = []
    gateway.gateways.on_erase(dropped.append)
    assert gateway.events._task is not None
    gateway.events._task.cancel()
    timeout = {} if how == "invalidate" else {"timeout": 0.05}
    await getattr(gateway.gateways, how)("subject", **timeout)
    assert dropped == [tenant_tag("subject") if how == "erase_tenant" else "subject"]


async def test_contract_5_an_erasure_that_redis_loses_while_it_is_done_fails_whoever_acknowledged(
    server: Server, make_gateway: MakeGateway
) -> None:
    """The moved epoch, and the event that tells of it, are lost with a primary; all that follows its successor has."""
    a, b = await make_gateway("a"), await make_gateway("b")
    names, bump = a.link.names, a.epochs.bump
    dropped: list[str] = []
    b.gateways.on_erase(dropped.append)

    async def lost(tag: str) -> int:
        for gateway in (a, b):
            assert gateway.events._task is not None
            gateway.events._task.cancel()
        epoch = await bump(tag)
        ((event_id, _),) = server.client.xrevrange(names.events, count=1)
        server.client.xdel(names.events, event_id)
        server.client.delete(names.epochs, names.erasing)
        for gateway in (a, b):
            gateway.events._task = asyncio.create_task(gateway.events._follow())
        return epoch

    a.epochs.bump = lost  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="lost the erasure"):
        await a.gateways.erase("subject")
    assert dropped == []
    a.epochs.bump = bump  # type: ignore[method-assign]
    assert (await a.gateways.erase("subject")).complete
    assert dropped == ["subject"]


async def test_contract_5_what_was_acknowledged_of_a_lost_stream_counts_for_nothing(
    server: Server, make_gateway: MakeGateway
) -> None:
    """A Redis whose clock was ahead, and that lost everything: its ids were higher than those that come now."""
    a = await make_gateway("a")
    ahead = int(time.time() * 1000) + 3_600_000
    server.client.xadd(a.link.names.events, {"k": "none", "p": b"", "g": "nobody"}, id=f"{ahead}-0")
    b = await make_gateway("b")
    await until(lambda: a.gateways._acknowledged.get("b", "") == b.events.joined_at)
    assert b.events._task is not None
    b.events._task.cancel()
    server.client.flushall()
    await until(lambda: a.events.stats.gaps and a.events.following)
    await b.gateways._beat()
    assert "b" in (await a.gateways.erase("subject", timeout=0.05)).missing


async def test_contract_5_an_erasure_cut_short_is_finished_by_the_next_gateway(make_gateway: MakeGateway) -> None:
    a = await make_gateway("a")
    await a.tier.put(key(1), ENTRY)
    await a.epochs.bump("subject")  # and then it dies
    assert await a.link.call("EXISTS", a.link.names.value(key(1))) == 1
    b = await make_gateway("b")
    assert await b.link.call("EXISTS", a.link.names.value(key(1))) == 0
    assert await b.link.call("SCARD", b.link.names.erasing) == 0


async def test_contract_5_erasing_fails_loudly_without_redis(own_server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(on=own_server)
    own_server.kill()
    with pytest.raises(Unavailable):
        await gateway.gateways.erase("subject")


async def test_contract_5_a_write_behind_cannot_bring_erased_data_back(make_gateway: MakeGateway) -> None:
    """The race: queued before the erasure, written after it, by a gateway that has not heard of it."""
    a, b = await make_gateway("a"), await make_gateway("b")
    assert b.events._task is not None
    b.events._task.cancel()
    assert b.tier.put_behind(key(1), ENTRY)  # not written before we give way
    await a.epochs.bump("subject")
    await b.tier.drain()
    assert b.tier.stats.refused_erased == 1
    assert await a.tier.get(key(1)) is None
    assert await a.link.call("EXISTS", a.link.names.value(key(1))) == 0


async def test_contract_5_a_value_that_outlived_its_erasure_is_a_miss(
    server: Server, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    name = gateway.link.names.value(key(1))
    backup = server.client.dump(name)
    assert isinstance(backup, bytes)
    await gateway.gateways.erase("subject")
    server.client.restore(name, 0, backup)
    assert await gateway.tier.get(key(1)) is None
    assert gateway.tier.stats.erased == 1


async def test_after_an_erasure_the_subject_may_be_stored_again(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    await a.gateways.erase("subject")
    assert await b.tier.put(key(1), ENTRY)
    assert await a.tier.get(key(1)) is not None
    assert (await b.gateways.erase("subject")).count == 1


async def test_writes_and_erasures_at_random_never_leave_an_entry_of_an_older_epoch(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")

    async def write(gateway_index: int) -> None:
        gateway = (a, b)[gateway_index]
        for n in range(150):
            gateway.tier.put_behind(key(n), ENTRY)
            if n % 10 == 0:
                await asyncio.sleep(0)

    async def erase() -> None:
        for _ in range(5):
            await b.gateways.erase("subject")

    await asyncio.gather(write(0), write(1), erase())
    await a.tier.drain()
    await b.tier.drain()
    await a.gateways.erase("subject")
    assert [n for n in range(150) if await a.link.call("EXISTS", a.link.names.value(key(n)))] == []


async def test_erasing_a_tenant_takes_its_keys_from_all_gateways(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    dropped: list[str] = []
    b.gateways.on_erase(dropped.append)
    await a.tier.put(key(1, "gone"), ENTRY)
    await a.tier.put(key(1, "kept"), ENTRY)
    assert await b.tier.get(key(1, "gone")) is not None
    assert (await a.gateways.erase_tenant("gone")).complete
    assert dropped == [tenant_tag("gone")]
    for gateway in (a, b):
        assert await gateway.tier.get(key(1, "gone")) is None
        assert await gateway.tier.get(key(1, "kept")) is not None
    assert await b.tier.put(key(2, "gone"), ENTRY)
    assert await a.tier.get(key(2, "gone")) is not None


async def test_invalidating_reaches_the_others_without_waiting_for_them(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    dropped: list[str] = []
    b.gateways.on_erase(dropped.append)
    await a.tier.put(key(1), ENTRY)
    assert await a.gateways.invalidate("subject") == 1
    await until(lambda: dropped == ["subject"])


# The registry.


async def test_the_registry_knows_who_lives_and_forgets_who_left(make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a"), await make_gateway("b")
    assert await a.gateways.live() == {"a", "b"}
    await b.gateways.close()
    assert await a.gateways.live() == {"a"}
    assert (await a.gateways.erase("subject")).acknowledged >= {"a"}


async def test_a_gateway_that_died_is_missing_for_a_while_and_then_not(
    server: Server, make_gateway: MakeGateway
) -> None:
    a = await make_gateway("a")
    seconds, microseconds = server.client.time()
    now = seconds * 1000 + microseconds // 1000
    registry = a.link.names.gateways
    server.client.zadd(registry, {"died just now": now - 1000, "died long ago": now - 61_000})
    assert await a.gateways.live() == {"a", "died just now"}


async def test_a_gateway_knows_when_its_lease_has_run_out(own_server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(on=own_server)
    clock = Clock(0.0)
    gateway.gateways._clock = clock
    await gateway.gateways._beat()
    assert gateway.gateways.in_touch
    own_server.kill()
    await gateway.gateways._beat()
    clock.now = 9.0
    assert gateway.gateways.in_touch
    clock.now = 11.0
    assert not gateway.gateways.in_touch


async def test_contract_5_a_gateway_cut_off_gives_up_what_it_keeps_before_erasures_stop_waiting_for_it(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=own_server, start=False, lease=0.06, mourning=60.0, probe_after=0.01)
    fleet, clock = gateway.gateways, Clock(0.0)
    fleet._clock, fleet._leased_until = clock, 0.0
    lost: list[float] = []

    def fail() -> None:
        raise RuntimeError("a test's")

    fleet.on_lost(fail)
    fleet.on_lost(lambda: lost.append(clock.now))
    looks, look = 0, fleet._look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    async def looked() -> None:
        before = looks
        await until(lambda: looks > before + 1)

    fleet._look = counted  # type: ignore[method-assign]
    await gateway.start()  # the lease lasts until 0.06
    joined = gateway.events.joined_at
    with own_server.paused():
        fleet._deadline = 0.05
        clock.now = 0.05 + 30.0
        await looked()
        assert lost == [], "while others count it among the living nothing is given up"
        clock.now = 0.07 + 30.0
        await until(lambda: lost)
        await looked()
    fleet._deadline = 5.0
    await until(lambda: gateway.events.following and not fleet._lost)
    assert id_order(gateway.events.joined_at) > id_order(joined), "it rejoins, as after a gap"
    assert lost == [30.07]
    await until(lambda: fleet.in_touch)


async def test_who_is_alone_on_its_redis_buries_the_dead_and_is_never_lost(
    own_server: Server, make_gateway: MakeGateway
) -> None:
    first = await make_gateway("killed", on=own_server)
    assert first.gateways._beats is not None
    first.gateways._beats.cancel()
    gateway = await make_gateway("a", on=own_server, alone=True, lease=0.06, mourning=0.0, deadline=0.05)
    async with asyncio.timeout(
        5
    ):  # while the dead one's lease lasts; a busy machine may let our own, shorter one run out
        while await gateway.gateways.live() != {"a"}:
            await asyncio.sleep(0.002)
    lost: list[int] = []
    gateway.gateways.on_lost(lambda: lost.append(1))
    own_server.kill()
    await until(lambda: not gateway.gateways.in_touch)
    gateway.gateways._look()
    assert lost == []


async def test_control_records_have_no_expiry(server: Server, make_gateway: MakeGateway) -> None:
    gateway = await make_gateway()
    await gateway.tier.put(key(1), ENTRY)
    await gateway.gateways.erase("other")
    names = gateway.link.names
    assert server.client.ttl(names.value(key(1))) > 0
    control = [name for name in server.client.keys("*") if not name.startswith((names.values.encode(), b"refrain:r:"))]
    assert len(control) >= 6
    assert {server.client.ttl(name) for name in control} == {-1}
    assert {ERASE, INSERTED} <= {fields[b"k"].decode() for _, fields in server.client.xrange(names.events, "-", "+")}


async def test_an_unreadable_place_in_the_stream_is_left_by_joining_anew(make_gateway: MakeGateway) -> None:
    """As after garbage on the wire, which may have been the id of an event."""
    events = (await make_gateway()).events
    joined_at = events.joined_at
    events._last = "17\x029-0"
    await until(lambda: events.joined_at != joined_at and events.following)
    assert events.stats.gaps == 0
    assert events.stats.interruptions

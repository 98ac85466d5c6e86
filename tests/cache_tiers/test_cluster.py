"""L2 on a real Cluster: the same promises as on one server, and what a Cluster adds: slots that move, servers that fail
one by one, and no step in which everything happens at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import TryAgainError

from cache_tiers.cluster import slot_of
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.events import QUARANTINED, Event
from cache_tiers.link import Names, RedisLink, Refused, Unavailable
from cache_tiers.sealed import stamp_of
from cache_tiers.steps import SealedValue, Stepwise
from tests.cache_tiers.conftest import Clock, MakeGateway, shared_cluster, until
from tests.cache_tiers.fleets import ClusterServers

# These hold on a Cluster as they stand; pytest collects them here again, with this file's `server`.
from tests.cache_tiers.test_events import (  # noqa: F401
    test_a_moved_epoch_is_seen_by_all_and_by_who_comes_later,
    test_after_an_erasure_the_subject_may_be_stored_again,
    test_an_epoch_that_is_put_back_reaches_who_has_joined_without_it,
    test_an_epoch_that_redis_lost_is_put_back_by_who_knows_it,
    test_contract_3_a_redis_that_lost_everything_is_a_gap,
    test_contract_5_a_value_that_outlived_its_erasure_is_a_miss,
    test_contract_5_a_write_behind_cannot_bring_erased_data_back,
    test_contract_5_an_erasure_cut_short_is_finished_by_the_next_gateway,
    test_contract_5_an_erasure_returns_when_every_gateway_has_acknowledged,
    test_control_records_have_no_expiry,
    test_erasing_a_tenant_takes_its_keys_from_all_gateways,
    test_events_reach_every_gateway_in_order,
    test_writes_and_erasures_at_random_never_leave_an_entry_of_an_older_epoch,
)
from tests.cache_tiers.test_ledger import (  # noqa: F401
    test_kinds_are_apart_and_gateways_together,
    test_what_was_put_is_read_back_byte_by_byte,
)
from tests.cache_tiers.test_pins import (  # noqa: F401
    make,
    test_an_erasure_takes_the_pins_along,
    test_gateways_see_each_others_pins,
)
from tests.cache_tiers.test_redis import (  # noqa: F401
    test_a_get_is_one_round_trip,
    test_a_key_of_the_wrong_type_is_a_miss_and_left_alone,
    test_a_record_goes_with_its_tag_even_if_its_value_was_evicted_before,
    test_a_record_is_written_only_beside_the_entry_it_was_made_from,
    test_a_tenant_whose_data_keys_cannot_be_had_costs_the_others_no_write,
    test_contract_1_values_have_a_ttl_with_jitter_and_never_beyond_their_expiry,
    test_contract_3_a_stale_hint_costs_one_lookup_and_is_counted,
    test_contract_3_the_filter_follows_own_writes_and_those_of_others,
    test_contract_3_the_filter_is_rebuilt_at_the_start_and_says_maybe_until_then,
    test_erasing_a_tenant_counts_and_removes_only_its_own,
    test_evicting_takes_the_record_along,
    test_peers_hear_of_inserts_with_records_and_of_removals,
    test_records_are_kept_sealed_beside_their_entries_and_found_again,
    test_what_waits_to_be_written_is_not_written_after_a_delete,
    test_what_waits_to_be_written_is_not_written_after_another_gateways_delete,
)

ENTRY = Entry((b"frame",) * 3, cost_ms=1.0, created=time.time(), tags=("subject",))
NAMES = Names()


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


@pytest.fixture
def server() -> ClusterServers:
    return shared_cluster()


@pytest.fixture(scope="module")
def _breakable() -> Iterator[ClusterServers]:
    cluster = ClusterServers(replica=True)
    yield cluster
    cluster.close()


@pytest.fixture
def breakable(_breakable: ClusterServers) -> ClusterServers:
    """Another Cluster, for tests that stop or move something; the last of them leaves it without one primary."""
    return _breakable


def keys_on(cluster: ClusterServers, node: Any, count: int) -> list[CacheKey]:
    return [key(n) for n in range(1000) if cluster.owner(NAMES.value(key(n))) is node][:count]


# Order in place of one step.


async def test_values_of_one_key_by_many_writers_go_with_their_tag(make_gateway: MakeGateway) -> None:
    """Whoever writes last: what is then there is known to its tag."""
    gateways = [await make_gateway(name) for name in "abc"]
    for n in range(30):
        await asyncio.gather(*(gateway.tier.put(key(n), ENTRY) for gateway in gateways))
    assert await gateways[0].tier.erase("subject") == 30
    assert [await gateways[0].tier.get(key(n)) for n in range(30)] == [None] * 30


async def test_a_value_written_during_an_erasure_is_taken_back(
    server: ClusterServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway()
    epochs = gateway.epochs.of(("subject",))
    sealed = await gateway.keyring.seal(key(1), b"v", b"plain")
    await gateway.epochs.bump("subject")
    value = SealedValue(key(1), sealed, 60_000, ("subject",), epochs)
    assert await Stepwise(gateway.link).write([value], [], 5.0) == [-1]
    assert not server.client.exists(NAMES.value(key(1)))


async def test_a_value_whose_epochs_cannot_be_compared_is_taken_back(
    server: ClusterServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway()
    sealed = await gateway.keyring.seal(key(1), b"v", b"plain")
    call = gateway.link.call

    async def fail(*command: Any, **settings: Any) -> Any:
        if command[0] == "HMGET":
            raise Unavailable("a test's")
        return await call(*command, **settings)

    gateway.link.call = fail  # type: ignore[method-assign]
    value = SealedValue(key(1), sealed, 60_000, ("subject",), Epochs((("subject", 0),)))
    (outcome,) = await Stepwise(gateway.link).write([value], [], 5.0)
    assert isinstance(outcome, Unavailable)
    assert not server.client.exists(NAMES.value(key(1)))


async def test_what_a_tag_knows_is_pruned_by_the_second_census_that_does_not_find_it(
    server: ClusterServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway()
    for n in range(3):
        await gateway.tier.put(key(n), ENTRY)
    server.client.delete(NAMES.value(key(0)))
    clock = Clock()
    gateway.tier.census._steps = Stepwise(gateway.link, grace=60.0, clock=clock)
    for seconds, left in ((0, 3), (59, 3), (1, 2), (100, 2)):
        clock.now += seconds
        await gateway.tier.census.take()
        assert server.client.hlen(NAMES.tag("subject")) == left
    assert gateway.tier.census.pruned == 1


async def test_a_member_noted_before_its_value_is_written_survives_a_census(
    server: ClusterServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway()
    sealed = await gateway.keyring.seal(key(1), b"v", b"plain")
    server.client.hset(NAMES.tag("subject"), NAMES.membership(key(1), stamp_of(sealed)), b"")
    await gateway.tier.census.take()
    server.client.set(NAMES.value(key(1)), sealed, ex=60)
    assert await gateway.tier.erase("subject") == 1


# Ways to the servers.


def test_slots_are_those_of_the_specification(server: ClusterServers) -> None:
    for name in (NAMES.value(key(1)), NAMES.events, NAMES.tag("s"), b"plain", "{}x", "a{b}c"):
        assert slot_of(name) == server.nodes[0].client.execute_command("CLUSTER KEYSLOT", name)


async def test_a_pipeline_goes_to_all_servers_and_comes_back_in_order(server: ClusterServers) -> None:
    link = RedisLink(server.url, deadline=5.0)
    try:
        names = [f"k{n}" for n in range(50)]
        assert await link.pipeline([("SET", name, name) for name in names]) == [True] * 50
        before = link.stats.calls
        answers = await link.pipeline([*(("GET", name) for name in names), ("INCR", "k1")])
        assert answers[:-1] == [name.encode() for name in names]
        assert "integer" in str(answers[-1])
        assert link.stats.calls - before == 3
        with pytest.raises(Refused, match="integer"):
            await link.call("INCR", "k1")
        assert sum(await link.each("DBSIZE")) == 50
    finally:
        await link.aclose()


async def test_a_slot_that_moves_is_followed(breakable: ClusterServers, make_gateway: MakeGateway) -> None:
    """Asked on while it is moving, moved once it has, and back; keys and answers stay what they were."""
    gateway = await make_gateway(on=breakable)
    tier, link = gateway.tier, gateway.link
    here, there = breakable.nodes[0], breakable.nodes[1]
    moving = keys_on(breakable, here, 1)[0]
    slot = slot_of(NAMES.value(moving))
    await until(lambda: tier.census.taken == 1)  # which asks for keys of its own
    await tier.put(moving, ENTRY)
    breakable.begin_move(slot, here, there)
    try:
        here.client.execute_command("MIGRATE", "127.0.0.1", there.port, NAMES.value(moving), 0, 5000)
        before = link.stats.redirected
        assert await tier.get(moving) == ENTRY, "asked there"
        assert link.stats.redirected == before + 1
        newer = replace(ENTRY, frames=(b"newer",))
        assert await tier.put(moving, newer)
        assert await tier.get(moving) == newer
        breakable.end_move(slot, there)
        assert await tier.get(moving) == newer, "moved there"
        before = link.stats.redirected
        assert await tier.get(moving) == newer
        assert link.stats.redirected == before, "and remembered"
    finally:
        breakable.end_move(slot, there)
        there.client.delete(NAMES.value(moving))
        breakable.begin_move(slot, there, here)
        breakable.end_move(slot, here)
    assert await tier.get(moving) is None


async def test_what_a_slot_has_on_two_servers_is_asked_for_again(
    breakable: ClusterServers, make_gateway: MakeGateway
) -> None:
    """A value that has moved, and its record that was never there, are for neither server to delete: TRYAGAIN, for as
    long as the slot moves. An erasure waits for it."""
    here, there = breakable.nodes[0], breakable.nodes[1]
    moving = keys_on(breakable, here, 1)[0]
    slot = slot_of(NAMES.value(moving))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            breakable.end_move(slot, there)

    gateway = await make_gateway(on=breakable, pause=pause)
    tier, link = gateway.tier, gateway.link
    await until(lambda: tier.census.taken == 1)
    await tier.put(moving, replace(ENTRY, tags=("moving",)))
    breakable.begin_move(slot, here, there)
    try:
        here.client.execute_command("MIGRATE", "127.0.0.1", there.port, NAMES.value(moving), 0, 5000)
        erased = await gateway.gateways.erase("moving")
        assert (erased.count, erased.complete) == (1, True)
        assert pauses == [0.02, 0.04, 0.08]
        assert link.stats.tried_again == 3
        assert not there.client.exists(NAMES.value(moving))
    finally:
        breakable.end_move(slot, there)
        breakable.begin_move(slot, there, here)
        breakable.end_move(slot, here)


async def test_a_slot_that_moves_for_too_long_is_unavailable_in_time(
    breakable: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the time that the call has is waited for; what else is in the pipeline is answered all the same."""
    here, there = breakable.nodes[0], breakable.nodes[1]
    moving = keys_on(breakable, here, 1)[0]
    name, beside = NAMES.value(moving), NAMES.record(moving)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    link = RedisLink(breakable.url, deadline=5.0, pause=pause)
    try:
        await link.call("SET", name, "value")
        breakable.begin_move(slot_of(name), here, there)
        here.client.execute_command("MIGRATE", "127.0.0.1", there.port, name, 0, 5000)
        both = ("EVAL", "return redis.call('EXISTS', unpack(KEYS))", 2, name, beside)
        refused, found = await link.pipeline([both, ("GET", name)])
        assert isinstance(refused, TryAgainError)
        assert found == b"value"
        assert pauses == [0.02 * 2**n for n in range(8)], "the next one would be of 5.12 s"
        monkeypatch.setattr("cache_tiers.link.TRY_AGAIN_AFTER", 5.0)
        with pytest.raises(Refused, match="rehashing"):
            await link.call(*both, deadline=5.0)
        assert len(pauses) == 8, "no time for any"
    finally:
        breakable.end_move(slot_of(name), there)
        there.client.delete(name)
        breakable.begin_move(slot_of(name), there, here)
        breakable.end_move(slot_of(name), here)
        await link.aclose()


async def test_after_it_is_closed_nothing_looks_for_slots(server: ClusterServers) -> None:
    """Whether or not it had before: a call may end, or be made, later than its link."""
    asked, unasked = (RedisLink(server.url, deadline=0.05) for _ in range(2))
    await asked.call("TOUCH", "k", deadline=5.0)
    for link in (asked, unasked):
        await link.aclose()
    before = asyncio.all_tasks()
    for node in asked.servers:
        node._on_trouble()
    with pytest.raises(Unavailable, match="slots"):
        await unasked.call("GET", "k")
    assert asyncio.all_tasks() == before


async def test_a_server_that_hangs_costs_the_keys_of_others_nothing(
    breakable: ClusterServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=breakable, deadline=0.2, probe_after=0.05)
    hanging = next(node for node in breakable.nodes[:3] if node is not breakable.owner(NAMES.events))
    lost, kept = keys_on(breakable, hanging, 2), keys_on(breakable, breakable.owner(NAMES.events), 2)
    for each in (*lost, *kept):
        assert await gateway.tier.put(each, ENTRY)
    with hanging.paused():
        async with asyncio.timeout(30):
            while not gateway.link.left_alone:
                assert await gateway.tier.get(lost[0]) is None
        calls = gateway.link.stats.calls
        assert await gateway.tier.get(lost[1]) is None
        assert gateway.link.stats.calls == calls, "nobody waits for it any more"
        gateway.link.deadline = 5.0  # for those that do not hang, on a busy machine
        assert [await gateway.tier.get(each) for each in kept] == [ENTRY, ENTRY]
        assert await gateway.tier.put(kept[0], ENTRY)
        with pytest.raises(Unavailable):
            await gateway.tier.erase_key(lost[0])
        with pytest.raises(Unavailable):
            _ = [name async for name in gateway.tier.census.scan("*", 100)]
    async with asyncio.timeout(30):
        while await gateway.tier.get(lost[0]) is None:
            await asyncio.sleep(0.01)


async def test_a_server_that_is_slow_leaves_the_others_time_and_blame(
    breakable: ClusterServers, make_gateway: MakeGateway
) -> None:
    """What comes last has its own deadline, and its server, which was not asked in time, no failure to its name."""
    gateway = await make_gateway(on=breakable)
    control = breakable.owner(NAMES.events)
    slow = next(node for node in breakable.nodes[:3] if node is not control)
    link = RedisLink(breakable.url, deadline=0.2, failures=2, probe_after=0.05)
    try:
        (lost,) = keys_on(breakable, slow, 1)
        commands = [("GET", NAMES.value(lost)), ("TOUCH", NAMES.epochs)]
        await link.pipeline(commands, deadline=5.0)
        told = gateway.events.command(QUARANTINED, b"")
        last: list[Any] = []
        with slow.paused():
            async with asyncio.timeout(30):
                while not link.left_alone:  # a stall of this process does not count
                    *_, outcome = await link.pipeline(commands, last=[told])
                    last.append(outcome)
        assert any(isinstance(outcome, bytes) for outcome in last), "told after the slow one's time was up"
        assert sum(server.breaker.open for server in link.servers) == 1
    finally:
        await link.aclose()


async def test_a_failover_is_followed(breakable: ClusterServers, make_gateway: MakeGateway) -> None:
    """The primary of the control records is killed and its replica takes over: reads, writes, events, erasures."""
    gateway = await make_gateway(on=breakable, probe_after=0.05)
    owner = breakable.owner(NAMES.events)
    mine = keys_on(breakable, owner, 3)
    for each in mine:
        assert await gateway.tier.put(each, ENTRY)
    heard: list[Event] = []
    gateway.events.on(QUARANTINED, heard.append)
    await until(lambda: breakable.replica.client.dbsize() == owner.client.dbsize())  # WAIT is of one's own connection
    owner.kill()
    await until(lambda: breakable.replica.client.info("replication")["role"] == "master", 30)
    async with asyncio.timeout(30):  # from then on
        while await gateway.tier.get(mine[0]) is None:
            await asyncio.sleep(0.01)
        await until(lambda: gateway.events.following)
        while True:
            try:
                await gateway.events.publish(QUARANTINED)
                break
            except Unavailable:
                await asyncio.sleep(0.01)
        await until(lambda: heard)
    assert await gateway.tier.put(mine[1], ENTRY)
    assert (await gateway.gateways.erase("subject")).complete
    assert [await gateway.tier.get(each) for each in mine] == [None] * 3


async def test_a_node_that_tells_nonsense_of_the_slots_is_passed_over(server: ClusterServers) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while told := await reader.read(4096):
            # "From slot 0 to slot 5", and nobody's; whatever else is asked is well.
            writer.write(b"*1\r\n*2\r\n:0\r\n:5\r\n" if b"SLOTS" in told else b"+OK\r\n" * told.count(b"*"))
        writer.close()

    nonsense = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = nonsense.sockets[0].getsockname()[1]
    link = RedisLink(server.url.replace("://", f"://127.0.0.1:{port},"), deadline=5.0)
    try:
        assert await link.call("SET", "k", "v")
    finally:
        await link.aclose()
        nonsense.close()
        await nonsense.wait_closed()


async def test_a_cluster_that_is_not_there_is_unavailable_within_the_deadline() -> None:
    link = RedisLink("redis+cluster://127.0.0.1:1", deadline=0.05)
    try:
        with pytest.raises(Unavailable, match="slots"):
            await link.call("GET", "k")
        with pytest.raises(Unavailable, match="slots"):
            await link.pipeline([("GET", "k")])
        with pytest.raises(Unavailable, match="slots"):
            await link.each("DBSIZE")
        assert link.place_of("k") is None
    finally:
        await link.aclose()

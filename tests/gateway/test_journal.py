"""What recall keeps in Redis, and what gateways on one Redis hear of each other; with Redis away, nothing fails."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.events import QUARANTINED, tenant_tag
from cache_tiers.ledger import Ledger
from cache_tiers.link import Unavailable
from cache_tiers.read_through import Source
from gateway.journal import AUDIT, RedisJournal, pack_quarantine, unpack_quarantine
from tests.cache_tiers.conftest import Server, gateway_on, until
from tests.fingerprint.voice import hiss, say
from tests.gateway.listeners import FIELDS, KEYS, Listener, digest_of, entry_of, listening

ORIGINAL = say(1)
COPY = hiss(ORIGINAL, snr_db=12, seed=2)
PAIR = (b"q" * 16, b"d" * 16)
HALF = st.binary(min_size=16, max_size=16)


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.client.flushall()
    return one_server


# ----------------------------------------------------------------------------------------------------- the journal


@settings(deadline=None)
@given(tenant=st.text(min_size=1, max_size=64), pair=st.tuples(HALF, HALF))
def test_a_quarantined_pair_is_told_as_it_is(tenant: str, pair: tuple[bytes, bytes]) -> None:
    assert unpack_quarantine(pack_quarantine(tenant, pair)) == (tenant, pair)


async def test_records_states_and_pairs_are_read_back_by_another_gateway(server: Server) -> None:
    async with listening(server, "a") as a:
        journal = _journal(a)
        key = KEYS.of("acme").cache_key(FIELDS, bytes(32))
        _keep(a, key, entry_of("subject"), b"a fingerprint")
        await a.shared.tier.drain()
        await journal.keep_tally("acme", b"an audit", b"a part of it")
        await journal.keep_tally("acme", b"a newer audit", b"a part of it")
        await Ledger(a.shared.link).put(AUDIT, "acme", b"the first version's")
        await journal.tell_quarantine("acme", PAIR)
        await journal.tell_quarantine("acme", PAIR)
    async with listening(server, "b") as b:
        journal = _journal(b)
        assert [record async for record in journal.records()] == [(key, b"a fingerprint")]
        kept = [("acme", "a", b"a newer audit"), ("acme", "before", b"the first version's")]
        assert sorted(await journal.tallies() or []) == kept
        assert await journal.quarantined() == [("acme", PAIR)]


async def test_records_go_with_their_entry_and_are_never_in_clear(server: Server) -> None:
    async with listening(server) as listener:
        key = await listener.remember(ORIGINAL, tags=("subject",))
        stored = b"".join(server.client.dump(name) or b"" for name in server.client.keys("*"))
        assert digest_of(ORIGINAL) not in stored
        assert await listener.shared.tier.get_record(key) is not None
        await listener.shared.gateways.erase("subject")
        assert [record async for record in _journal(listener).records()] == []


async def test_without_redis_nothing_is_kept_and_nothing_fails() -> None:
    nowhere = gateway_on(_Nowhere(), "a", failures=1_000_000)  # type: ignore[arg-type]
    journal = RedisJournal(nowhere.tier, Ledger(nowhere.link), nowhere.events)
    await journal.keep_tally("acme", b"an audit", b"a part of it")
    await journal.tell_quarantine("acme", PAIR)
    assert await journal.tallies() is None
    assert await journal.quarantined() is None
    with pytest.raises(Unavailable):  # for the caller to try again: an index half read would be silent for good
        [record async for record in journal.records()]
    await nowhere.link.aclose()


class _Nowhere:
    url = "unix:///nowhere/refrain-has-no-socket-here"


async def test_an_audit_of_a_newer_gateway_is_left_out(server: Server) -> None:
    async with listening(server, "a") as a:
        await Ledger(a.shared.link).put(AUDIT, "acme", b'{"version": 99}')
        old = b'{"version":1,"right":3,"wrong":0,"undecided":0,"quarantined":[]}'
        await Ledger(a.shared.link).put(AUDIT, "beta", old)
    async with listening(server, "b") as b:
        assert b.recall.audits.count("acme").audited == 0
        assert b.recall.audits.count("beta").audited == 3


SILENT = struct.pack("<BIf", 1, 0, 1.0)  # a fingerprint without a frame
UNREADABLE = [
    b"",
    b"\1",
    b"\2\0\0" + bytes(40),
    b"\1\xff\xff" + bytes(64),
    b"\1\0\0" + bytes(64),
    b"\1\0\0" + bytes(32) + SILENT,
]


@pytest.mark.parametrize("record", UNREADABLE)
async def test_a_record_that_cannot_be_read_is_passed_over(server: Server, record: bytes) -> None:
    async with listening(server) as listener:
        await listener.remember(ORIGINAL)
        _keep(listener, KEYS.of("default").cache_key(FIELDS, b"x" * 32), entry_of(), record)
        await listener.shared.tier.drain()
        assert not await listener.recall.learn("default", record)
        listener.recall.start_over()
        assert await listener.recall.rebuild() == 1
        assert await listener.find(COPY) is not None


# ------------------------------------------------------------------------------------------------------ hearsay


async def test_what_one_gateway_enrols_another_recalls(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.remember(ORIGINAL, "alpha")
        await b.settle()
        found = await b.find(COPY, "alpha")
        assert found is not None
        assert found.digest == digest_of(ORIGINAL, "alpha")
        assert await b.find(COPY, "beta") is None


async def test_a_gateway_that_comes_later_recalls_what_was_enrolled_before(server: Server) -> None:
    async with listening(server, "a") as a:
        await a.remember(ORIGINAL)
        async with listening(server, "b") as b:
            assert await b.find(COPY) is not None


async def test_erasing_a_subject_takes_its_recordings_from_every_gateway(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.remember(ORIGINAL, tags=("subject",))
        await a.remember(say(7), tags=("another",))
        await b.settle()
        erased = await b.shared.gateways.erase("subject")
        assert (erased.count, erased.complete) == (1, True)
        for listener in (a, b):
            assert listener.recall.entries() == 1
            assert await listener.find(COPY) is None
            assert await listener.find(hiss(say(7), snr_db=12, seed=1)) is not None


async def test_erasing_a_tenant_takes_only_its_own_from_every_gateway(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        for tenant in ("alpha", "beta"):
            await a.remember(ORIGINAL, tenant)
        await b.settle()
        assert (await b.shared.gateways.erase_tenant("alpha")).complete
        for listener in (a, b):
            assert await listener.find(COPY, "alpha") is None
            assert await listener.find(COPY, "beta") is not None
    async with listening(server, "c") as c:
        assert await c.find(COPY, "alpha") is None
        assert await c.find(COPY, "beta") is not None


async def test_what_one_gateway_removes_or_evicts_leaves_the_device_tier_of_another(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        keys = [KEYS.of("default").cache_key(FIELDS, bytes([n]) * 32) for n in range(2)]
        for key, tag in zip(keys, ("removed", "erased"), strict=True):
            await a.shared.tier.put(key, entry_of(tag))
            await b.settle()  # its filter has heard of it
            answer = await b.cache.lookup(key)
            assert answer is not None
            answer.release()
            assert key in b.cache.device
        assert await a.cache.delete(keys[0])
        await b.settle()
        assert keys[0] not in b.cache.device
        assert keys[1] in b.cache.device
        await a.shared.gateways.erase("erased")
        assert keys[1] not in b.cache.device


async def test_an_answer_asked_for_before_its_tenant_was_erased_is_not_stored(server: Server) -> None:
    """Even if it is ready before this gateway's own stream has told it of the erasure."""
    shared = gateway_on(server)
    async with listening(server, "b") as other:
        # A gateway that has moved the epoch itself, and has not yet read its own event.
        await shared.gateways.start()
        await shared.tier.start()
        device = other.cache.device
        cache = type(other.cache)(device, shared.tier, max_entry_bytes=1 << 20, epochs=shared.epochs)
        ready = asyncio.Event()

        async def load() -> AsyncIterator[bytes]:
            await ready.wait()
            yield b"what was said"

        key = KEYS.of("default").cache_key(FIELDS, bytes(32))
        answer = await cache.get(key, load, tags=("subject",))
        assert answer.source is Source.MISS
        await shared.epochs.bump(tenant_tag("default"))
        ready.set()
        assert [frame async for frame in answer.frames] == [b"what was said"]
        await shared.tier.drain()
        assert await shared.tier.get(key) is None
        assert key not in device
        assert cache.stats.not_stored["erased"] == 1
        await cache.aclose()
        await shared.close()


async def test_a_gap_in_the_stream_rebuilds_what_was_missed(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.remember(ORIGINAL)
        await b.settle()
        before = b.rebuilds
        server.client.delete(b.shared.link.names.events)
        await until(lambda: b.rebuilds > before)
        await until(b.recall.ready.is_set)
        assert await b.find(COPY) is not None


async def test_a_gap_in_the_stream_empties_the_device_tier_because_removals_may_have_been_missed(
    server: Server,
) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        key = await _in_device_of(b, a)
        assert b.shared.events._task is not None
        b.shared.events._task.cancel()
        await a.cache.delete(key)
        server.client.delete(b.shared.link.names.events)
        b.shared.events._task = asyncio.create_task(b.shared.events._follow())
        await until(lambda: key not in b.cache.device)


async def test_contract_5_a_gateway_cut_off_keeps_and_recalls_nothing_until_it_is_back(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        key = await _in_device_of(b, a)
        await a.remember(ORIGINAL)
        await b.settle()
        gateways, events, rebuilds = b.shared.gateways, b.shared.events, b.rebuilds
        publish = events.publish

        async def fail(*_: object) -> str:
            raise Unavailable("a test's")

        events.publish = fail  # type: ignore[method-assign, assignment]
        gateways._leased_until -= 40.0
        gateways._look()
        await until(lambda: not events.following)
        assert key not in b.cache.device
        assert await b.find(COPY) is None
        answer = await b.cache.lookup(key)
        assert answer is not None, "Redis knows what is erased"
        answer.release()
        assert key not in b.cache.device
        events.publish = publish  # type: ignore[method-assign]
        await until(lambda: events.following and b.rebuilds > rebuilds)
        await until(b.recall.ready.is_set)
        assert await b.find(COPY) is not None
        answer = await b.cache.lookup(key)
        assert answer is not None
        answer.release()
        assert key in b.cache.device


async def test_what_is_deleted_while_it_is_enrolled_stays_deleted(server: Server) -> None:
    async with listening(server) as listener:
        listener.recall._thread.submit(time.sleep, 0.1)
        key = listener.begin_to_remember(ORIGINAL)
        await listener.shared.tier.drain()
        assert await listener.cache.delete(key)
        await until(lambda: listener.recall.stats.enrolled == 1)
        await listener.shared.tier.drain()
        assert await listener.shared.tier.get(key) is None
        assert [record async for record in _journal(listener).records()] == []


async def test_an_event_that_makes_no_sense_is_counted_and_the_next_is_heard(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.shared.events.publish(QUARANTINED, b"\xff" * 40)
        await b.settle()
        assert b.shared.events.stats.handler_failures == 1
        await a.remember(ORIGINAL)
        await b.settle()
        assert await b.find(COPY) is not None


async def _in_device_of(listener: Listener, other: Listener) -> CacheKey:
    """An entry that `other` stored and `listener` has taken up."""
    key = KEYS.of("default").cache_key(FIELDS, b"k" * 32)
    await other.shared.tier.put(key, entry_of())
    await listener.settle()
    answer = await listener.cache.lookup(key)
    assert answer is not None
    answer.release()
    assert key in listener.cache.device
    return key


def _keep(listener: Listener, key: CacheKey, entry: Entry, record: bytes) -> None:
    listener.shared.tier.put_behind(key, entry)
    _journal(listener).keep_record(key, entry, record)


def _journal(listener: Listener) -> RedisJournal:
    journal = listener.recall._journal
    assert isinstance(journal, RedisJournal)
    return journal

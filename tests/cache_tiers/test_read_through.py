"""Reading through: where answers come from, what is stored, and that what was erased stays erased. No sleeping."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.epochs import LocalEpochs
from cache_tiers.memory import HostMemory
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.read_through import Answer, ReadThrough, Source

KEY = CacheKey("t", bytes(32))
OTHER = CacheKey("t", b"\1" * 32)
NOW = 1000.0
STORED = Entry((b"stored", b"before"), cost_ms=40.0, created=NOW - 60, tags=("s1",))


class Remote:
    """A remote tier in a dictionary. Look-ups wait while `gate` is closed, and have read before they wait."""

    name = "redis"

    def __init__(self) -> None:
        self.held: dict[CacheKey, Entry] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.lookups = 0
        self.hint = True
        self.away = False
        self.failure: Exception | None = None
        self.full = False

    async def get(self, key: CacheKey) -> Entry | None:
        self.lookups += 1
        entry = self.held.get(key)
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return entry

    async def put(self, key: CacheKey, entry: Entry) -> bool:
        self.held[key] = entry
        return True

    async def delete(self, key: CacheKey) -> bool:
        return self.held.pop(key, None) is not None

    async def evict(self, tag: str) -> int:
        if self.failure:
            raise self.failure
        keys = [key for key, entry in self.held.items() if tag in entry.tags]
        for key in keys:
            del self.held[key]
        return len(keys)

    async def erase_key(self, key: CacheKey) -> bool:
        if self.failure:
            raise self.failure
        return await self.delete(key)

    def may_hold(self, key: CacheKey) -> bool:
        return self.hint

    def put_behind(self, key: CacheKey, entry: Entry) -> bool:
        if self.failure:
            raise self.failure
        if self.full:
            return False
        self.held[key] = entry
        return True


class Model:
    """A computation of two frames that waits for its gate before each, and for the end."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = frames or (b"com", b"puted")
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def load(self) -> AsyncIterator[bytes]:
        self.runs += 1
        for frame in self.frames:
            await self.gate.wait()
            yield frame
        await self.gate.wait()
        if self.failure:
            raise self.failure


class House:
    """A read-through with everything around it."""

    def __init__(self, *, capacity: int = 100_000, max_entry_bytes: int = 50_000, remote: bool = True) -> None:
        self.now = NOW
        self.device = DeviceTier(HostMemory(capacity), LfuPolicy(capacity), clock=lambda: self.now)
        self.remote = Remote()
        self.epochs = LocalEpochs()
        self.model = Model()
        self.cache = ReadThrough(
            self.device,
            self.remote if remote else None,
            clock=lambda: self.now,
            now=lambda: 0.0,
            max_entry_bytes=max_entry_bytes,
            epochs=self.epochs,
        )

    async def ask(self, **options: object) -> Answer:
        return await self.cache.get(KEY, self.model.load, **options)  # type: ignore[arg-type]

    async def read(self, **options: object) -> tuple[Source, list[bytes]]:
        answer = await self.ask(**options)
        return answer.source, [frame async for frame in answer.frames]


COMPUTED = [b"com", b"puted"]


@pytest.fixture
def house() -> House:
    return House()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_miss_is_computed_once_and_then_a_device_hit(house: House) -> None:
    first = await house.ask(tags=("s1", "v1"))
    assert (first.source, first.tier, first.entry) == (Source.MISS, "", None)
    assert [frame async for frame in first.frames] == COMPUTED
    house.now += 5
    second = await house.ask()
    assert (second.source, second.tier, second.age_s) == (Source.HIT, "device", 5.0)
    assert second.entry is not None
    assert second.entry.tags == ("s1", "v1")
    assert [frame async for frame in second.frames] == COMPUTED
    assert house.model.runs == 1
    assert house.remote.held[KEY] is second.entry, "it was put into the remote tier behind the answer"
    lease = house.cache.lookup_device(KEY)
    assert lease is not None
    lease.release()
    assert house.device.drop(KEY)
    assert house.device.stats.leased_bytes == 0, "the finished answer has given its lease back"


async def test_a_remote_hit_moves_into_the_device_tier(house: House) -> None:
    house.remote.held[KEY] = STORED
    answer = await house.ask()
    assert (answer.source, answer.tier, answer.age_s, answer.cost_ms) == (Source.HIT, "redis", 60.0, 40.0)
    assert answer.lease is not None, "its block is in use"
    assert [frame async for frame in answer.frames] == [b"stored", b"before"]
    assert (await house.ask()).tier == "device"
    assert (house.model.runs, house.remote.lookups) == (0, 1)


async def test_32_identical_requests_at_once_look_once_and_load_once(house: House) -> None:
    house.remote.gate.clear()
    asked = [asyncio.create_task(house.read()) for _ in range(32)]
    await settle()
    house.remote.gate.set()
    answers = await asyncio.gather(*asked)
    assert [source for source, _ in answers] == [Source.MISS] + [Source.COALESCED] * 31
    assert all(frames == COMPUTED for _, frames in answers)
    assert (house.model.runs, house.remote.lookups) == (1, 1)
    assert (house.cache.stats.loads, house.cache.stats.coalesced, house.cache.stats.stored) == (1, 31, 1)


async def test_32_identical_requests_at_once_share_one_remote_hit(house: House) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    asked = [asyncio.create_task(house.read()) for _ in range(32)]
    await settle()
    house.remote.gate.set()
    assert await asyncio.gather(*asked) == [(Source.HIT, [b"stored", b"before"])] * 32
    assert (house.model.runs, house.remote.lookups, house.cache.stats.remote_hits) == (0, 1, 1)


async def test_whoever_asks_on_the_step_a_flight_ends_finds_the_entry(house: House) -> None:
    asked: list[asyncio.Task[tuple[Source, list[bytes]]]] = []
    await house.read(on_commit=lambda key, entry: asked.append(asyncio.create_task(house.read())))
    assert (await asked[0])[0] is Source.HIT


async def test_a_hint_that_says_no_spares_the_look_up(house: House) -> None:
    house.remote.hint = False
    assert (await house.read())[0] is Source.MISS
    assert (house.remote.lookups, house.cache.stats.remote_spared) == (0, 1)


async def test_a_miss_says_what_became_of_the_look_up(house: House) -> None:
    async def absence(**options: Any) -> str:
        answer = await house.cache.get(KEY, house.model.load, store=False, **options)
        answer.release()
        return answer.absence

    assert await absence() == "absent"
    assert await absence(refresh=True) == ""
    house.remote.away = True
    assert await absence() == "unavailable"
    house.remote.hint = False
    assert await absence() == "spared"
    house.remote.hint, house.remote.failure = True, OSError("connection reset")
    assert await absence() == "unavailable"


async def test_a_remote_tier_that_fails_is_a_miss_and_a_counter(house: House) -> None:
    house.remote.failure = OSError("connection reset")
    told: list[CacheKey] = []
    assert await house.read(on_commit=lambda key, entry: told.append(key)) == (Source.MISS, COMPUTED)
    assert house.cache.stats.remote_errors == 2
    assert await house.cache.lookup(OTHER) is None
    assert (KEY in house.device, told) == (True, [KEY])
    with pytest.raises(OSError, match="reset"):
        await house.cache.evict("s1")


async def test_without_a_remote_tier_all_works_alike() -> None:
    house = House(remote=False)
    assert (await house.read())[0] is Source.MISS
    assert (await house.read())[0] is Source.HIT
    assert await house.cache.lookup(OTHER) is None
    assert await house.cache.delete(KEY)
    assert await house.cache.evict("s1") == 0


async def test_peeking_is_no_access_and_moves_nothing(house: House) -> None:
    house.remote.held[KEY] = STORED
    seen = await house.cache.peek(KEY)
    assert seen is not None
    assert (seen.entry, seen.tier, seen.age_s) == (STORED, "redis", 60.0)
    assert KEY not in house.cache.device
    house.cache.device.store(KEY, STORED)
    seen = await house.cache.peek(KEY)
    assert seen is not None
    assert (seen.tier, house.cache.device.stats.hits, house.cache.device.stats.misses) == ("device", 0, 0)
    assert house.cache.device.resident_keys(1) == []
    house.cache.device.store(OTHER, replace(STORED, expires=NOW + 1))
    house.now += 2
    assert await house.cache.peek(OTHER) is None
    house.remote.failure = RuntimeError("out of order")
    assert await house.cache.peek(CacheKey("t", b"\2" * 32)) is None
    assert house.cache.stats.remote_errors == 1


async def test_lookup_reads_the_tiers_and_joins_no_flight(house: House) -> None:
    house.model.gate.clear()
    flying = await house.ask()
    assert await house.cache.lookup(KEY) is None
    house.remote.held[OTHER] = STORED
    answer = await house.cache.lookup(OTHER)
    assert answer is not None
    assert (answer.source, answer.tier) == (Source.HIT, "redis")
    await answer.aclose()
    again = await house.cache.lookup(OTHER)
    assert again is not None
    assert again.tier == "device"
    again.release()
    flying.release()


async def test_who_looks_in_the_remote_tier_alone_shares_the_look_up_and_moves_it_up(house: House) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    asked = [asyncio.create_task(house.cache.lookup_remote(KEY)) for _ in range(8)]
    await settle()
    house.remote.gate.set()
    found = await asyncio.gather(*asked)
    assert [entry and entry.frames for entry, _ in found] == [STORED.frames] * 8
    assert (house.remote.lookups, KEY in house.device) == (1, True)
    assert await house.cache.lookup_remote(OTHER) == (None, "absent")
    house.remote.hint = False
    assert await house.cache.lookup_remote(OTHER) == (None, "spared")


async def test_when_who_looks_in_the_remote_tier_leaves_the_others_ask_for_themselves(house: House) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    first, second = (asyncio.create_task(house.cache.lookup_remote(KEY)) for _ in range(2))
    await settle()
    first.cancel()
    assert await second == (None, "")
    house.remote.gate.set()
    assert (await house.cache.lookup_remote(KEY))[0] is not None
    assert first.cancelled()


async def test_one_of_those_who_share_a_look_up_may_leave(house: House) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    first, second = (asyncio.create_task(house.cache.lookup_remote(KEY)) for _ in range(2))
    await settle()
    second.cancel()
    house.remote.gate.set()
    assert (await first)[0] is not None
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_who_has_looked_does_not_look_again_and_is_told_what_it_said(house: House) -> None:
    answer = await house.ask(looked="unavailable")
    assert (answer.source, answer.absence, house.remote.lookups) == (Source.MISS, "unavailable", 0)
    answer.release()


async def test_what_must_be_computed_is_known_without_waiting(house: House) -> None:
    cache = house.cache
    assert not cache.must_compute(KEY)  # the remote tier may hold it
    assert cache.must_compute(KEY, looked="absent")
    assert cache.must_compute(KEY, newer=True)
    house.remote.hint = False
    assert cache.must_compute(KEY)
    house.model.gate.clear()
    answer = await house.ask()
    assert not cache.must_compute(KEY)  # it may be followed
    assert not cache.must_compute(KEY, newer=True)
    assert cache.must_compute(KEY, refresh=True)
    assert cache.must_compute(OTHER)
    house.model.gate.set()
    assert [frame async for frame in answer.frames] == COMPUTED
    assert not cache.must_compute(KEY)  # the device tier has it
    assert not cache.must_compute(KEY, looked="absent")
    assert cache.must_compute(KEY, newer=True)


async def test_an_expired_remote_entry_is_a_miss(house: House) -> None:
    house.remote.held[KEY] = replace(STORED, expires=NOW)
    assert (await house.read())[0] is Source.MISS


async def test_a_ttl_makes_the_entry_expire(house: House) -> None:
    await house.read(ttl_s=10.0)
    house.now += 9.9
    assert (await house.read())[0] is Source.HIT
    house.now += 0.1
    assert (await house.read())[0] is Source.MISS


async def test_the_cost_is_what_the_caller_says_computing_took(house: House) -> None:
    house.model.gate.clear()
    answer = await house.ask(cost_ms=lambda: 123.0)
    assert answer.cost_ms == 0.0
    house.model.gate.set()
    assert [frame async for frame in answer.frames] == COMPUTED
    assert answer.cost_ms == 123.0
    again = await house.ask()
    assert again.cost_ms == 123.0
    again.release()


# What is stored, and what is not.


async def test_an_error_reaches_the_caller_and_is_not_stored(house: House) -> None:
    house.model.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await house.read()
    assert (KEY in house.device, house.remote.held) == (False, {})
    house.model.failure = None
    assert (await house.read())[0] is Source.MISS


@pytest.mark.parametrize("frames", [(b"",), (b"", b"")])
async def test_an_empty_answer_is_given_but_not_stored(house: House, frames: tuple[bytes, ...]) -> None:
    house.model.frames = frames
    assert await house.read() == (Source.MISS, list(frames))
    assert (KEY in house.device, house.cache.stats.not_stored["empty"]) == (False, 1)


async def test_an_answer_above_the_cap_is_given_but_not_stored() -> None:
    house = House(max_entry_bytes=1000)
    house.model.frames = (bytes(600),) * 3
    assert await house.read() == (Source.MISS, [bytes(600)] * 3)
    assert (KEY in house.device, house.remote.held) == (False, {})


async def test_an_answer_too_large_for_the_device_goes_to_the_remote_tier() -> None:
    house = House(capacity=1000)
    house.model.frames = (bytes(2000),)
    told: list[CacheKey] = []
    await house.read(on_commit=lambda key, entry: told.append(key))
    assert (KEY in house.device, KEY in house.remote.held, told) == (False, True, [KEY])
    house.remote.full = True
    house.remote.held.clear()
    await house.read(on_commit=lambda key, entry: told.append(key))
    assert (told, house.cache.stats.not_stored["refused"]) == ([KEY], 1)


@pytest.mark.parametrize("options", [{"store": False}, {"ttl_s": 0.0}])
async def test_what_may_not_be_stored_is_not(house: House, options: dict[str, object]) -> None:
    assert await house.read(**options) == (Source.MISS, COMPUTED)
    assert (KEY in house.device, house.remote.held) == (False, {})


async def test_a_request_that_forbids_storing_may_follow_but_is_never_followed(house: House) -> None:
    house.model.gate.clear()
    answers = [await house.ask(store=store) for store in (False, True, False)]
    assert [answer.source for answer in answers] == [Source.MISS, Source.MISS, Source.COALESCED]
    house.model.gate.set()
    for answer in answers:
        assert [frame async for frame in answer.frames] == COMPUTED
    assert (house.model.runs, house.cache.stats.stored) == (2, 1)


async def test_a_refresh_computes_and_replaces(house: House) -> None:
    await house.read()
    house.model = Model(b"newer")
    assert await house.read(refresh=True) == (Source.MISS, [b"newer"])
    assert await house.read() == (Source.HIT, [b"newer"])
    assert house.remote.held[KEY].frames == (b"newer",)


async def test_a_running_flight_cannot_store_over_a_refresh(house: House) -> None:
    old = house.model
    old.gate.clear()
    flying = await house.ask()
    house.model = Model(b"newer")
    await house.read(refresh=True)
    old.gate.set()
    assert [frame async for frame in flying.frames] == COMPUTED
    assert await house.read() == (Source.HIT, [b"newer"])


async def test_a_slow_remote_look_up_cannot_put_the_old_answer_over_a_refresh(house: House) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    looking = asyncio.create_task(house.cache.lookup(KEY))
    await settle()
    await house.read(refresh=True)
    house.remote.gate.set()
    await looking
    assert (await house.read())[1] == COMPUTED


async def test_a_refresh_that_forbids_storing_is_a_bypass(house: House) -> None:
    await house.read()
    house.model = Model(b"newer")
    assert await house.read(refresh=True, store=False) == (Source.MISS, [b"newer"])
    assert await house.read() == (Source.HIT, COMPUTED)


async def test_a_commit_hook_that_fails_spoils_nothing(house: House) -> None:
    def hook(key: CacheKey, entry: Entry) -> None:
        raise ZeroDivisionError

    assert await house.read(on_commit=hook) == (Source.MISS, COMPUTED)
    assert (await house.read())[0] is Source.HIT
    assert house.cache.flights.commit_errors == 1


# What is erased stays erased.


async def test_a_flight_whose_tag_has_moved_is_not_stored(house: House) -> None:
    house.model.gate.clear()
    answer = await house.ask(tags=("s1",))
    house.epochs.bump("s1")
    house.model.gate.set()
    assert [frame async for frame in answer.frames] == COMPUTED, "the caller still gets its answer"
    assert (KEY in house.device, house.remote.held) == (False, {})
    assert house.cache.stats.not_stored["erased"] == 1


async def test_the_tags_of_a_follower_count_too(house: House) -> None:
    house.model.gate.clear()
    leader = await house.ask(tags=("s1",))
    follower = await house.ask(tags=("s2",))
    follower.release()
    await house.cache.evict("s2")
    house.model.gate.set()
    assert [frame async for frame in leader.frames] == COMPUTED
    assert KEY not in house.device


FORGETTING: dict[str, Callable[[House], object]] = {
    "evict": lambda house: house.cache.evict("s1"),
    "delete": lambda house: house.cache.delete(KEY),
}


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
async def test_deleting_reaches_every_tier_and_what_is_under_way(
    house: House, forget: Callable[[House], asyncio.Future[int]]
) -> None:
    house.model.gate.clear()
    answer = await house.ask(tags=("s1",))
    house.device.store(KEY, STORED)
    house.remote.held[KEY] = STORED
    assert await forget(house)
    house.model.gate.set()
    assert [frame async for frame in answer.frames] == COMPUTED
    assert (KEY in house.device, house.remote.held) == (False, {})
    assert not await forget(house)


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
@pytest.mark.parametrize("by", ["get", "lookup"])
async def test_an_entry_on_its_way_up_is_neither_given_nor_kept_once_deleted(
    house: House, forget: Callable[[House], asyncio.Future[int]], by: str
) -> None:
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    if by == "get":
        asked: asyncio.Task[object] = asyncio.create_task(house.read(tags=("s1",)))
    else:
        asked = asyncio.create_task(house.cache.lookup(KEY))
    await settle()
    await forget(house)
    house.remote.gate.set()
    assert await asked == ((Source.MISS, COMPUTED) if by == "get" else None)
    assert (KEY in house.device, house.remote.held) == (False, {})


async def test_an_erasure_that_the_remote_tier_is_slow_to_finish_lets_nothing_back_up(house: House) -> None:
    house.remote.held[KEY] = STORED
    evicting, go = asyncio.Event(), asyncio.Event()
    evict = house.remote.evict

    async def slow_evict(tag: str) -> int:
        evicting.set()
        await go.wait()
        return await evict(tag)

    house.remote.evict = slow_evict  # type: ignore[method-assign]
    erasing = asyncio.create_task(house.cache.evict("s1"))
    await evicting.wait()
    assert (await house.read())[0] is Source.HIT, "not yet erased: the erasure has not returned"
    assert KEY in house.device
    go.set()
    assert await erasing == 2
    assert KEY not in house.device


async def test_dropping_by_condition_is_local_and_reaches_flights(house: House) -> None:
    house.remote.held[OTHER] = STORED
    house.model.gate.clear()
    answer = await house.ask()
    house.device.store(OTHER, STORED)
    assert house.cache.drop_where(lambda key: key.tenant == "t") == 1
    house.model.gate.set()
    assert [frame async for frame in answer.frames] == COMPUTED
    assert (KEY in house.device, OTHER in house.remote.held) == (False, True)


# Leaving.


async def test_a_caller_that_leaves_while_the_remote_tier_is_asked_breaks_no_other(house: House) -> None:
    house.remote.gate.clear()
    leader, follower = (asyncio.create_task(house.read()) for _ in range(2))
    await settle()
    leader.cancel()
    await settle()
    house.remote.gate.set()
    assert await follower == (Source.COALESCED, COMPUTED)
    assert house.remote.lookups == 1


async def test_when_all_have_left_the_work_stops_and_nothing_is_held(house: House) -> None:
    house.model.gate.clear()
    answers = [await house.ask() for _ in range(3)]
    for answer in answers:
        await answer.aclose()
    await settle()
    assert len(house.cache.flights) == 0
    house.model.gate.set()
    assert (await house.read())[0] is Source.MISS


async def test_a_hit_that_is_not_read_to_its_end_gives_its_lease_back(house: House) -> None:
    house.device.store(KEY, STORED)
    answer = await house.ask()
    frames = answer.frames
    assert await anext(frames) == b"stored"
    house.device.drop(KEY)
    assert house.device.stats.leased_bytes > 0
    await answer.aclose()
    assert house.device.stats.leased_bytes == 0


async def test_closing_stops_what_is_computed(house: House) -> None:
    house.model.gate.clear()
    answer = await house.ask()
    await house.cache.aclose()
    with pytest.raises(Exception, match="cancelled"):
        await anext(answer.frames)


EVENTS = ("ask", "ask for s2", "refresh", "remote answers", "model runs on", "caller leaves", "erase", "delete")


async def play(events: tuple[str, ...], pace: int) -> None:
    """Any order of events: nothing that was known before an erasure is there after it, and all adds up."""
    house = House()
    house.remote.held[KEY] = STORED
    house.remote.gate.clear()
    house.model.gate.clear()
    loads: list[int] = []  # the run that each stored answer came from
    started = 0
    forgotten = -1  # runs begun, and entries held, up to here must not be found any more

    def load() -> AsyncIterator[bytes]:
        nonlocal started
        started += 1
        model = Model(b"run %d" % started)
        model.gate = house.model.gate
        return model.load()

    async def read(**options: object) -> bytes:
        answer = await house.cache.get(KEY, load, **options)  # type: ignore[arg-type]
        return b"".join([frame async for frame in answer.frames])

    tasks: list[asyncio.Task[bytes]] = []
    for event in events:
        match event:
            case "ask":
                tasks.append(asyncio.create_task(read(tags=("s1",))))
            case "ask for s2":
                tasks.append(asyncio.create_task(read(tags=("s1", "s2"))))
            case "refresh":
                tasks.append(asyncio.create_task(read(tags=("s1",), refresh=True)))
            case "remote answers":
                house.remote.gate.set()
            case "model runs on":
                house.model.gate.set()
            case "caller leaves" if tasks:
                tasks[0].cancel()
            case "erase":
                house.epochs.bump("s1")
                await house.cache.evict("s1")
                forgotten = started
            case "delete":
                await house.cache.delete(KEY)
                forgotten = started
        for _ in range(pace):
            await asyncio.sleep(0)
    house.remote.gate.set()
    house.model.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert len(house.cache.flights) == 0
    assert house.device.stats.leased_bytes == 0
    assert house.device.stats.abandoned == 0
    for held in (house.device._residents[KEY].entry if KEY in house.device else None, house.remote.held.get(KEY)):
        if held is not None and forgotten >= 0:
            assert held is not STORED
            loads.append(int(held.frames[0].split()[1]))
            assert loads[-1] > forgotten, "it was begun before the erasure"
    house.device.drop(KEY)
    assert house.device.stats.leased_bytes == 0, "no answer that is over holds a lease"


async def test_a_delete_that_the_remote_tier_cannot_do_is_told(house: House) -> None:
    await house.read()
    house.remote.failure = OSError("connection reset")
    with pytest.raises(OSError, match="reset"):
        await house.cache.delete(KEY)
    assert KEY not in house.device


async def test_while_nothing_is_to_be_kept_all_is_answered_and_only_the_remote_tier_stores(house: House) -> None:
    house.cache.keeping = False
    house.remote.held[OTHER] = STORED
    assert await house.cache.lookup(OTHER) is not None
    assert await house.read() == (Source.MISS, COMPUTED)
    assert KEY not in house.device
    assert OTHER not in house.device
    assert await house.read() == (Source.HIT, COMPUTED)
    house.cache.keeping = True
    await house.read()
    assert KEY in house.device


@pytest.mark.parametrize("pace", [1, 8])
async def test_in_any_order_of_events_what_was_erased_stays_erased(pace: int) -> None:
    for middle in itertools.product(EVENTS, repeat=3):
        await play(("ask", *middle, "ask"), pace)

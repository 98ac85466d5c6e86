"""Pins on a real Redis: known to every gateway, there again after a restart, and gone with what is erased."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cache_tiers.codec import pack_names, pack_record
from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.events import TENANT, tenant_tag
from cache_tiers.link import Names, Unavailable
from cache_tiers.memory import HostMemory
from cache_tiers.pins import Pins
from cache_tiers.policy.base import PinRefused
from cache_tiers.policy.worth import WorthPolicy
from tests.cache_tiers.conftest import Gateway, MakeGateway, Server, until

ENTRY = Entry((b"frame",), cost_ms=1.0, created=time.time(), tags=("subject",))
NAMES = Names()


def key(n: int, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "big"))


@dataclass
class Pinning:
    """A gateway with a device tier of ten entries, and its pins."""

    gateway: Gateway
    device: DeviceTier
    pins: Pins


MakePinning = Callable[..., Awaitable[Pinning]]


@pytest.fixture
def make(make_gateway: MakeGateway) -> MakePinning:
    async def of_name(name: str = "a", *, most: int = 100, **settings: Any) -> Pinning:
        gateway = await make_gateway(name, start=False)
        room = 10 * ENTRY.weight
        policy = WorthPolicy[CacheKey](room, group=lambda key: key.tenant, **{"pin_share": 1.0, **settings})
        device = DeviceTier(HostMemory(2 * room), policy, clock=time.time)
        pins = Pins(gateway.link, gateway.events, gateway.epochs, device, most=most, deadline=5.0)

        def drop(tag: str) -> None:
            device.drop_where(lambda key: tag == tenant_tag(key.tenant))
            device.drop_tag(tag)

        gateway.gateways.on_erase(drop)
        gateway.gateways.on_erase(pins.erased)
        await gateway.start()
        return Pinning(gateway, device, pins)

    return of_name


async def test_gateways_see_each_others_pins(make: MakePinning) -> None:
    """Of what is there already, of what comes later, and no more once it is unpinned."""
    one, other = await make("a"), await make("b")
    for n in (1, 2):
        one.device.store(key(n), ENTRY)
        assert await one.pins.pin(key(n))
    other.device.store(key(3), ENTRY)
    assert await other.pins.pin(key(3))
    await until(lambda: len(one.pins) == len(other.pins) == 3)
    assert not one.device.is_pinned(key(3))
    one.device.store(key(3), ENTRY)
    other.device.store(key(1), ENTRY)
    assert one.device.is_pinned(key(3))
    assert other.device.is_pinned(key(1))
    assert await other.pins.unpin(key(1))
    await until(lambda: key(1) not in one.pins)
    assert not one.device.is_pinned(key(1))
    assert key(1) in one.device, "it stays, as one like others"
    assert not await other.pins.unpin(key(1))


async def test_pins_outlive_the_process_and_cannot_be_evicted(server: Server, make: MakePinning) -> None:
    first = await make("a")
    for n in (1, 2):
        first.device.store(key(n), ENTRY)
        await first.gateway.tier.put(key(n), ENTRY)
        assert await first.pins.pin(key(n))
    assert server.client.ttl(NAMES.pins) == -1
    await first.gateway.close()
    second = await make("b")
    asked: list[CacheKey] = []

    async def fetch(key: CacheKey) -> None:
        asked.append(key)
        entry = await second.gateway.tier.get(key)
        assert entry is not None
        second.device.store(key, entry)

    second.device.store(key(2), ENTRY)
    await second.pins.bring(fetch)
    assert asked == [key(1)], "the other one has come up already"
    for n in range(10, 30):
        second.device.store(key(n), ENTRY)
    assert [n for n in (1, 2) if second.device.is_pinned(key(n))] == [1, 2]


async def test_what_is_pinned_later_than_this_gateway_can_keep_is_counted(make: MakePinning) -> None:
    large, small = await make("a"), await make("b", pin_share=0.0)
    small.device.store(key(1), ENTRY)
    large.device.store(key(1), ENTRY)
    assert await large.pins.pin(key(1))
    await until(lambda: key(1) in small.pins)
    assert not small.device.is_pinned(key(1))
    assert small.device.stats.unpinned == 1


@pytest.mark.parametrize("tag", ["subject", TENANT + "t"])
async def test_an_erasure_takes_the_pins_along(server: Server, make: MakePinning, tag: str) -> None:
    one, other = await make("a"), await make("b")
    for n, tenant, tags in ((1, "t", ("subject",)), (2, "u", ())):
        one.device.store(key(n, tenant), replace(ENTRY, tags=tags))
        assert await one.pins.pin(key(n, tenant))
    await until(lambda: len(other.pins) == 2)
    gateways = other.gateway.gateways
    erased = await (gateways.erase_tenant("t") if tag.startswith(TENANT) else gateways.erase(tag))
    assert erased.complete
    for each in (one, other):
        assert [key(1) in each.pins, key(2, "u") in each.pins] == [False, True]
    assert server.client.hkeys(NAMES.pins) == [pack_names([(key(2, "u"), False)])]
    one.device.store(key(1), ENTRY)
    assert not one.device.is_pinned(key(1))


async def test_a_pin_that_outlived_its_erasure_is_none(server: Server, make: MakePinning) -> None:
    """Of a backup that was restored; and what is no record at all is cleared too."""
    first = await make("a")
    await first.gateway.epochs.bump("subject")
    for n, epoch in ((1, 0), (2, 1)):
        name = pack_names([(key(n), False)])
        server.client.hset(NAMES.pins, name, pack_record(name, Epochs((("subject", epoch),))))
    server.client.hset(NAMES.pins, b"x", b"no record")
    second = await make("b")
    assert [key(1) in second.pins, key(2) in second.pins] == [False, True]
    assert server.client.hlen(NAMES.pins) == 1


async def test_an_erasure_while_a_pin_is_noted_ends_it(server: Server, make: MakePinning) -> None:
    one = await make("a")
    one.device.store(key(1), ENTRY)
    note = one.pins._note

    async def erased_meanwhile(key: CacheKey, epochs: Epochs) -> None:
        assert (await one.gateway.gateways.erase("subject")).complete
        await note(key, epochs)

    one.pins._note = erased_meanwhile  # type: ignore[method-assign]
    assert not await one.pins.pin(key(1))
    assert len(one.pins) == server.client.hlen(NAMES.pins) == 0


async def test_dropping_an_entry_ends_its_pin(server: Server, make: MakePinning) -> None:
    one, other = await make("a"), await make("b")
    one.device.store(key(1), ENTRY)
    assert await one.pins.pin(key(1))
    await until(lambda: key(1) in other.pins)
    await other.gateway.tier.erase_key(key(1))
    await until(lambda: key(1) not in one.pins and key(1) not in other.pins)
    await until(lambda: not server.client.hlen(NAMES.pins))


async def test_a_caller_who_leaves_while_a_pin_is_noted_leaves_no_pin(make: MakePinning) -> None:
    one = await make("a")
    one.device.store(key(1), ENTRY)
    begun = asyncio.Event()

    async def hang(key: CacheKey, epochs: Epochs) -> None:
        begun.set()
        await asyncio.Event().wait()

    one.pins._note = hang  # type: ignore[method-assign]
    pinning = asyncio.create_task(one.pins.pin(key(1)))
    await begun.wait()
    pinning.cancel()
    await asyncio.gather(pinning, return_exceptions=True)
    assert key(1) not in one.pins
    assert not one.device.is_pinned(key(1))


async def test_without_redis_nothing_is_pinned(server: Server, make: MakePinning) -> None:
    one = await make("a")
    one.device.store(key(1), ENTRY)
    call = one.gateway.link.call

    async def fail(*command: Any, **settings: Any) -> Any:
        raise Unavailable("a test's")

    one.gateway.link.call = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await one.pins.pin(key(1))
    assert not one.device.is_pinned(key(1))
    one.gateway.link.call = call  # type: ignore[method-assign]
    assert await one.pins.pin(key(1))
    one.gateway.link.call = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await one.pins.unpin(key(1))
    one.gateway.link.call = call  # type: ignore[method-assign]
    assert await one.pins.unpin(key(1)), "whoever failed can be called again"
    assert not one.device.is_pinned(key(1))
    assert server.client.hlen(NAMES.pins) == 0


async def test_pins_are_limited_for_each_tenant(make: MakePinning) -> None:
    """In number, because Redis keeps them for ever, and in bytes, because the tier does."""
    shares = {"t": 0.5, "u": 0.1}
    one = await make("a", most=3, pins_of=lambda tenant: shares[tenant])
    for n in range(1, 6):
        one.device.store(key(n), ENTRY)
    one.device.store(key(1, "u"), ENTRY)
    one.device.store(key(2, "u"), ENTRY)
    assert not await one.pins.pin(key(99))
    for n in (1, 2, 3, 3):
        assert await one.pins.pin(key(n))
    with pytest.raises(PinRefused, match="3 entries are pinned, and no more may be"):
        await one.pins.pin(key(4))
    assert await one.pins.pin(key(1, "u"))
    weight = ENTRY.weight
    with pytest.raises(
        PinRefused, match=f"keys of 'u' take {weight} bytes and may take {weight}; this one takes {weight}"
    ):
        await one.pins.pin(key(2, "u"))
    assert await one.pins.unpin(key(1, "u"))
    assert await one.pins.pin(key(2, "u"))

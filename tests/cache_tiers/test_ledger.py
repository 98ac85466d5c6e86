"""Control records are kept by kind and name as they were put, without a time to live, and a failure is said aloud."""

from __future__ import annotations

from typing import Any

import pytest

from cache_tiers.ledger import Ledger
from cache_tiers.link import Unavailable
from tests.cache_tiers.conftest import MakeGateway, Server


async def test_what_was_put_is_read_back_byte_by_byte(make_gateway: MakeGateway) -> None:
    ledger = Ledger((await make_gateway()).link)
    values = {"acme": bytes(range(256)), "béta": b"", "a:b {c}": b"{}"}
    assert await ledger.all("audit") == {}
    for name, value in values.items():
        await ledger.put("audit", name, value)
    assert await ledger.all("audit") == values


async def test_a_newer_value_takes_the_place_of_an_older_one(make_gateway: MakeGateway) -> None:
    ledger = Ledger((await make_gateway()).link)
    for value in (b"old", b"new"):
        await ledger.put("audit", "acme", value)
    assert await ledger.all("audit") == {"acme": b"new"}


async def test_kinds_are_apart_and_gateways_together(make_gateway: MakeGateway) -> None:
    one, other = Ledger((await make_gateway("a")).link), Ledger((await make_gateway("b")).link)
    await one.put("audit", "acme", b"1")
    await one.put("quarantine", "acme", b"2")
    assert await other.all("audit") == {"acme": b"1"}
    assert await other.all("quarantine") == {"acme": b"2"}


async def test_records_are_control_records(make_gateway: MakeGateway, server: Server) -> None:
    """Without a time to live, so that `volatile-lfu` never evicts them, and in the slot of the other ones."""
    gateway = await make_gateway()
    await Ledger(gateway.link).put("audit", "acme", b"1")
    names: list[Any] = server.client.keys("*ledger*")
    (name,) = names
    assert server.client.ttl(name) == -1
    assert b"{control}" in name
    assert gateway.link.names.key_of(name) is None, "no value or record by this name"


async def test_they_survive_when_values_are_evicted(make_gateway: MakeGateway, own_server: Server) -> None:
    gateway = await make_gateway(on=own_server)
    ledger = Ledger(gateway.link)
    await ledger.put("audit", "acme", b"1")
    client = own_server.client
    client.config_set("maxmemory", client.info("memory")["used_memory"] + (2 << 20))
    for number in range(64):
        client.set(f"value {number}", bytes(1 << 16), ex=3600)
    assert client.info("stats")["evicted_keys"] > 0
    assert await ledger.all("audit") == {"acme": b"1"}


async def test_without_redis_every_call_says_so(make_gateway: MakeGateway, own_server: Server) -> None:
    ledger = Ledger((await make_gateway(on=own_server, start=False)).link)
    own_server.kill()
    with pytest.raises(Unavailable):
        await ledger.put("audit", "acme", b"1")
    with pytest.raises(Unavailable):
        await ledger.all("audit")

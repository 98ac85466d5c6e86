"""Whatever has become of what lies in Redis, no answer is wrong: it is a miss, and is made and stored anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from bench.fleet import Pair, eventually
from bench.open_loop import Ask, Mode, Status
from cache_tiers.link import Names
from tests.faults.conftest import asked

NAMES = Names()
NONCE, CIPHERTEXT = 11, 23
"""Where they begin in a sealed value."""


def flip(at: int) -> Callable[[redis.Redis, list[bytes]], None]:
    """One bit of every value."""

    def damage(client: redis.Redis, values: list[bytes]) -> None:
        for name in values:
            data = client.get(name)
            client.setrange(name, at % len(data), bytes((data[at] ^ 1,)))

    return damage


def cut(client: redis.Redis, values: list[bytes]) -> None:
    for name in values:
        client.set(name, client.get(name)[:-1], keepttl=True)


def empty(client: redis.Redis, values: list[bytes]) -> None:
    for name in values:
        client.set(name, b"", keepttl=True)


def moved(client: redis.Redis, values: list[bytes]) -> None:
    """Each has what was its neighbour's."""
    held = client.mget(values)
    for name, other in zip(values, [*held[1:], held[0]], strict=True):
        client.set(name, other, keepttl=True)


def other_type(client: redis.Redis, values: list[bytes]) -> None:
    for name in values:
        client.delete(name)
        client.rpush(name, b"not", b"a", b"value")


def gone(client: redis.Redis, values: list[bytes]) -> None:
    client.delete(*values)


DAMAGE = {
    "magic": flip(0), "schema": flip(2), "key id": flip(3), "nonce": flip(NONCE), "first byte": flip(CIPHERTEXT),
    "tag": flip(-1), "cut short": cut, "empty": empty, "another's": moved, "another type": other_type, "gone": gone,
}  # fmt: skip


async def stored(pair: Pair, asks: list[Ask]) -> list[bytes]:
    """The names of the values in Redis, once it has the answers to all, made anew."""
    client, found = pair.redis.client, list[bytes]()
    for each in (pair, replace(pair, one=pair.other, other=pair.one)):
        await each.share()  # what either writes behind earlier answers comes in order, so it is there by then
    client.delete(*client.keys(NAMES.values + "*"), b"none")
    await asked(pair.one, [ask.by(Mode.REFRESH) for ask in asks])

    async def complete() -> bool:
        found[:] = list(client.scan_iter(NAMES.values + "*", count=1000))
        return len(found) >= len(asks)

    await eventually(complete)
    return found


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damaged_values_are_misses(pair: Pair, asks: list[Ask], damage: str) -> None:
    few = asks[::3]
    values = await stored(pair, few)
    DAMAGE[damage](pair.redis.client, values)
    report = await asked(pair.other, few)
    assert all(attempt.tier != "redis" for attempt in report.attempts), "none of these could be read"
    await pair.share()


@pytest.mark.parametrize("how", ["flipped", "gone"])
async def test_damaged_data_keys_make_misses_and_are_replaced(pair: Pair, asks: list[Ask], how: str) -> None:
    """Gateways have opened the keys before; losing the event stream makes them read these anew."""
    await stored(pair, asks[::3])
    client, name = pair.redis.client, NAMES.data_keys("default")
    for generation, wrapped in client.hgetall(name).items():
        if not generation.startswith(b"used:"):
            client.hset(name, generation, wrapped[:-1] + bytes((wrapped[-1] ^ 1,)))
    if how == "gone":
        client.delete(name)
    client.delete(NAMES.events)
    await asked(pair.other, asks)
    await pair.share()
    report = await asked(pair.one, asks)
    assert {attempt.status for attempt in report.attempts} <= {Status.MISS, Status.HIT_EXACT}

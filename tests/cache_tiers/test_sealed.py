"""Values open only as what they were sealed as, data keys come and go without a flush, and seals are counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cache_tiers.entry import CacheKey
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.master_key import MasterKeyError, load_or_create_master_key
from cache_tiers.sealed import STAMP, Foreign, Keyring, Tampered
from tests.cache_tiers.conftest import MASTER, Clock, Server

KEY = CacheKey("tenant", bytes(32))
OTHER_MASTER = bytes(range(1, 33))


@pytest.fixture
async def link(server: Server) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url, deadline=5.0)
    yield link
    await link.aclose()


@pytest.fixture
def keyring(link: RedisLink) -> Keyring:
    return Keyring(link, [MASTER], deadline=5.0)


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) + 1])
async def test_what_is_sealed_opens(keyring: Keyring, size: int) -> None:
    plain = os.urandom(size)
    sealed = await keyring.seal(KEY, b"v", plain)
    assert await keyring.open(KEY, b"v", sealed) == plain
    assert size < 32 or plain not in sealed


async def test_two_seals_of_one_value_differ_from_their_first_bytes(keyring: Keyring) -> None:
    first, second = [await keyring.seal(KEY, b"v", b"same") for _ in range(2)]
    assert first[:STAMP] != second[:STAMP]


@pytest.mark.parametrize(
    "other", [CacheKey("tenant", bytes([1]) + bytes(31)), CacheKey("tenant2", bytes(32))], ids=["digest", "tenant"]
)
async def test_a_value_does_not_open_under_another_key(keyring: Keyring, other: CacheKey) -> None:
    sealed = await keyring.seal(KEY, b"v", b"secret")
    with pytest.raises((Tampered, Foreign)):
        await keyring.open(other, b"v", sealed)


async def test_a_value_does_not_open_as_a_record(keyring: Keyring) -> None:
    with pytest.raises(Tampered):
        await keyring.open(KEY, b"r", await keyring.seal(KEY, b"v", b"secret"))


async def test_any_flipped_bit_is_noticed(keyring: Keyring) -> None:
    sealed = await keyring.seal(KEY, b"v", b"secret")
    for at in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[at] ^= 1
        expected = Foreign if at < 11 else Tampered  # magic, schema and key id say whose it is
        with pytest.raises(expected):
            await keyring.open(KEY, b"v", bytes(flipped))


@pytest.mark.parametrize("garbage", [b"", b"x", b"R" * 40, os.urandom(500)])
async def test_garbage_is_foreign(keyring: Keyring, garbage: bytes) -> None:
    with pytest.raises(Foreign):
        await keyring.open(KEY, b"v", garbage)


async def test_two_gateways_that_start_at_once_agree_on_the_data_key(link: RedisLink) -> None:
    rings = [Keyring(link, [MASTER], deadline=5.0) for _ in range(5)]
    sealed = await asyncio.gather(*(ring.seal(KEY, b"v", b"plain") for ring in rings))
    assert len({value[3:11] for value in sealed}) == 1
    assert sum(ring.stats.keys_made for ring in rings) == 1
    assert await rings[0].open(KEY, b"v", sealed[4]) == b"plain"


async def test_a_gateway_that_starts_later_opens_what_is_there(link: RedisLink, keyring: Keyring) -> None:
    sealed = await keyring.seal(KEY, b"v", b"plain")
    assert await Keyring(link, [MASTER], deadline=5.0).open(KEY, b"v", sealed) == b"plain"


async def test_contract_6_rotating_the_master_key_re_wraps_and_flushes_nothing(
    link: RedisLink, keyring: Keyring
) -> None:
    sealed = {tenant: await keyring.seal(CacheKey(tenant, bytes(32)), b"v", b"plain") for tenant in ("a", "b")}
    assert await keyring.rotate(OTHER_MASTER) == 2
    assert await keyring.rotate(OTHER_MASTER) == 0
    successor = Keyring(link, [OTHER_MASTER], deadline=5.0)
    for tenant, value in sealed.items():
        assert await successor.open(CacheKey(tenant, bytes(32)), b"v", value) == b"plain"
    assert await keyring.open(CacheKey("a", bytes(32)), b"v", sealed["a"]) == b"plain"


async def test_contract_6_a_gateway_without_the_master_key_leaves_values_alone_and_uses_a_key_of_its_own(
    link: RedisLink, keyring: Keyring
) -> None:
    sealed = await keyring.seal(KEY, b"v", b"plain")
    stranger = Keyring(link, [OTHER_MASTER], deadline=5.0)
    with pytest.raises(Foreign):
        await stranger.open(KEY, b"v", sealed)
    theirs = await stranger.seal(KEY, b"v", b"theirs")
    assert await stranger.open(KEY, b"v", theirs) == b"theirs"
    with pytest.raises(Foreign):
        await keyring.open(KEY, b"v", theirs)
    assert await keyring.open(KEY, b"v", await keyring.seal(KEY, b"v", b"still")) == b"still"


async def test_an_older_master_key_is_accepted_while_listed(link: RedisLink, keyring: Keyring) -> None:
    sealed = await keyring.seal(KEY, b"v", b"plain")
    assert await Keyring(link, [OTHER_MASTER, MASTER], deadline=5.0).open(KEY, b"v", sealed) == b"plain"


async def test_erasing_a_tenant_makes_its_values_unreadable(link: RedisLink, keyring: Keyring) -> None:
    sealed = await keyring.seal(KEY, b"v", b"plain")
    other = await keyring.seal(CacheKey("other", bytes(32)), b"v", b"plain")
    assert await keyring.destroy("tenant")
    for ring in (keyring, Keyring(link, [MASTER], deadline=5.0)):
        with pytest.raises(Foreign):
            await ring.open(KEY, b"v", sealed)
    assert await keyring.open(CacheKey("other", bytes(32)), b"v", other) == b"plain"
    again = await keyring.seal(KEY, b"v", b"new")
    assert again[3:11] != sealed[3:11]


async def test_seals_are_bounded_per_data_key_over_all_gateways(link: RedisLink) -> None:
    rings = [Keyring(link, [MASTER], max_seals=20, block=5, deadline=5.0) for _ in range(2)]
    sealed = [await rings[i % 2].seal(KEY, b"v", b"plain") for i in range(100)]
    by_key = {value[3:11]: 0 for value in sealed}
    for value in sealed:
        by_key[value[3:11]] += 1
    assert max(by_key.values()) <= 20
    assert len(by_key) >= 5
    assert [await rings[1].open(KEY, b"v", value) for value in sealed] == [b"plain"] * 100


async def test_a_burst_of_seals_stays_within_the_block(link: RedisLink, server: Server) -> None:
    ring = Keyring(link, [MASTER], max_seals=8, block=4, deadline=5.0)
    sealed = await asyncio.gather(*(ring.seal(KEY, b"v", b"plain") for _ in range(50)))
    counts = [sum(value[3:11] == key_id for value in sealed) for key_id in {value[3:11] for value in sealed}]
    assert max(counts) <= 8


async def test_an_unknown_key_id_is_asked_for_once_in_a_while(link: RedisLink, keyring: Keyring) -> None:
    clock = Clock()
    ring = Keyring(link, [MASTER], deadline=5.0, clock=clock)
    sealed = bytearray(await keyring.seal(KEY, b"v", b"plain"))
    sealed[5] ^= 1
    asked = []
    for seconds in (0, 1, 10):
        clock.now += seconds
        before = link.stats.calls
        with pytest.raises(Foreign):
            await ring.open(KEY, b"v", bytes(sealed))
        asked.append(link.stats.calls - before)
    assert asked == [1, 0, 1]


async def test_without_redis_there_is_no_key(tmp_path: Path) -> None:
    link = RedisLink(f"unix://{tmp_path}/none", deadline=5.0)
    with pytest.raises(Unavailable):
        await Keyring(link, [MASTER]).seal(KEY, b"v", b"plain")
    await link.aclose()


async def test_no_key_shows_in_redis_or_in_a_repr(server: Server, keyring: Keyring) -> None:
    await keyring.seal(KEY, b"v", b"plain")
    stored = b"".join(server.client.hgetall("refrain:keys:{tenant}").values())
    data_key = keyring._unwrap("tenant", server.client.hget("refrain:keys:{tenant}", "1"))
    assert data_key is not None
    assert data_key not in stored
    assert MASTER not in stored
    assert MASTER.hex() not in repr(vars(keyring))
    assert data_key.hex() not in repr(vars(keyring))


def test_the_master_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    key = load_or_create_master_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_master_key(path) == key
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [("ab" * 32, 0o644, "chmod 600"), ("ab" * 16, 0o600, "16 bytes"), ("no key", 0o600, "64 hex digits")],
)
def test_a_bad_master_key_file_is_refused(tmp_path: Path, text: str, mode: int, says: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match=says):
        load_or_create_master_key(path)

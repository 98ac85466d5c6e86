"""Values open only as what they were sealed as, data keys come and go without a flush, and seals are counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.master_key import MasterKeyError, load_master_key, load_or_create_master_key
from cache_tiers.sealed import PACKED, PLAIN, Foreign, Keyring, Tampered, stamp_of
from tests.cache_tiers.conftest import MASTER, Clock, Gateway, MakeGateway, Server

KEY = CacheKey("tenant", bytes(32))
ENTRY = Entry((b"frame",), cost_ms=1.0, created=1.0)
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


@pytest.mark.parametrize("size", [600, 60_000, 300_000, 4 << 20])
async def test_what_packs_well_is_sealed_in_fewer_bytes_and_read_by_all(link: RedisLink, size: int) -> None:
    """Contract 6: values of the first version, which packed nothing, open too."""
    plain = (b"a word that comes again, " * size)[:size]
    packing, plainly = (Keyring(link, [MASTER], deadline=5.0, pack_up_to=limit) for limit in (1 << 24, 0))
    packed, as_it_is = [await ring.seal(KEY, b"v", plain) for ring in (packing, plainly)]
    assert (packed[2], as_it_is[2]) == (PACKED, PLAIN)
    assert len(packed) < size / 2 < size < len(as_it_is)
    for ring in (packing, plainly):
        assert [await ring.open(KEY, b"v", sealed) for sealed in (packed, as_it_is)] == [plain] * 2
    with pytest.raises(Tampered):  # a schema is what its value was sealed with
        await packing.open(KEY, b"v", as_it_is[:2] + bytes([PACKED]) + as_it_is[3:])


async def test_a_value_that_would_unpack_to_more_than_allowed_is_foreign(link: RedisLink) -> None:
    sealed = await Keyring(link, [MASTER], deadline=5.0, pack_up_to=1 << 24).seal(KEY, b"v", bytes(1 << 20))
    assert len(sealed) < 200
    with pytest.raises(Foreign, match="1048576 bytes"):
        await Keyring(link, [MASTER], deadline=5.0, max_plain_bytes=1 << 19).open(KEY, b"v", sealed)


async def test_two_seals_of_one_value_differ_from_their_first_bytes(keyring: Keyring) -> None:
    first, second = [await keyring.seal(KEY, b"v", b"same") for _ in range(2)]
    assert stamp_of(first) != stamp_of(second)


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


async def test_contract_6_a_master_key_is_changed_under_two_gateways_and_nothing_is_lost(
    make_gateway: MakeGateway,
) -> None:
    """As docs/operations.md says: both accept both, the new one takes over, data keys are wrapped anew, the old one
    goes. All the while what either stores the other reads."""
    a = await make_gateway("a", masters=[MASTER, OTHER_MASTER])
    b = await make_gateway("b", masters=[MASTER])
    entries = {n: replace(ENTRY, frames=(bytes([n]),)) for n in range(4)}

    async def store_and_read_all(n: int, *gateways: Gateway) -> None:
        assert await gateways[n % len(gateways)].tier.put(CacheKey(f"tenant {n}", bytes(32)), entries[n])
        for gateway in gateways:
            for told in range(n + 1):
                assert await gateway.tier.get(CacheKey(f"tenant {told}", bytes(32))) == entries[told]

    await store_and_read_all(0, a, b)
    b = await make_gateway("b, started again", masters=[MASTER, OTHER_MASTER])
    a = await make_gateway("a, started again", masters=[OTHER_MASTER, MASTER])
    await store_and_read_all(1, b, a)
    b = await make_gateway("b, started once more", masters=[OTHER_MASTER, MASTER])
    assert {key.present for key in await b.keyring.survey()} == {False, True}
    assert await b.keyring.rewrap() == 1
    assert all(key.present and key.opens for key in await b.keyring.survey())
    await store_and_read_all(2, a, b)
    a, b = [await make_gateway(f"{name}, with the new one alone", masters=[OTHER_MASTER]) for name in "ab"]
    await store_and_read_all(3, a, b)


async def test_a_survey_tells_which_keys_do_not_open_and_how_often_each_sealed(
    link: RedisLink, keyring: Keyring
) -> None:
    await keyring.seal(KEY, b"v", b"plain")
    (mine,) = await keyring.survey()
    assert (mine.tenant, mine.generation, mine.present, mine.opens, mine.seals) == ("tenant", 1, True, True, 2**16)
    (theirs,) = await Keyring(link, [OTHER_MASTER], deadline=5.0).survey()
    assert (theirs.present, theirs.opens, theirs.master) == (False, False, mine.master)


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
    data_key = keyring._masters.unwrap("tenant", server.client.hget("refrain:keys:{tenant}", "1"))
    assert data_key is not None
    assert data_key not in stored
    assert MASTER not in stored
    for held in (keyring, keyring._masters):
        assert MASTER.hex() not in repr(vars(held))
        assert data_key.hex() not in repr(vars(held))


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


def test_a_master_key_that_only_opens_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match="no such file"):
        load_master_key(tmp_path / "old.key")
    assert list(tmp_path.iterdir()) == []

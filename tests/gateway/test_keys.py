"""Everything that can change an answer changes its key, no two requests spell the same one, and tenants share none."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.keys import KeyFields, Keys, TenantKeys

MASTER = bytes(range(32))
DIGEST = b"\7" * 32
FIELDS = KeyFields(task="synthesize", engine="e1")

TEXTS = ("task", "engine", "voice", "emotion", "language")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(TEXTS, st.text(max_size=12)),
    "speed": st.floats(0.25, 4.0),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "encoding": st.integers(0, 255),
    "rate": st.integers(0, 2**32 - 1),
    "features": st.integers(0, 2**32 - 1),
    "streaming": st.booleans(),
}
ALL_FIELDS = st.builds(KeyFields, **VALUES)


@pytest.fixture
def keys() -> TenantKeys:
    return Keys(MASTER).of("acme")


def test_these_properties_know_every_field() -> None:
    assert set(VALUES) == set(KeyFields._fields)


@settings(deadline=None)
@given(fields=ALL_FIELDS, name=st.sampled_from(KeyFields._fields), data=st.data())
def test_a_change_of_any_field_changes_the_key(fields: KeyFields, name: str, data: st.DataObject) -> None:
    other = fields._replace(**{name: data.draw(VALUES[name])})
    keys = TenantKeys(MASTER, "acme")
    assert (keys.cache_key(fields, DIGEST) == keys.cache_key(other, DIGEST)) == (fields == other)


@settings(deadline=None)
@given(one=ALL_FIELDS, other=ALL_FIELDS, digests=st.tuples(*[st.binary(min_size=32, max_size=32)] * 2))
def test_keys_are_equal_only_for_equal_requests(one: KeyFields, other: KeyFields, digests: tuple[bytes, bytes]) -> None:
    keys = TenantKeys(MASTER, "acme")
    same = keys.cache_key(one, digests[0]) == keys.cache_key(other, digests[1])
    assert same == ((one, digests[0]) == (other, digests[1]))


@settings(deadline=None)
@given(text=st.text(max_size=24), cuts=st.tuples(*[st.lists(st.integers(0, 24), min_size=4, max_size=4)] * 2))
def test_moving_characters_from_one_field_to_the_next_changes_the_key(text: str, cuts: tuple[list[int], ...]) -> None:
    """The same characters in a row, cut elsewhere: without lengths these would be one key."""
    keys = TenantKeys(MASTER, "acme")
    splits = []
    for places in cuts:
        bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
        splits.append(tuple(text[a:b] for a, b in pairwise(bounds)))
    plain = KeyFields("", "")
    named: list[dict[str, Any]] = [dict(zip(TEXTS, split, strict=True)) for split in splits]
    spelt = [plain._replace(**names) for names in named]
    one, other = (keys.cache_key(fields, DIGEST) for fields in spelt)
    assert (one == other) == (splits[0] == splits[1])


def test_a_key_is_the_same_in_every_process(keys: TenantKeys) -> None:
    """Or a restart would forget everything. What changes these bytes must raise KEY_VERSION, and is a flush."""
    assert keys.input_digest("synthesize", b"Hello there.").hex() == (
        "a67002a68670c5ca18c9d0587efbfc4fc7a8d42a3c6c843db9bac3b816187a51"
    )
    fields = KeyFields("synthesize", "e1", "anna", "neutral", "en-US", 1.0, 0, 1, 22_050)
    assert keys.cache_key(fields, DIGEST).digest.hex() == (
        "0b93b7ab2336d27f427faff842a02e0896b10123f3fec63a1771c57fe1417269"
    )
    assert keys.tag("subject", "caller 7") == "f7339a26220f625d48f7ae4857749919"


def test_an_input_is_named_by_its_kind_and_its_bytes(keys: TenantKeys) -> None:
    digests = {
        keys.input_digest("recognize", b"1234"),
        keys.input_digest("vocode", b"1234"),
        keys.input_digest("recognize", b"1235"),
        keys.input_digest("recognize", b""),
    }
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {32}


@settings(deadline=None)
@given(digests=st.tuples(*[st.binary(min_size=32, max_size=32)] * 2))
def test_a_pair_is_known_again_by_halves_and_only_to_its_tenant(digests: tuple[bytes, bytes]) -> None:
    own, other = TenantKeys(MASTER, "acme"), TenantKeys(MASTER, "beta")
    for kind, another in ("fn", "nf"):
        name = own.pair_id(*digests, kind)
        assert own.open_pair(name) == (digests[0][:16], digests[1][:16])
        assert other.open_pair(name) is None
        assert own.open_pair(another + name[1:]) is None


@settings(deadline=None)
@given(name=st.one_of(st.text(max_size=90), st.from_regex(r"[fn][0-9a-f]{80}", fullmatch=True)))
def test_no_pair_is_made_up(name: str) -> None:
    assert TenantKeys(MASTER, "acme").open_pair(name) is None


@pytest.mark.parametrize("at", [0, 1, 33, 65, 80])
def test_a_pair_that_was_tampered_with_is_not_opened(keys: TenantKeys, at: int) -> None:
    name = keys.pair_id(DIGEST, DIGEST[::-1])
    changed = "e" if at == 0 else "0" if name[at] != "0" else "1"
    assert keys.open_pair(name[:at] + changed + name[at + 1 :]) is None
    assert keys.open_pair(name[:-2]) is None


def test_nothing_of_one_tenant_is_named_as_anothers() -> None:
    keys = Keys(MASTER)
    one, other = keys.of("acme"), keys.of("beta")
    assert one.input_digest("recognize", b"1234") != other.input_digest("recognize", b"1234")
    assert one.cache_key(FIELDS, DIGEST).digest != other.cache_key(FIELDS, DIGEST).digest
    assert one.tag("subject", "caller 7") != other.tag("subject", "caller 7")
    assert one.cache_key(FIELDS, DIGEST).tenant == "acme"


def test_another_digest_key_is_a_flush() -> None:
    one, other = Keys(MASTER), Keys(MASTER[::-1])
    assert one.of("acme").cache_key(FIELDS, DIGEST) != other.of("acme").cache_key(FIELDS, DIGEST)
    assert one.trace_key() != other.trace_key()


def test_tags_tell_kinds_and_names_apart_and_show_neither(keys: TenantKeys) -> None:
    tags = [keys.tag(kind, name) for kind in ("subject", "voice") for name in ("anna", "bert")]
    assert len(set(tags)) == 4
    assert all(int(tag, 16) >= 0 and len(tag) == 32 for tag in tags)


def test_no_key_gives_its_text_away(keys: TenantKeys) -> None:
    told = keys.input_digest("synthesize", b"secret") + keys.cache_key(FIELDS._replace(voice="secret"), DIGEST).digest
    assert b"secret" not in told
    assert "secret" not in keys.tag("subject", "secret")


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_digest_key_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes"):
        Keys(bytes(length))


def test_what_is_kept_between_models_has_keys_of_its_own(keys: TenantKeys) -> None:
    one = keys.component_key(DIGEST)
    assert one == TenantKeys(MASTER, "acme").component_key(DIGEST)
    assert one.tenant == "acme"
    others = {keys.component_key(b"other"), TenantKeys(MASTER, "beta").component_key(DIGEST)}
    assert one.digest not in {other.digest for other in others}
    assert one.digest not in (keys.input_digest("", DIGEST), keys.cache_key(FIELDS, DIGEST).digest)

"""The same bytes of the same tenant for the same task find their key again; what is too large or old does not."""

from __future__ import annotations

import pytest

from cache_tiers.entry import CacheKey
from gateway.keys import KeyFields
from gateway.shortcuts import MOST_BYTES, Shortcuts

FIELDS = KeyFields(task="synthesize", engine="e1")
KEY = CacheKey("acme", b"\1" * 32)


def test_the_same_request_finds_its_key() -> None:
    shortcuts = Shortcuts()
    assert shortcuts.find("synthesize", "acme", b"hello") is None
    shortcuts.learn("synthesize", "acme", b"hello", KEY, FIELDS)
    found = shortcuts.find("synthesize", "acme", b"hello")
    assert found is not None
    assert (found.key, found.fields) == (KEY, FIELDS)


@pytest.mark.parametrize(
    "other", [("vocode", "acme", b"hello"), ("synthesize", "beta", b"hello"), ("synthesize", "acme", b"hallo")]
)
def test_another_task_tenant_or_request_finds_nothing(other: tuple[str, str, bytes]) -> None:
    shortcuts = Shortcuts()
    shortcuts.learn("synthesize", "acme", b"hello", KEY, FIELDS)
    assert shortcuts.find(*other) is None


@pytest.mark.parametrize("size", [1, 1024, 1025, 96_044, MOST_BYTES])
def test_of_any_size_one_other_byte_is_another_request(size: int) -> None:
    shortcuts = Shortcuts()
    shortcuts.learn("recognize", "acme", bytes(size), KEY, FIELDS)
    assert shortcuts.find("recognize", "acme", bytes(size)) is not None
    for place in {0, size // 2, size - 1}:
        other = bytearray(size)
        other[place] = 1
        assert shortcuts.find("recognize", "acme", bytes(other)) is None
    assert shortcuts.find("recognize", "acme", bytes(size - 1)) is None


def test_what_is_kept_of_a_recording_is_a_few_bytes() -> None:
    shortcuts = Shortcuts()
    shortcuts.learn("recognize", "acme", bytes(MOST_BYTES), KEY, FIELDS)
    assert [len(digest) for _, _, digest in shortcuts._known] == [16]


@pytest.mark.parametrize(("size", "kept"), [(MOST_BYTES, True), (MOST_BYTES + 1, False)])
def test_only_small_requests_are_kept(size: int, kept: bool) -> None:
    shortcuts = Shortcuts()
    shortcuts.learn("recognize", "acme", bytes(size), KEY, FIELDS)
    assert (shortcuts.find("recognize", "acme", bytes(size)) is not None) == kept


def test_the_oldest_make_room_for_new_ones() -> None:
    shortcuts = Shortcuts(3)
    for number in range(5):
        shortcuts.learn("synthesize", "acme", b"%d" % number, KEY, FIELDS)
    assert [shortcuts.find("synthesize", "acme", b"%d" % number) is not None for number in range(5)] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_no_text_stays_here() -> None:
    shortcuts = Shortcuts()
    shortcuts.learn("synthesize", "acme", b"my secret", KEY, FIELDS)
    assert "secret" not in repr(shortcuts._known)

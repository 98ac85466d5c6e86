"""What is packed comes back byte by byte, what does not shrink is left alone, and nothing grows beyond its limit."""

from __future__ import annotations

import array
import math
import os
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cache_tiers.packing import LEAST, WORTH, Unreadable, pack, unpack

LIMIT = 1 << 24


def samples(count: int, seed: float = 1.0) -> bytes:
    """A tone with a little noise, in 16 bits, as speech is: high bytes that repeat and low ones that don't."""
    noise = os.urandom(count)
    wave = (2000 * math.sin(seed * n / 40) + noise[n] - 128 for n in range(count))
    return array.array("h", map(int, wave)).tobytes()


@given(st.binary(max_size=3000), st.integers(1, 50))
def test_what_is_packed_comes_back(piece: bytes, times: int) -> None:
    plain = piece * times
    packed = pack(plain)
    if packed is not None:
        assert len(packed) <= WORTH * len(plain)
        assert unpack(packed, LIMIT) == plain


@pytest.mark.parametrize("before", [b"", b"x", b"a header of odd length:."])
@pytest.mark.parametrize("count", [600, 7_001, 60_000])
def test_samples_shrink_wherever_they_begin(before: bytes, count: int) -> None:
    plain = before + samples(count)
    packed = pack(plain)
    assert packed is not None
    assert len(packed) < 0.8 * len(plain)
    assert len(packed) < len(zstandard.compress(plain, 1))
    assert unpack(packed, LIMIT) == plain


def test_what_does_not_shrink_or_is_small_stays_as_it_is() -> None:
    for size in (0, LEAST - 1):
        assert pack(bytes(size)) is None
    for size in (LEAST, 100_000):
        assert pack(os.urandom(size)) is None
    assert pack(bytes(40_000) + os.urandom(2_000_000) + bytes(40_000)) is None


def test_a_pause_in_the_middle_does_not_decide_for_the_rest() -> None:
    plain = samples(40_000) + bytes(20_000) + samples(40_000)
    packed = pack(plain)
    assert packed is not None
    assert len(packed) < 0.75 * len(plain) < len(zstandard.compress(plain, 1))
    assert unpack(packed, LIMIT) == plain


def test_pieces_unlike_the_rest_do_not_make_it_larger() -> None:
    plain = bytearray(os.urandom(400_000))
    for n in range(4):
        plain[n * 100_000 + 45_000 : n * 100_000 + 55_000] = bytes(10_000)
    assert pack(bytes(plain)) is None


@given(st.binary(max_size=200))
def test_garbage_is_unreadable_and_never_a_crash(data: bytes) -> None:
    with pytest.raises(Unreadable):
        unpack(data, LIMIT)


@pytest.mark.parametrize("way", [1, 2, 3])
def test_no_more_is_unpacked_than_allowed_or_said(way: int) -> None:
    bomb = zstandard.compress(bytes(1 << 26))
    for size, limit in ((1 << 26, LIMIT), (100, LIMIT), (1 << 25, 1 << 30)):
        with pytest.raises(Unreadable):
            unpack(struct.pack(">BII", way, size, len(bomb)) + bomb, limit)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    with pytest.raises(Unreadable):
        unpack(struct.pack(">BII", way, 1 << 20, len(unsized)) + unsized, LIMIT)

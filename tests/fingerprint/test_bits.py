"""Mel and bits: librosa's figures without librosa, bytes that come back, and what has no fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.listen import listen
from models.bands import BANDS, FMAX, FMIN, HOP, RATE, WINDOW, band_energies, half_frame_energies, to_telephone_rate
from models.signs import KEPT, signs
from tests.fingerprint.voice import hiss, say


def made(seed: int) -> Fingerprint:
    found = fingerprint(say(seed))
    assert found is not None
    return found


def test_band_energies_equal_librosa() -> None:
    feature = pytest.importorskip("librosa.feature")
    narrow = to_telephone_rate(say(1))
    theirs = feature.melspectrogram(
        y=narrow, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=BANDS, fmin=FMIN, fmax=FMAX, pad_mode="constant"
    ).T
    ours = band_energies(narrow)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * theirs.max()
    loud = theirs > theirs.max() * 1e-6
    assert np.abs(ours / np.where(loud, theirs, 1) - 1)[loud].max() < 1e-4


def test_half_a_hop_later_is_the_same_sound_shifted() -> None:
    narrow = to_telephone_rate(say(2))
    later = band_energies(narrow, HOP // 2)
    shifted = band_energies(np.concatenate([narrow[HOP // 2 :], np.zeros(HOP // 2, np.float32)]))
    n = min(len(later), len(shifted))
    middle = slice(8, n - 8)
    assert np.allclose(later[middle], shifted[middle], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("more", [0, 1, 63, 64, 65, 127])
def test_half_frames_are_both_grids_to_the_bit(more: int) -> None:
    narrow = np.concatenate([to_telephone_rate(say(2))[: 100 * HOP], np.ones(more, np.float32)])
    both = half_frame_energies(narrow)
    assert np.array_equal(both[::2], band_energies(narrow))
    assert np.array_equal(both[1::2], band_energies(narrow, HOP // 2))


def test_what_asks_holds_what_is_stored() -> None:
    asked, stored = listen(say(2)), made(2)
    assert asked is not None
    assert asked.to_bytes() == stored.to_bytes()
    assert asked.between is not None
    later = signs(band_energies(to_telephone_rate(say(2)), HOP // 2))
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(asked.between, later, strict=True))


def test_a_frame_trusts_fourteen_bits_and_a_second_takes_half_a_kilobyte() -> None:
    found = made(3)
    counts = np.bitwise_count(found.mask[found.active])
    assert (counts == KEPT).all()
    assert len(found.to_bytes()) / found.seconds < 540


def test_gain_changes_no_bit() -> None:
    loud, quiet = fingerprint(say(4)), fingerprint(say(4) * np.float32(0.25))
    assert loud is not None
    assert quiet is not None
    assert np.array_equal(loud.bits, quiet.bits)
    assert np.array_equal(loud.level, quiet.level)


@given(st.integers(0, 30))
def test_bytes_come_back(seed: int) -> None:
    found = made(seed)
    back = Fingerprint.from_bytes(found.to_bytes())
    for name in ("bits", "mask", "level"):
        assert np.array_equal(getattr(found, name), getattr(back, name))
    assert back.seconds == pytest.approx(found.seconds)
    assert back.between is None


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_bytes(data)


def test_truncated_bytes_are_refused() -> None:
    data = made(5).to_bytes()
    for cut in (0, 1, 8, 9, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="fingerprint"):
            Fingerprint.from_bytes(data[:cut])


@pytest.mark.parametrize(
    ("frames", "level", "seconds"),
    [(0, 1, 1.0), (18, 1, 0.3), (100, 0, 1.6), (1877, 1, 30.0), (70_000, 1, 30.0), (100, 1, np.nan), (100, 1, -1.0)],
)
def test_what_no_recording_has_is_refused(frames: int, level: int, seconds: float) -> None:
    """Enrolled, one without frames would break every scan of its index, and a key has room for 2,047 of them."""
    words = np.ones(frames, np.uint32)
    data = Fingerprint(words, words, np.full(frames, level, np.uint8), seconds).to_bytes()
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_bytes(data)


def test_the_longest_recording_comes_back() -> None:
    longest = fingerprint(np.tile(say(1), 40)[: 30 * 16_000])
    assert longest is not None
    assert len(Fingerprint.from_bytes(longest.to_bytes())) == len(longest) == 1876


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(16_000, np.float32),
        say(6, syllables=1)[: round(0.1 * 16_000)],
        np.full(16_000, np.nan, np.float32),
        np.concatenate([np.zeros(16_000), hiss(np.ones(800, np.float32), 0, 1), np.zeros(16_000)]).astype(np.float32),
        np.zeros(31 * 16_000, np.float32) + np.float32(0.1),
    ],
    ids=["empty", "silence", "a tenth of a second", "NaN", "a click", "31 s"],
)
def test_what_has_no_fingerprint(samples: np.ndarray) -> None:
    assert fingerprint(samples) is None

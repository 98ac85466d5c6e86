"""Alignment of a query with what is remembered, and the timeline of both: on odds made from stored bits."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.fingerprint.bits import fingerprint
from models.evidence import BITS, PACES, ROWS, SHORT, Heard, Stored, align, timeline
from tests.fingerprint.voice import say

SURE = 4.0
"""Log-odds of a bit that is known."""


@pytest.fixture(scope="module")
def long() -> Stored:
    return remembered(seed=1, syllables=12)


@pytest.fixture(scope="module")
def short() -> Stored:
    return remembered(seed=2, syllables=4)


def remembered(seed: int, syllables: int) -> Stored:
    code = fingerprint(say(seed, syllables))
    assert code is not None
    return Stored.of(code.bits, code.mask, code.level)


def heard_as(stored: Stored, frames: int, offset: float = 0.0, pace: float = 1.0) -> Heard:
    """A query of so many frames in which `stored`, at some pace, begins at frame `offset`, with nothing around it."""
    half = np.arange(2 * frames)
    found = np.rint((half / 2 - offset) / pace).astype(int)
    at = np.searchsorted(stored.at, found).clip(0, len(stored.at) - 1)
    there = stored.at[at] == found
    packed = stored.bits[at].astype("<u4").view(np.uint8).reshape(-1, 4)
    signs = 2.0 * np.unpackbits(packed, axis=1, bitorder="little") - 1
    level = np.where((found >= 0) & (found < stored.frames), stored.level[found.clip(0, stored.frames - 1)], 0)[::2]
    speech = np.stack([level >= wanted for wanted in (1, 2, 3)], axis=1).astype(np.float32)
    log_odds = (SURE * signs * there[:, None]).astype(np.float32)
    bits = np.where(there, stored.bits[at], 0).astype(np.uint32)
    return Heard(log_odds, speech, bits, level.astype(np.uint8))


def test_stored_frames_are_signs_of_their_trusted_bits() -> None:
    bits, mask = np.array([1, 2, 5], np.uint32), np.array([3, 0, 1 << 31], np.uint32)
    stored = Stored.of(bits, mask, np.array([1, 0, 3], np.uint8))
    assert stored.at.tolist() == [0, 2]
    assert stored.frames == 3
    assert stored.signs[0, :3].tolist() == [1, -1, 0]
    assert stored.signs[1, 31] == -1
    assert np.abs(stored.signs).sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("offset", [0, 17, -9])
@pytest.mark.parametrize("pace", PACES)
def test_offset_and_pace_are_found(long: Stored, offset: int, pace: float) -> None:
    assert long.frames > SHORT
    path = align(long, heard_as(long, long.frames + 30, offset, pace))
    assert path.pace == pytest.approx(pace, abs=0.0051)
    assert path.start / 2 == pytest.approx(offset, abs=0.5 + 0.005 * long.frames / 2)
    # Rounding to half frames and to the paces looked at costs a little of what there is.
    assert path.confirmed > 0.8


@pytest.mark.parametrize("offset", [0, 25, -6])
def test_a_short_recording_is_found(short: Stored, offset: int) -> None:
    assert short.frames <= SHORT
    path = align(short, heard_as(short, short.frames + 40, offset))
    assert path.pace == 1.0
    assert path.start == 2 * offset
    assert path.bits == np.abs(short.signs).sum()


def test_the_same_bits_are_all_the_evidence_there_is(long: Stored) -> None:
    path = align(long, heard_as(long, long.frames))
    assert (path.pace, path.start, path.inside) == (1.0, 0.0, 1.0)
    assert path.confirmed > 0.95
    # Odds that are right give as much as they are sure of, and a little more.
    assert (path.evidence >= path.known - 1e-3).all()
    wrong = align(long, Heard(-heard_as(long, long.frames).log_odds, *list_of(heard_as(long, long.frames))))
    assert wrong.confirmed < 0.3


def list_of(heard: Heard) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return heard.speech, heard.bits, heard.level


def test_another_recording_confirms_little(long: Stored) -> None:
    other = remembered(seed=77, syllables=12)
    assert align(long, heard_as(other, other.frames)).confirmed < 0.3


@pytest.mark.parametrize(("before", "after"), [(0, 0), (20, 30), (-10, 0), (0, -15), (-8, 25), (12, -20), (-10, -12)])
def test_a_timeline_goes_from_the_first_of_either_to_the_last(long: Stored, before: int, after: int) -> None:
    heard = heard_as(long, long.frames + before + after, offset=before)
    path = align(long, heard)
    assert (path.pace, path.start) == (1.0, 2 * before)
    lines = timeline(long, heard, path)
    assert lines.dtype == np.float32
    assert lines.shape[0] == ROWS
    # The query's last half frame may round up to a frame of which it is nothing.
    assert lines.shape[1] - (long.frames + max(0, before) + max(0, after)) in (0, 1)
    stored_from, heard_from = max(0, before), max(0, -before)
    assert lines[15].nonzero()[0].tolist() == list(range(stored_from, stored_from + long.frames))
    assert lines[16].nonzero()[0].tolist() == list(range(heard_from, heard_from + len(heard)))
    both = (lines[15] * lines[16]).astype(bool)
    # What was stored and what was heard are the same here: levels agree, and bits wherever there is speech.
    assert np.array_equal(lines[2:5, both], lines[5:8, both])
    assert np.array_equal(lines[2:5, both], lines[8:11, both])
    spoken = both & (lines[2] > 0)
    assert not lines[11:13, spoken].any()
    assert (lines[0, spoken] > 0).all()
    assert np.all(lines[14] == 0)


def test_what_is_outside_the_query_is_neither_for_nor_against(long: Stored) -> None:
    heard = heard_as(long, long.frames - 10, offset=-10)
    path = align(long, heard)
    lines = timeline(long, heard, path)
    missing = (lines[16] == 0) & (lines[2] > 0)
    assert missing.any()
    assert not lines[:2, missing].any()
    assert np.all(lines[11:13, missing] == 0.5)
    assert np.array_equal(lines[13] > 0, missing)
    assert path.inside == pytest.approx(1 - missing.sum() / len(long.at))


def test_pace_stretches_the_timeline_to_the_stored_time(long: Stored) -> None:
    heard = heard_as(long, round(1.02 * long.frames), pace=1.02)
    path = align(long, heard)
    lines = timeline(long, heard, path)
    assert abs(lines.shape[1] - long.frames) <= 3
    assert np.all(lines[14] == np.float32(50 * abs(path.pace - 1)))


@pytest.mark.parametrize("frames", [1, 5, 60, 400])
def test_silence_is_no_evidence_and_no_nan(long: Stored, short: Stored, frames: int) -> None:
    nothing = np.zeros((2 * frames, BITS), np.float32)
    heard = Heard(
        nothing, np.zeros((frames, 3), np.float32), np.zeros(2 * frames, np.uint32), np.zeros(frames, np.uint8)
    )
    for stored in (long, short):
        path = align(stored, heard)
        assert path.confirmed == pytest.approx(0.0, abs=1e-6)
        assert np.isfinite(timeline(stored, heard, path)).all()


def test_certain_odds_do_not_overflow(short: Stored) -> None:
    heard = heard_as(short, short.frames)
    for times in (100.0, 1e4):
        path = align(short, Heard(times * heard.log_odds, *list_of(heard)))
        assert np.isfinite(timeline(short, heard, path)).all()
        assert path.confirmed == pytest.approx(1.0, abs=1e-3)

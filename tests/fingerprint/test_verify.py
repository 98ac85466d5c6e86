"""The same recording is known again; another, or one with a word swapped, added or cut, is not."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.listen import listen
from gateway.fingerprint.verify import nearest, of_the_whole, shifts_of, stride_of, verify
from models.utterance import Samples
from tests.fingerprint.voice import RATE, hiss, say, splice


def of(samples: Samples) -> Fingerprint:
    found = listen(samples)
    assert found is not None
    return found


def stored(samples: Samples) -> Fingerprint:
    """As the index has it: through bytes."""
    return Fingerprint.from_bytes(of(samples).to_bytes())


def test_an_identical_copy_is_the_same_at_no_distance() -> None:
    verdict = verify(of(say(1)), stored(say(1)))
    assert verdict.accepted
    assert verdict.reason == "same"
    assert verdict.distance == 0
    assert verdict.similarity > 0.5
    assert verdict.offset_s == 0


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.05, 0.137, 0.3])
def test_a_late_copy_is_the_same_and_its_offset_is_told(seconds: float) -> None:
    late = np.concatenate([np.zeros(round(seconds * RATE), np.float32), say(2)])
    verdict = verify(of(late), stored(say(2)))
    assert verdict.accepted
    assert verdict.offset_s == pytest.approx(seconds, abs=0.006)


def test_a_noisy_copy_is_the_same_and_farther() -> None:
    clean, noisy = (verify(of(hiss(say(3), db, 1)), stored(say(3))) for db in (40, 8))
    assert clean.accepted
    assert noisy.accepted
    assert noisy.distance > clean.distance
    assert noisy.similarity < clean.similarity


@pytest.mark.parametrize(("asked", "kept"), [(3, 3), (3, 9), (9, 3), (14, 12)], ids=str)
def test_the_first_distance_is_the_least_of_all_shifts_on_both_grids(asked: int, kept: int) -> None:
    query, old = of(say(1, asked)), stored(hiss(say(1, kept), 10, 1))
    assert query.between is not None
    shares = []
    for grid in (query.bits, query.between[0]):
        for shift in shifts_of(len(query), len(old)):
            differ = total = 0.0
            for frame in range(0, len(old), stride_of(len(old))):
                trusted = int(old.mask[frame]) if old.active[frame] else 0
                inside = 0 <= shift + frame < len(query)
                total += trusted.bit_count()
                wrong = (int(grid[shift + frame]) ^ int(old.bits[frame])) & trusted if inside else 0
                differ += wrong.bit_count() if inside else trusted.bit_count() / 2
            shares.append(differ / total)
    assert nearest(query, old) == min(shares)


def test_other_words_are_not_the_same() -> None:
    others = [stored(say(seed)) for seed in range(100, 130)]
    for seed in range(4, 8):
        query = of(say(seed))
        assert not any(verify(query, other).accepted for other in others)


def test_one_word_swapped_is_found() -> None:
    refused = []
    for seed in range(12):
        query, carrier = of(splice(seed, 300 + seed, 600)), stored(splice(seed, 400 + seed, 600))
        verdict = verify(query, carrier)
        assert not verdict.accepted
        refused.append(verdict)
    assert {verdict.reason for verdict in refused} & {"another sound"}
    assert any(verdict.distance < 0.15 for verdict in refused), "or the swap proves nothing about the window"


def test_more_speech_on_either_side_is_not_the_same() -> None:
    short, long = say(9, 3), np.concatenate([say(9, 3), say(10, 3)])
    assert verify(of(long), stored(short)).reason == "the query has more speech"
    assert not verify(of(short), stored(long)).accepted


def test_every_length_has_its_test_of_the_whole_and_the_shortest_the_strictest() -> None:
    alike = 0.75  # as words of others may agree, and copies in noise do
    needed = [
        least - weight * alike for weight, least in (of_the_whole(frames) for frames in (1, 27, 28, 44, 45, 2000))
    ]
    assert needed[0] == needed[1] > needed[2] == needed[3] > needed[4] == needed[5]


def test_min_similarity_only_tightens() -> None:
    query, other = of(hiss(say(11), 8, 2)), stored(say(11))
    plain = verify(query, other)
    assert plain.accepted
    assert not verify(query, other, min_similarity=plain.similarity + 0.01).accepted
    assert verify(query, other, min_similarity=plain.similarity - 0.01).accepted
    stranger = stored(say(12))
    assert not verify(query, stranger, min_similarity=0.0).accepted


def test_noise_and_tones_match_nothing() -> None:
    known = [stored(say(seed)) for seed in range(10)]
    t = np.arange(RATE) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    for sound in (tone, noise):
        query = of(sound)
        assert not any(verify(query, one).accepted for one in known)

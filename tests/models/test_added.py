"""Sound in the silence of a stored recording: which frames count, what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.listen import listen
from gateway.fingerprint.verify import Verdict, verify
from models.added import APART, FEATURES, FILE, Additions, features, silence
from models.evidence import ROWS, Stored, align, timeline
from models.recall import EMBEDDED, RecallNets
from models.utterance import Samples
from tests.fingerprint.voice import RATE, say

SENTENCE = say(3, 12)
"""Of 2.4 s: more than 80 frames of speech."""


def of(samples: Samples) -> Fingerprint:
    found = listen(samples)
    assert found is not None
    return found


def asked(heard: Samples, stored: Samples = SENTENCE) -> Verdict:
    return verify(of(heard), Fingerprint.from_bytes(of(stored).to_bytes()))


def followed_by(sound: Samples, after_s: float = 0.3) -> Samples:
    return np.concatenate([SENTENCE, np.zeros(round(after_s * RATE), np.float32), sound, np.zeros(1600, np.float32)])


def test_silence_is_where_the_query_is_and_no_stored_speech_near() -> None:
    lines = np.zeros((ROWS, 60), np.float32)
    lines[2, 20:30] = 1.0
    lines[16, 5:55] = 1.0
    silent = silence(lines)
    assert np.flatnonzero(silent).tolist() == [*range(5, 20 - APART), *range(30 + APART, 55)]


def test_a_word_that_follows_is_refused_where_it_is_and_silence_is_not() -> None:
    assert asked(followed_by(np.zeros(8000, np.float32))).accepted
    verdict = asked(followed_by(say(40, 3)))
    assert (verdict.accepted, verdict.reason) == (False, "the query has more speech")
    assert len(SENTENCE) / RATE <= verdict.worst_s <= len(SENTENCE) / RATE + 1.2


def test_a_sound_far_under_the_speech_is_no_word() -> None:
    rng = np.random.default_rng(1)
    click = (rng.normal(0, 0.01, 800) * np.exp(-np.arange(800) / 200)).astype(np.float32)
    assert asked(followed_by(click)).accepted


def test_features_are_finite_whatever_the_pace_and_place() -> None:
    nets = RecallNets()
    for heard in (SENTENCE, followed_by(say(40, 2)), SENTENCE[RATE // 2 :], np.repeat(SENTENCE, 2)[: 3 * RATE]):
        query, old = of(heard), of(SENTENCE)
        assert query.heard is not None
        stored = Stored.of(old.bits, old.mask, old.level)
        path = align(stored, query.heard)
        told = features(timeline(stored, query.heard, path), query.heard, path)
        assert told.shape == (FEATURES,)
        assert np.isfinite(told).all()
        assert np.isfinite(nets.additions.score(timeline(stored, query.heard, path), query.heard, path))


def test_frames_of_silence_are_left_out_of_the_judges_score() -> None:
    nets, lines = RecallNets(), np.random.default_rng(0).random((ROWS, 80), np.float32)
    silent = np.arange(80) >= 50
    score, against = nets.judge(lines)
    spared, left = nets.judge(lines, silent)
    assert nets.judge(lines, np.zeros(80, np.bool_))[0] == score
    gone = np.logaddexp.reduce(against) - np.logaddexp.reduce(against[:50])
    assert spared == pytest.approx(score + gone, abs=1e-4)
    assert np.array_equal(left[:50], against[:50])
    assert (left[50:] == against.min()).all()


def test_it_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    made = Additions(np.arange(FEATURES, dtype=np.float64), -0.25)
    made.write(tmp_path)
    again = Additions.read(tmp_path)
    assert np.array_equal(again.weights, made.weights)
    assert again.bias == made.bias
    assert Additions.untaught().bias > 0, "so that what was never taught accepts nothing"


@pytest.mark.parametrize("weights", [np.zeros(3), np.full(FEATURES, np.nan)], ids=["few", "nan"])
def test_another_file_is_refused(tmp_path: Path, weights: Samples) -> None:
    np.savez(tmp_path / FILE, weights=weights, bias=0.0)
    with pytest.raises(ValueError, match=f"needs {FEATURES} finite weights"):
        Additions.read(tmp_path)


def test_the_shipped_one_is_there() -> None:
    assert Additions.read(EMBEDDED).weights.any()

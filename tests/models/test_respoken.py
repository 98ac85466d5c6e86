"""Takes of one command: near each other and far from other commands, warped as told, and never forced into a match."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr

from models.onnx import ModelFileError
from models.respoken import EMBEDDED, STRANGE, Respoken, cheapest, distances, ruled, spoken
from models.synthesizer import AcousticModel
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder

COMMANDS = ("turn the kitchen lights on", "play some music", "what time is it", "stop the alarm")


@pytest.fixture(scope="module")
def model() -> Respoken:
    return Respoken()


@pytest.fixture(scope="module")
def said() -> dict[tuple[str, float], Samples]:
    """Four commands at two paces, by one of our own voices."""
    acoustic, vocoder = AcousticModel(), Vocoder()
    takes = {}
    for text, pace in itertools.product(COMMANDS, (1.0, 0.9)):
        wave = vocoder.wave(acoustic.mel(text, voice="slt", speed=pace))
        takes[text, pace] = np.asarray(soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE), np.float32)
    return takes


def unit(seed: int, count: int) -> Samples:
    frames = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return np.asarray(frames / np.linalg.norm(frames, axis=1, keepdims=True), np.float32)


def test_a_command_said_at_another_pace_is_nearest_to_itself(
    model: Respoken, said: dict[tuple[str, float], Samples]
) -> None:
    first = [model.hear(said[text, 1.0]) for text in COMMANDS]
    takes = [take for take in first if take is not None]
    assert len(takes) == len(COMMANDS)
    for number, text in enumerate(COMMANDS):
        again = model.hear(said[text, 0.9])
        assert again is not None
        match = model.match(again, takes, COMMANDS)
        assert match is not None
        assert match.number == number
        assert match.rival > match.distance
        assert model.accepts(match, again, takes[number])


def test_a_command_never_said_is_refused(model: Respoken, said: dict[tuple[str, float], Samples]) -> None:
    for text in COMMANDS:
        others = [other for other in COMMANDS if other != text]
        takes = [take for other in others if (take := model.hear(said[other, 1.0])) is not None]
        query = model.hear(said[text, 0.9])
        assert query is not None
        match = model.match(query, takes, others)
        assert match is not None
        assert not model.accepts(match, query, takes[match.number])


def test_frames_are_of_unit_norm_and_do_not_mind_the_level(
    model: Respoken, said: dict[tuple[str, float], Samples]
) -> None:
    loud = model.hear(said[COMMANDS[0], 1.0])
    soft = model.hear(said[COMMANDS[0], 1.0] * np.float32(0.05))
    assert loud is not None
    assert soft is not None
    assert np.linalg.norm(loud, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert float(distances(loud, [soft])[0]) < 0.01


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(16_000, np.float32),
        np.full(800, 0.1, np.float32),
        np.random.default_rng(0).normal(0, 0.1, 8 * 16_000).astype(np.float32),
    ],
    ids=["silence", "too short", "too long"],
)
def test_what_is_no_command_is_not_kept(model: Respoken, samples: Samples) -> None:
    assert model.hear(samples) is None


def test_samples_must_be_numbers() -> None:
    with pytest.raises(ValueError, match=r"finite numbers of shape \[n\].*\[2, 3\]"):
        spoken(np.zeros((2, 3), np.float32), 0)


def test_warping_finds_the_cheapest_of_all_paths() -> None:
    def cost(apart: Samples, row: int, column: int) -> float:
        here = float(apart[row, column])
        ways = [2 * here if row == column == 0 else np.inf]
        if row and column:
            ways.append(cost(apart, row - 1, column - 1) + 2 * here)
        if row:
            ways.append(cost(apart, row - 1, column) + here)
        if column:
            ways.append(cost(apart, row, column - 1) + here)
        return min(ways)

    apart = np.random.default_rng(3).uniform(0, 2, (5, 4)).astype(np.float32)
    found = cheapest(apart[:, None, :], np.ones((1, 4), bool))
    assert float(found[0]) == pytest.approx(cost(apart, 4, 3), abs=1e-5)


def test_takes_of_other_lengths_beside_it_change_no_distance() -> None:
    query, takes = unit(0, 12), [unit(1, 5), unit(2, 20), unit(3, 11), unit(0, 12)]
    together = distances(query, takes)
    alone = [float(distances(query, [take])[0]) for take in takes]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[3] == pytest.approx(0.0, abs=1e-5)
    assert float(distances(takes[1], [query])[0]) == pytest.approx(alone[1], abs=1e-5)


def test_takes_that_mean_the_same_are_no_rivals() -> None:
    rule = {"weight": 0.5, "typical": 0.5, "far": 0.6}
    apart = np.array([0.2, 0.25, 0.4], np.float32)
    same = ruled(apart, ["yes", "yes", "no"], rule)
    assert same.number == 0
    assert same.rival == pytest.approx(0.4)
    assert same.score == pytest.approx(0.5 * 0.4 + 0.5 * STRANGE - 0.2)
    assert ruled(apart, ["yes", "no", "go"], rule).rival == pytest.approx(0.25)
    assert ruled(apart[:1], ["yes"], rule).rival == pytest.approx(0.6)


def test_with_nothing_to_compare_there_is_no_match(model: Respoken) -> None:
    assert model.match(unit(0, 12), [], []) is None


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    told = (folder / "model.toml").read_text("utf-8")
    (folder / "model.toml").write_text(told.replace('family = "respoken"', 'family = "speaker"'), "utf-8")
    with pytest.raises(ModelFileError, match="family must be respoken"):
        Respoken(folder)

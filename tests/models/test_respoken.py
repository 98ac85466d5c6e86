"""Takes of one command: near each other and far from other commands, warped as told, and never forced into a match."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr

from models.onnx import ModelFileError
from models.respoken import EMBEDDED, UNLIKELY, Respoken, ruled, spoken
from models.respoken_path import DIMENSIONS, EVIDENCE, Judge, costs, evidence, lay, paths, worst_of
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
        assert match.rival < match.odds
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
    frames = [take[:, :DIMENSIONS] for take in (loud, soft)]
    assert np.linalg.norm(frames[0], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert float(lay(frames[0], frames[1:]).mean[0]) < 0.01
    assert loud == pytest.approx(soft, abs=0.2)


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
    found = costs(apart[:, None, :], np.ones((1, 4), bool))
    assert float(found[-1, 0, -1]) == pytest.approx(cost(apart, 4, 3), abs=1e-5)


def test_takes_of_other_lengths_beside_it_change_no_distance() -> None:
    query, takes = unit(0, 12), [unit(1, 5), unit(2, 20), unit(3, 11), unit(0, 12)]
    together = lay(query, takes).mean
    alone = [float(lay(query, [take]).mean[0]) for take in takes]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[3] == pytest.approx(0.0, abs=1e-5)
    assert float(lay(takes[1], [query]).mean[0]) == pytest.approx(alone[1], abs=1e-5)


def test_a_path_costs_what_its_end_says_and_begins_and_ends_with_both() -> None:
    query, takes = unit(0, 12), [unit(1, 5), unit(2, 20), unit(0, 12)]
    laid = lay(query, takes)
    rows, columns, weights = paths(laid)
    which = np.arange(len(takes))
    along = (laid.apart[rows, which, columns] * weights).sum(0) / weights.sum(0)
    assert along == pytest.approx(laid.mean, abs=1e-5)
    assert weights.sum(0) == pytest.approx(len(query) + laid.lengths)
    assert rows[0].tolist() == [11, 11, 11]
    assert columns[0].tolist() == [4, 19, 11]
    assert rows[-1].tolist() == columns[-1].tolist() == [0, 0, 0]


def test_some_takes_are_laid_as_they_were_among_all() -> None:
    query, takes = unit(0, 12), [unit(1, 5), unit(2, 20), unit(3, 11)]
    some, alone = lay(query, takes).only(np.array([0, 2])), lay(query, [takes[0], takes[2]])
    assert some.mean == pytest.approx(alone.mean, abs=1e-5)
    assert some.apart.shape == alone.apart.shape


def test_the_worst_moment_is_the_worst_of_all_windows() -> None:
    values = np.array([[0.0, 5.0], [1.0, 1.0], [3.0, 1.0], [1.0, 1.0], [9.0, 2.0]], np.float32)
    weights = np.array([[1, 1], [1, 1], [2, 1], [1, 0], [0, 0]], np.float32)
    assert worst_of(values, weights, 3) == pytest.approx([8 / 4, 7 / 3])
    assert worst_of(values, weights, 4)[1] == pytest.approx(7 / 3)
    assert worst_of(values, weights, 6) == pytest.approx([8 / 5, 7 / 3])


def take(seed: int, count: int) -> Samples:
    bands = np.random.default_rng(seed + 100).normal(size=(count, 4)).astype(np.float32)
    frames = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return np.concatenate([frames / np.linalg.norm(frames, axis=1, keepdims=True), bands], axis=1)


def shown(query: Samples, takes: list[Samples]) -> Samples:
    return evidence(query, takes, lay(query[:, :DIMENSIONS], [other[:, :DIMENSIONS] for other in takes]))


def test_evidence_is_the_same_either_way_round_and_whatever_stands_beside() -> None:
    takes = [take(1, 9), take(2, 30), take(3, 14)]
    together = shown(take(0, 12), takes)
    assert together.shape == (3, len(EVIDENCE))
    for number, other in enumerate(takes):
        assert shown(take(0, 12), [other])[0] == pytest.approx(together[number], abs=1e-4)
        assert shown(other, [take(0, 12)])[0] == pytest.approx(together[number], abs=1e-4)


def test_one_other_sound_shows_in_the_worst_moment_and_hardly_in_the_mean() -> None:
    query, other = take(0, 40), take(0, 40)
    other[18:24] = take(5, 6)
    found = dict(zip(EVIDENCE, shown(query, [other])[0], strict=True))
    assert found["mean"] < 0.25
    assert found["worst 5"] > 3 * found["mean"]
    assert found["spectrum worst 5"] > 3 * found["spectrum mean"]


def test_the_shortest_takes_there_are_can_be_judged(model: Respoken) -> None:
    for lengths in ((1, 1), (1, 4), (2, 9)):
        query, other = (take(seed, length) for seed, length in enumerate(lengths))
        assert np.isfinite(model.judge(shown(query, [other]))).all()


def test_takes_that_mean_the_same_are_no_rivals() -> None:
    apart, odds = np.array([0.2, 0.25, 0.4], np.float32), np.array([5.0, 4.0, -3.0], np.float32)
    same = ruled([0, 2, 3], apart, odds, ["yes", "go", "yes", "no"], 0.3)
    assert (same.number, same.odds, same.rival) == (0, 5.0, -3.0)
    assert same.score == pytest.approx(5.0 + 0.3 * 3.0 - math.log(4))
    assert ruled([0, 1, 3], apart, odds, ["yes", "go", "yes", "no"], 0.3).rival == 4.0
    assert ruled([3], apart[:1], odds[:1], ["", "", "", "no"], 0.3).rival == UNLIKELY


def test_with_nothing_to_compare_there_is_no_match(model: Respoken) -> None:
    assert model.match(unit(0, 12), [], []) is None


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    told = (folder / "model.toml").read_text("utf-8")
    (folder / "model.toml").write_text(told.replace('family = "respoken"', 'family = "speaker"'), "utf-8")
    with pytest.raises(ModelFileError, match="family must be respoken"):
        Respoken(folder)


def test_a_judge_is_kept_as_it_was_and_another_file_is_refused(model: Respoken, tmp_path: Path) -> None:
    model.judge.write(tmp_path / "judge.npz")
    found = shown(take(0, 12), [take(1, 9)])
    assert Judge.read(tmp_path / "judge.npz")(found) == pytest.approx(model.judge(found))
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    np.savez(folder / "judge.npz", mean=np.zeros(3))
    with pytest.raises(ModelFileError, match=r"judge\.npz.*spread"):
        Respoken(folder)
    (folder / "judge.npz").unlink()
    with pytest.raises(ModelFileError, match=r"judge\.npz"):
        Respoken(folder)

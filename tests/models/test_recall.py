"""The shipped recall networks: what is refused, what silence gives, and that they tell one recording from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.fingerprint.bits import fingerprint, on_both_grids
from gateway.fingerprint.listen import listen
from models.evidence import BITS, FEATURES, Stored, align, timeline
from models.onnx import ModelFileError
from models.recall import BANDS, EMBEDDED, RecallNets
from models.utterance import Samples
from tests.fingerprint.voice import hiss, say


@pytest.fixture(scope="module")
def nets() -> RecallNets:
    return RecallNets()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"ear.model\.toml: missing"):
        RecallNets(tmp_path)
    shutil.copytree(EMBEDDED / "ear", tmp_path / "ear")
    with pytest.raises(ModelFileError, match=r"judge.model\.toml: missing"):
        RecallNets(tmp_path)


def test_networks_of_another_form_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "recall")
    manifest = tmp_path / "recall" / "ear" / "model.toml"
    manifest.write_text(manifest.read_text("utf-8").replace(f"bands = {BANDS}", "bands = 40"), "utf-8")
    with pytest.raises(ModelFileError, match=f"needs {BANDS} bands and {FEATURES} features"):
        RecallNets(tmp_path / "recall")


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "recall")
    with (tmp_path / "recall" / "judge" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelFileError, match="sha256"):
        RecallNets(tmp_path / "recall")


def test_the_ear_gives_odds_for_every_half_frame(nets: RecallNets) -> None:
    found = on_both_grids(say(3))
    assert found is not None
    code, energies, bits = found
    frames = len(code)
    heard = nets.hear(energies, bits, code.level)
    assert heard.log_odds.shape == (2 * frames, BITS)
    assert heard.speech.shape == (frames, 3)
    assert np.isfinite(heard.log_odds).all()
    assert heard.speech.min() >= 0
    assert heard.speech.max() <= 1
    louder = nets.hear(4 * energies, heard.bits, heard.level)
    np.testing.assert_allclose(louder.log_odds, heard.log_odds, atol=1e-2)


@pytest.mark.parametrize("frames", [1, 2, 5, 100])
def test_silence_is_heard_without_nan(nets: RecallNets, frames: int) -> None:
    nothing = np.zeros((2 * frames, BANDS), np.float32)
    heard = nets.hear(nothing, np.zeros(2 * frames, np.uint32), np.zeros(frames, np.uint8))
    assert np.isfinite(heard.log_odds).all()
    assert np.isfinite(heard.speech).all()
    code = fingerprint(say(3))
    assert code is not None
    stored = Stored.of(code.bits, code.mask, code.level)
    score, against = nets.judge(timeline(stored, heard, align(stored, heard)))
    assert score < nets.threshold
    assert np.isfinite(against).all()


@pytest.mark.parametrize("seed", range(4))
def test_one_recording_is_told_from_another(nets: RecallNets, seed: int) -> None:
    stored = say(seed)
    assert score(nets, stored, stored) >= nets.threshold
    assert score(nets, stored, hiss(stored, 25, seed)) >= nets.threshold
    assert score(nets, stored, say(seed + 50)) < nets.threshold


def score(nets: RecallNets, stored: Samples, heard: Samples) -> float:
    code, query = fingerprint(stored), listen(heard)
    assert code is not None
    assert query is not None
    assert query.heard is not None
    old = Stored.of(code.bits, code.mask, code.level)
    told, against = nets.judge(timeline(old, query.heard, align(old, query.heard)))
    assert np.isfinite(against).all()
    return told

"""`python -m bench.models` on tiny folders made here: figures, what is missing, bad folders, and who was trained on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from bench.models import __main__ as bench
from bench.models import chance, folder, synthesizer, voices
from bench.models.folder import FolderError, Row
from bench.models.targets import TARGETS
from models.synthesizer import AcousticModel
from models.training.measures import area
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder

COLUMNS = ("path", "kind", "speaker", "text", "take", "emotion", "lang", "seconds", "sample_rate", "licence", "use")
Line = dict[str, str]


def write_index(root: Path, lines: list[Line], columns: tuple[str, ...] = COLUMNS) -> None:
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(lines)


def line(path: str, kind: str, **more: str) -> Line:
    return {"path": path, "kind": kind, "lang": "en", "use": "evaluate", **more}


@pytest.fixture(scope="module")
def say() -> Callable[[str, str, str], Samples]:
    """Our own synthesizer at 16 kHz: (text, voice, mood) -> samples."""
    acoustic, vocoder = AcousticModel(), Vocoder()

    def make(text: str, voice: str, mood: str) -> Samples:
        wave = vocoder.wave(acoustic.mel(text, voice, mood))
        return np.asarray(soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE), np.float32)

    return make


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str, str, str], Samples]) -> Path:
    """Two speakers who read, say commands and act, and a noise."""
    root = tmp_path_factory.mktemp("speech")
    lines: list[Line] = []

    def add(kind: str, samples: Samples, **more: str) -> None:
        path = f"{len(lines)}.flac"
        sf.write(root / path, samples, RECOGNIZER_RATE)
        lines.append(line(path, kind, seconds=f"{len(samples) / RECOGNIZER_RATE:.3f}", **more))

    for speaker in ("slt", "rms"):
        told = {"speaker": speaker, "sex": "f" if speaker == "slt" else "m"}
        text = "the next train to the harbour leaves in twenty minutes, and the one after that tomorrow"
        add("speakers_en", say(text, speaker, "neutral"), **told)
        for word in ("seven", "happy"):
            add("commands_en", say(word, speaker, "neutral"), text=word, **told)
        for mood, emotion in (("angry", "anger_strong"), ("sad", "sad")):
            add("emotion_en", say("kids are talking by the door", speaker, mood), emotion=emotion, **told)
    add("noise", np.random.default_rng(0).normal(0, 0.1, 3 * RECOGNIZER_RATE).astype(np.float32), lang="")
    write_index(root, lines, (*COLUMNS, "sex"))
    return root


def run(
    speech: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Values and reasons by name. No voice of the system is found, so nothing depends on what is installed."""
    monkeypatch.setenv("PATH", "")
    out.mkdir(exist_ok=True)
    options = ["--speech", str(speech), "--noise", str(speech), "--json", str(out / "out.json"), "--docs", str(out)]
    assert bench.main([*options, "--limit", "1", *more]) == 0
    found = json.loads((out / "out.json").read_text())
    return {figure["name"]: figure["value"] for figure in found["figures"]}, found["context"]["missing"]


MEASURED = {
    "synthesizer": ("moods in order by rate", 1, 1, "moods.png"),
    "vocoder": ("STFT distance over Griffin-Lim's", 0, 1, "spectrogram-vocoder.png"),
    "recognizer": ("streams that end as the whole", 1, 1, "word-confusion.png"),
    "voice encoder": ("equal error rate at 256", 0, 1, "eer-by-dimension.png"),
    "emotion encoder": ("area under the curve, high against low arousal", 0, 1, None),
    "all models": ("size", 1, 60, None),
}


@pytest.mark.parametrize("part", MEASURED)
def test_every_figure_is_measured_or_said_to_be_missing(
    part: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, missing = run(people, tmp_path, monkeypatch, "--only", part)
    asked = {name for name in TARGETS if name.startswith(part)}
    assert asked <= set(values) | set(missing)
    assert not set(values) & set(missing)
    assert all(why.startswith("no data: ") for why in missing.values())
    page = (tmp_path / "README.md").read_text()
    for name in asked:
        assert f"| {name.split(': ', 1)[1]} |" in page
    figure, least, most, picture = MEASURED[part]
    assert least <= values[f"{part}: {figure}"] <= most
    if picture:
        assert f"]({picture})" in page
        assert 0 < (tmp_path / picture).stat().st_size < 150_000


def test_kinds_that_are_missing_are_no_data(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sf.write(tmp_path / "word.flac", np.zeros(RECOGNIZER_RATE, np.float32), RECOGNIZER_RATE)
    write_index(tmp_path, [line("word.flac", "commands_ar", speaker="one", text="no", lang="ar", seconds="1.0")])
    names = ("vocoder", "recognizer", "voice encoder", "emotion encoder")
    parts = [option for name in names for option in ("--only", name)]
    values, missing = run(tmp_path, tmp_path / "out", monkeypatch, *parts)
    assert values == {}
    assert set(missing) == {name for name in TARGETS if not name.startswith(("synthesizer", "all models"))}
    assert all(why.startswith("no data: ") for why in missing.values())


def test_bad_folders_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal() -> str:
        with pytest.raises(SystemExit) as ended:
            bench.main(["--speech", str(tmp_path / "a"), "--noise", str(tmp_path / "a"), "--only", "vocoder"])
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert "no index.csv" in refusal()
    (tmp_path / "a").mkdir()
    write_index(tmp_path / "a", [], ("path", "kind", "speaker"))
    assert "column text, emotion, lang is missing; needed are path, kind" in refusal()
    write_index(tmp_path / "a", [])
    assert "lists no recordings" in refusal()
    write_index(tmp_path / "a", [line("gone.flac", "speakers_en", seconds="3")])
    assert "gone.flac is listed, but there is no such file" in refusal()
    (tmp_path / "a/gone.flac").write_bytes(b"no sound")
    assert "a/gone.flac" in refusal().replace("\\", "/")
    write_index(tmp_path / "a", [line("gone.flac", "speakers_en", seconds="long")])
    assert "seconds of gone.flac: could not convert" in refusal()


def test_a_folder_inside_another_is_read_by_its_index(people: Path) -> None:
    (people / "part").mkdir(exist_ok=True)
    with pytest.raises(FolderError, match="lists no recordings in"):
        folder.read_rows(people / "part")


def rows_seen(root: Path, monkeypatch: pytest.MonkeyPatch, readers: int) -> list[Row]:
    """Readers, of whom the first half were trained on."""
    for n in range(readers):
        sf.write(root / f"{n}.flac", np.zeros(3 * RECOGNIZER_RATE, np.float32), RECOGNIZER_RATE)
    lines = [line(f"{n}.flac", "speakers_en", speaker=f"ls_{n}", seconds="3.0", use="train") for n in range(readers)]
    write_index(root, lines)
    keys = frozenset(folder.key_of(one) for one in lines[: readers // 2])
    monkeypatch.setattr(folder, "seen_keys", lambda: keys)
    return folder.read_rows(root)


def test_of_people_trained_on_only_those_held_out_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_seen(tmp_path, monkeypatch, 60)
    unheard = folder.reading_unheard(rows)
    assert sum(map(unheard, rows[:30])) == folder.HELD_OUT_READERS
    assert all(map(unheard, rows[30:]))
    assert 0 < sum(map(folder.voice_unheard, rows[:30])) < 15
    assert all(map(folder.voice_unheard, rows[30:]))


def test_held_out_are_those_that_training_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from models.training import recognizer_data, speaker_data, vocoder_data

    rows = rows_seen(tmp_path, monkeypatch, 60)
    every = frozenset(folder.key_of(line(row.name, row.kind, speaker=row.speaker)) for row in rows)
    monkeypatch.setattr(folder, "seen_keys", lambda: every)
    rows = folder.read_rows(tmp_path)
    unheard = folder.reading_unheard(rows)
    assert {row.path for row in rows if unheard(row)} == set(vocoder_data.held_out(tmp_path))
    assert folder.HELD_OUT_VOICES == speaker_data.TEST
    assert recognizer_data.load_real.__defaults__ == (folder.HELD_OUT_COMMANDS,) == (folder.HELD_OUT_NOISE,)


def test_equal_error_and_area_of_known_scores() -> None:
    same = np.array([True] * 4 + [False] * 4)
    assert chance.equal_error(np.array([5.0, 6, 7, 8, 1, 2, 3, 4]), same) == 0
    assert chance.equal_error(np.array([1.0, 6, 7, 8, 2, 3, 4, 9]), same) == pytest.approx(0.25)
    assert area(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.875)
    low, high = chance.ratio_interval([1, 0, 1, 0], [1, 1, 1, 1], ["a", "b", "c", "d"])
    assert 0 <= low < 0.5 < high <= 1


def test_segments_last_two_to_four_seconds_and_do_not_overlap() -> None:
    for seconds in (1.9, 2.0, 3.9, 4.1, 8.0, 60.0):
        places = voices.cuts(round(seconds * RECOGNIZER_RATE), f"{seconds}.flac")
        assert len(places) <= voices.SEGMENTS
        assert bool(places) == (seconds >= 2)
        for (start, end), (after, _) in zip(places, [*places[1:], (places[-1][1], 0)] if places else [], strict=True):
            assert 2 * RECOGNIZER_RATE - 1 <= end - start <= 4 * RECOGNIZER_RATE
            assert end <= after


def test_positives_are_of_other_recordings_where_there_are_any() -> None:
    row = Row(Path("a"), "a", "speakers", "", "", "", "en", 3.0, False, {})
    clips = [("a", "1"), ("a", "1"), ("a", "2"), ("b", "3"), ("b", "3")]
    segments = [voices.Segment(speaker, name, row, np.ones(256, np.float32)) for speaker, name in clips]
    pairs = voices.pairs_of(segments)
    same = {tuple(place) for place in pairs.places[pairs.same].tolist()}
    assert same == {(0, 2), (1, 2), (3, 4)}
    assert (~pairs.same).sum() == 6


def test_warping_forgives_time_and_nothing_else() -> None:
    mel = np.random.default_rng(0).normal(size=(80, 30)).astype(np.float32)
    assert synthesizer.warped_l1(mel, np.repeat(mel, 2, axis=1)) == pytest.approx(0, abs=1e-6)
    assert synthesizer.warped_l1(mel, mel + 0.5) == pytest.approx(0.5, abs=0.01)

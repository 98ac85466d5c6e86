"""The shipped recognizer: words, silence, windows, streams, and the engine around it.

Speech is made here, by the shipped synthesizer where it is there and by flite where that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models import recognizer as module
from models.engine import EngineError
from models.onnx import ModelFileError
from models.recognizer import Recognizer, RecognizerEngine, RecognizerStream, features
from models.utterance import Text, Transcript, Utterance, Waveform

FOLDER = Path(module.__file__).parent / "embedded" / "recognizer"
SENTENCE = "please turn on the lights in the kitchen"


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(FOLDER)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """SENTENCE by a teacher voice, 16 kHz."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    wav = tmp_path_factory.mktemp("speech") / "said.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", SENTENCE, "-o", str(wav)], check=True, timeout=60)
    samples, rate = soundfile.read(wav, dtype="float32")
    assert rate == 16000
    return np.asarray(samples)


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    """Twenty-five seconds of vowel-like tones and hisses with pauses: not speech, but not nothing either."""
    rng = np.random.default_rng(3)
    time = np.arange(16000 * 25) / 16000
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in (140, 700, 1220, 2600)) * 0.05
    loud = np.repeat(rng.uniform(0, 1, 125) > 0.4, 3200)
    return np.asarray(tones * loud + rng.normal(0, 0.01, len(time)), np.float32)


@pytest.fixture
def engine(recognizer: Recognizer) -> Iterator[RecognizerEngine]:
    with ThreadPoolExecutor(2) as pool:
        yield RecognizerEngine(recognizer, pool)


def test_features_are_one_frame_each_ten_milliseconds() -> None:
    assert features(np.zeros(159, np.float32)).shape == (0, module.BANDS)
    silence = features(np.zeros(16000, np.float32))
    assert silence.shape == (100, module.BANDS)
    assert np.allclose(silence, module.SILENCE)
    assert features(np.zeros(16159, np.float32)).shape == (100, module.BANDS)


def test_a_louder_tone_is_heard_louder_in_its_band() -> None:
    time = np.arange(16000) / 16000
    quiet = features((0.01 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))[50]
    loud = features((0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))[50]
    band = int(loud.argmax())
    centres = module.filterbank() @ np.linspace(0, 8000, 257) / module.filterbank().sum(axis=1)
    assert centres[band] == pytest.approx(1000, abs=60)
    assert (loud[band] - quiet[band]) * module.SPREAD == pytest.approx(np.log(100), abs=0.01)


def test_a_sentence_is_understood(recognizer: Recognizer, speech: np.ndarray) -> None:
    heard = recognizer.transcribe(speech)
    assert heard.text == SENTENCE
    assert heard.final
    assert 0.5 < heard.confidence <= 1.0
    assert [word.text for word in heard.words] == SENTENCE.split()
    ends = [0.0]
    for word in heard.words:
        assert ends[-1] <= word.start < word.end <= len(speech) / 16000 + module.STEP_SECONDS
        ends.append(word.end)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 800, 16000, 16000 * 3])
def test_silence_says_nothing(recognizer: Recognizer, samples: int) -> None:
    heard = recognizer.transcribe(np.zeros(samples, np.float32))
    assert heard == Transcript("", 0.0)


@pytest.mark.parametrize("level", [0.001, 0.03, 0.3])
def test_hiss_says_nothing(recognizer: Recognizer, level: float) -> None:
    hiss = np.random.default_rng(5).normal(0, level, 32000).astype(np.float32)
    assert recognizer.transcribe(hiss).text == ""


def test_log_probs_are_distributions(recognizer: Recognizer, mixture: np.ndarray) -> None:
    rows = recognizer.log_probs(mixture[:50_000])
    assert rows.shape == (-(-(50_000 // 160) // 4), recognizer.alphabet.size)
    assert np.allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-4)


def test_windows_give_what_one_pass_gives(
    recognizer: Recognizer, mixture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_STEPS", 10**6)
    whole = recognizer.log_probs(mixture)
    monkeypatch.setattr(module, "WINDOW_STEPS", 90)
    assert np.allclose(recognizer.log_probs(mixture), whole, atol=1e-3)


def test_what_is_far_away_changes_nothing(recognizer: Recognizer, mixture: np.ndarray) -> None:
    """The manifest's `context` covers the network's receptive field: streams and windows rely on it."""
    reach = recognizer.context * module.HOP + module.WINDOW
    alone = recognizer.log_probs(mixture[: 16000 * 8])
    joined = recognizer.log_probs(mixture[: 16000 * 14])
    sure = (16000 * 8 - reach) // module.STEP
    assert np.allclose(alone[:sure], joined[:sure], atol=1e-3)


@pytest.mark.parametrize("piece", [160, 1000, 7777, 40000])
def test_a_stream_ends_as_the_whole(
    recognizer: Recognizer, speech: np.ndarray, mixture: np.ndarray, piece: int
) -> None:
    samples = np.concatenate([speech, mixture[:20_000], speech, np.zeros(9_000, np.float32), speech])
    samples = samples if piece > 160 else samples[:30_000]
    stream = RecognizerStream(recognizer)
    for start in range(0, len(samples), piece):
        interim = stream.accept(samples[start : start + piece])
        assert not interim.final
    final, whole = stream.finish(), recognizer.transcribe(samples)
    assert final.final
    assert final.text == whole.text
    assert final.confidence == pytest.approx(whole.confidence, abs=1e-3)
    assert [(word.text, word.start, word.end) for word in final.words] == [
        (word.text, word.start, word.end) for word in whole.words
    ]


def test_words_heard_long_ago_never_change(recognizer: Recognizer, speech: np.ndarray) -> None:
    samples = np.concatenate([speech] * 3)
    final = recognizer.transcribe(samples)
    stream = RecognizerStream(recognizer)
    settled = recognizer.context / 100 + 0.5
    for start in range(0, len(samples), 3200):
        interim = stream.accept(samples[start : start + 3200])
        old = (start + 3200) / 16000 - settled
        assert [w.text for w in interim.words if w.end < old] == [w.text for w in final.words if w.end < old]


async def test_the_engine_gives_one_final_transcript(engine: RecognizerEngine, speech: np.ndarray) -> None:
    chunks = [chunk async for chunk in engine.run(Utterance(Waveform(speech, 16000)))]
    assert [chunk.text for chunk in chunks] == [SENTENCE]
    assert chunks[0].final
    assert engine.info.family == "recognizer"
    assert engine.info.sample_rate == 16000
    assert engine.info.provider == "CPUExecutionProvider"


async def test_the_engine_refuses_what_it_cannot_hear(engine: RecognizerEngine) -> None:
    second = np.zeros(8000, np.float32)
    for utterance in (
        Utterance(Waveform(second, 8000)),
        Utterance(Text("hello")),
        Utterance(Waveform(np.full(16000, np.nan, np.float32), 16000)),
    ):
        with pytest.raises(EngineError):
            [chunk async for chunk in engine.run(utterance)]


async def test_the_engine_streams(engine: RecognizerEngine, speech: np.ndarray) -> None:
    async def pieces() -> AsyncIterator[np.ndarray]:
        for start in range(0, len(speech), 4000):
            yield speech[start : start + 4000]

    heard = [transcript async for transcript in engine.stream(pieces())]
    assert [transcript.final for transcript in heard] == [False] * (len(heard) - 1) + [True]
    assert len(heard) > 3
    assert heard[-1].text == SENTENCE


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model\.toml"):
        Recognizer(tmp_path)

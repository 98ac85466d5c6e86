"""The shipped recognizer: words, silence, windows, streams, and the engine around it.

Speech is made here, by the shipped synthesizer where it is there and by flite where that is installed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models import hearing
from models import recognizer as module
from models.ctc import PHRASE_STEPS, phrase_ends
from models.engine import ERRAND, Busy, EngineError, Errand, TooLate
from models.hearing import features
from models.onnx import ModelFileError
from models.recognizer import Recognizer, RecognizerEngine, RecognizerStream
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
    assert features(np.zeros(159, np.float32)).shape == (0, hearing.BANDS)
    silence = features(np.zeros(16000, np.float32))
    assert silence.shape == (100, hearing.BANDS)
    assert np.allclose(silence, hearing.SILENCE)
    assert features(np.zeros(16159, np.float32)).shape == (100, hearing.BANDS)


def test_a_louder_tone_is_heard_louder_in_its_band() -> None:
    time = np.arange(16000) / 16000
    quiet = features((0.01 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))[50]
    loud = features((0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))[50]
    band = int(loud.argmax())
    centres = hearing.filterbank() @ np.linspace(0, 8000, 257) / hearing.filterbank().sum(axis=1)
    assert centres[band] == pytest.approx(1000, abs=60)
    assert (loud[band] - quiet[band]) * hearing.SPREAD == pytest.approx(np.log(100), abs=0.01)


def test_a_sentence_is_understood(recognizer: Recognizer, speech: np.ndarray) -> None:
    heard = recognizer.transcribe(speech)
    assert heard.text == SENTENCE
    assert heard.final
    assert 0.5 < heard.confidence <= 1.0
    assert [word.text for word in heard.words] == SENTENCE.split()
    ends = [0.0]
    for word in heard.words:
        assert ends[-1] <= word.start < word.end <= len(speech) / 16000 + hearing.STEP_SECONDS
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


def test_silence_around_a_recording_changes_nothing(
    recognizer: Recognizer, speech: np.ndarray, mixture: np.ndarray
) -> None:
    """The graph's edges are silence: a recording alone, and in the midst of as much silence as any step could see."""
    steps = recognizer.context // hearing.STRIDE
    for samples in (speech, mixture[:5_000], mixture[30_000:70_000], mixture[:170]):
        heard = features(samples)
        count = -(-len(heard) // hearing.STRIDE)
        around = np.pad(heard, ((recognizer.context,) * 2, (0, 0)), constant_values=hearing.SILENCE)
        rows = recognizer.steps(around, steps, steps + count)
        assert np.allclose(recognizer.log_probs(samples), rows, atol=1e-4)


def test_a_batch_hears_what_each_alone_would(recognizer: Recognizer, speech: np.ndarray, mixture: np.ndarray) -> None:
    recordings = [speech, mixture[:20_000], speech[: len(speech) // 2], mixture[5_000:5_160], mixture[:70_123]]
    batched = recognizer.log_probs_of(recordings)
    for samples, rows in zip(recordings, batched, strict=True):
        alone = recognizer.log_probs(samples)
        assert rows.shape == alone.shape
        assert np.allclose(rows, alone, atol=1e-4)
        assert recognizer.read(rows).text == recognizer.transcribe(samples).text


async def test_callers_at_once_are_told_what_each_alone_would_be(
    recognizer: Recognizer, speech: np.ndarray, mixture: np.ndarray
) -> None:
    recordings = [speech[1000 * number :] for number in range(8)] + [mixture[: 16_000 * 9], mixture[:100], speech]
    with ThreadPoolExecutor(2) as pool:
        engine = RecognizerEngine(recognizer, pool, runners=1)

        async def hear(samples: np.ndarray) -> str:
            (heard,) = [chunk async for chunk in engine.run(Utterance(Waveform(samples, 16000)))]
            return heard.text

        texts = await asyncio.gather(*map(hear, recordings))
    assert texts == [recognizer.transcribe(samples).text for samples in recordings]
    assert texts[0] == texts[-1] == SENTENCE


async def test_a_full_line_and_a_passed_deadline_are_told(recognizer: Recognizer, speech: np.ndarray) -> None:
    with ThreadPoolExecutor(1) as pool:
        engine = RecognizerEngine(recognizer, pool, runners=1, waiting=0)
        with pytest.raises(Busy):
            await anext(engine.run(Utterance(Waveform(speech, 16000))))
        engine = RecognizerEngine(recognizer, pool, runners=1)
        ERRAND.set(Errand(deadline=0.0))
        with pytest.raises(TooLate):
            await anext(engine.run(Utterance(Waveform(speech, 16000))))


def test_what_is_far_away_changes_nothing(recognizer: Recognizer, mixture: np.ndarray) -> None:
    """The manifest's `context` covers the network's receptive field: streams and windows rely on it."""
    reach = recognizer.context * hearing.HOP + hearing.WINDOW
    alone = recognizer.log_probs(mixture[: 16000 * 8])
    joined = recognizer.log_probs(mixture[: 16000 * 14])
    sure = (16000 * 8 - reach) // hearing.STEP
    assert np.allclose(alone[:sure], joined[:sure], atol=1e-3)


@pytest.mark.parametrize("piece", [160, 1000, 7777, 40000])
def test_a_stream_ends_as_the_whole(
    recognizer: Recognizer, speech: np.ndarray, mixture: np.ndarray, piece: int
) -> None:
    samples = np.concatenate([speech, mixture[:20_000], np.zeros(9_000, np.float32), speech])
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


def test_phrases_before_a_pause_are_settled(recognizer: Recognizer, speech: np.ndarray) -> None:
    pause = np.zeros(16000, np.float32)
    samples = np.concatenate([speech, pause, speech, pause, speech])
    final = recognizer.transcribe(samples)
    stream = RecognizerStream(recognizer)
    settled = (len(speech) + len(pause)) / 16000 + recognizer.context / 100 + 0.1
    for start in range(0, len(samples), 3200):
        interim = stream.accept(samples[start : start + 3200])
        if (start + 3200) / 16000 > settled:
            first = [word for word in final.words if word.end < len(speech) / 16000 + 0.2]
            assert [word.text for word in interim.words[: len(first)]] == [word.text for word in first]


@pytest.mark.parametrize("seed", range(6))
def test_phrases_end_where_a_stream_would_end_them(seed: int) -> None:
    """Cut at once or piece by piece, with what is left carried over: the same ends."""
    rng = np.random.default_rng(seed)
    blank = np.repeat(rng.random(120) < 0.5, rng.integers(1, 25, 120))
    whole = phrase_ends(blank)
    done, heard = 0, 0
    pieces: list[int] = []
    while heard < len(blank):
        heard = min(len(blank), heard + int(rng.integers(1, 60)))
        found = [done + end for end in phrase_ends(blank[done:heard])]
        pieces += found
        done = found[-1] if found else done
    assert pieces == whole
    assert all(blank[end] for end in whole)


def test_endless_speech_is_cut() -> None:
    blank = np.zeros(3000, bool)
    blank[::50] = True
    ends = phrase_ends(blank)
    assert max(np.diff([0, *ends, 3000])) <= PHRASE_STEPS + 50
    assert all(blank[end] for end in ends)


async def test_the_engine_gives_one_final_transcript(engine: RecognizerEngine, speech: np.ndarray) -> None:
    chunks = [chunk async for chunk in engine.run(Utterance(Waveform(speech, 16000)))]
    assert [chunk.text for chunk in chunks] == [SENTENCE]
    assert chunks[0].final
    assert engine.info.family == "recognizer"
    assert engine.info.sample_rate == 16000
    assert engine.info.at_once == module.BATCH
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

"""The shipped acoustic model and the engine around it. The vocoder here is a stand-in: only its contract matters."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from models.engine import EngineError
from models.onnx import ModelFileError
from models.pronounce import Pronouncer
from models.synthesizer import PAUSES, AcousticModel, SynthesizerEngine
from models.text import NothingToSpeak
from models.utterance import MEL_HOP, MEL_RATE, Audio, Mel, Samples, Text, Utterance

SENTENCE = "I have booked a table for four people on Friday evening."


class Level:
    """A wave as loud as the mel, frame by frame; counts its calls."""

    identity = "level"

    def __init__(self) -> None:
        self.calls = 0
        self.threads: set[str] = set()

    def wave(self, mel: Samples) -> Samples:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        return np.repeat(np.exp(mel.mean(axis=0)), MEL_HOP).astype(np.float32)


class Broken:
    identity = "broken"

    def wave(self, mel: Samples) -> Samples:
        raise RuntimeError("out of memory")


@pytest.fixture(scope="module")
def acoustic() -> AcousticModel:
    return AcousticModel()


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    with ThreadPoolExecutor(1, thread_name_prefix="speech") as executor:
        yield executor  # type: ignore[misc]


async def collect(engine: SynthesizerEngine, utterance: Utterance) -> list[Samples]:
    chunks = []
    async for chunk in engine.run(utterance):
        assert isinstance(chunk, Audio)
        assert chunk.rate == MEL_RATE
        chunks.append(chunk.samples)
    return chunks


def test_what_it_offers(acoustic: AcousticModel) -> None:
    assert acoustic.voices == ("slt", "rms", "awb", "kal")
    assert acoustic.emotions == ("neutral", "cheerful", "sad", "angry", "calm")
    assert len(acoustic.identity) == 64


@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal"])
def test_mel_is_speech(acoustic: AcousticModel, voice: str) -> None:
    mel = acoustic.mel(SENTENCE, voice)
    seconds = mel.shape[1] * MEL_HOP / MEL_RATE
    assert mel.dtype == np.float32
    assert mel.shape[0] == 80
    assert 1.8 < seconds < 5.0
    assert np.isfinite(mel).all()
    assert np.log(1e-5) - 1e-3 <= mel.min()
    assert mel.max() < 3.5
    # Speech rises and falls: between vowels and silence there are at least three nepers.
    loudness = mel.mean(axis=0)
    assert np.percentile(loudness, 95) - np.percentile(loudness, 5) > 3.0


def test_it_is_a_function(acoustic: AcousticModel) -> None:
    again = AcousticModel()
    assert again.identity == acoustic.identity
    np.testing.assert_array_equal(again.mel(SENTENCE, "awb", "sad"), acoustic.mel(SENTENCE, "awb", "sad"))


def test_speed_scales_length(acoustic: AcousticModel) -> None:
    slow, plain, fast = (acoustic.mel(SENTENCE, speed=speed).shape[1] for speed in (0.5, 1.0, 2.0))
    assert slow == pytest.approx(2 * plain, rel=0.06)
    assert fast == pytest.approx(plain / 2, rel=0.12)


def test_moods_change_rate_and_loudness(acoustic: AcousticModel) -> None:
    mels = {emotion: acoustic.mel(SENTENCE, "slt", emotion) for emotion in acoustic.emotions}
    frames = {emotion: mel.shape[1] for emotion, mel in mels.items()}
    level = {emotion: float(np.log(np.exp(mel).sum(axis=0)).max()) for emotion, mel in mels.items()}
    assert frames["angry"] < frames["cheerful"] < frames["neutral"] < frames["calm"] < frames["sad"]
    assert level["angry"] > level["cheerful"] > level["neutral"] > level["calm"] > level["sad"]


def test_voices_differ(acoustic: AcousticModel) -> None:
    lengths = {acoustic.mel(SENTENCE, voice).shape[1] for voice in acoustic.voices}
    assert len(lengths) > 1


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("voice: 'bob'.*slt, rms, awb, kal", {"voice": "bob"}),
        ("emotion: 'bored'.*neutral, cheerful, sad, angry, calm", {"emotion": "bored"}),
        ("speed: 3.0.*0.5 to 2", {"speed": 3.0}),
        ("speed: nan", {"speed": float("nan")}),
    ],
)
def test_unknown_options_name_what_is_allowed(acoustic: AcousticModel, field: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=field):
        acoustic.mel(SENTENCE, **options)  # type: ignore[arg-type]


async def test_clause_by_clause_with_pauses(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    vocoder = Level()
    chunks = await collect(SynthesizerEngine(acoustic, vocoder, pool), Utterance(Text("Hello, Anna. How are you?")))
    assert len(chunks) == vocoder.calls == 3
    assert all(name.startswith("speech") for name in vocoder.threads)
    for chunk, sign in zip(chunks, ",.", strict=False):
        silence = round(PAUSES[sign] * MEL_RATE)
        assert not chunk[-silence:].any()
        assert chunk[: -silence - 1].any()
    assert chunks[-1][-1] != 0.0


async def test_same_in_same_out(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    engine = SynthesizerEngine(acoustic, Level(), pool)
    utterance = Utterance(Text(SENTENCE), voice="kal", emotion="angry", speed=1.2)
    first, second = await collect(engine, utterance), await collect(engine, utterance)
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))


async def test_closing_early_stops_the_work(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    vocoder = Level()
    async with aclosing(SynthesizerEngine(acoustic, vocoder, pool).run(Utterance(Text("one. two. three.")))) as chunks:  # type: ignore[type-var]
        await anext(chunks)
    await asyncio.get_running_loop().run_in_executor(pool, lambda: None)
    assert vocoder.calls == 1


async def test_failures_are_engine_errors(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        await collect(SynthesizerEngine(acoustic, Broken(), pool), Utterance(Text("hello")))
    with pytest.raises(EngineError, match="takes a Text"):
        await collect(SynthesizerEngine(acoustic, Level(), pool), Utterance(Mel(np.zeros((80, 4), np.float32))))


async def test_what_the_caller_may_mend_is_a_value_error(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    engine = SynthesizerEngine(acoustic, Level(), pool)
    with pytest.raises(NothingToSpeak):
        await collect(engine, Utterance(Text("🎉 ...")))
    with pytest.raises(ValueError, match="voice: 'bob' is unknown"):
        await collect(engine, Utterance(Text("hello"), voice="bob"))
    with pytest.raises(ValueError, match="language: 'ar-EG'"):
        await collect(engine, Utterance(Text("hello"), language="ar-EG"))


def test_identity_covers_the_chain(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    ours = SynthesizerEngine(acoustic, Level(), pool).info
    other = SynthesizerEngine(acoustic, Broken(), pool).info
    assert ours.identity != other.identity
    assert ours.family == "synthesizer"
    assert ours.voices == acoustic.voices
    assert ours.sample_rate == MEL_RATE


def test_damaged_lexicon_is_refused(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "models" / "embedded" / "g2p"
    for file in ("model.onnx", "model.toml"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "lexicon.txt.gz").write_bytes(b"not a lexicon")
    with pytest.raises(ModelFileError, match="lexicon"):
        Pronouncer(tmp_path)

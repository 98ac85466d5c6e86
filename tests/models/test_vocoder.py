"""The shipped vocoder: what it makes of a mel, streams that equal the whole, and the engine around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.engine import ERRAND, Engine, EngineError, Errand
from models.mel import log_mel
from models.onnx import ModelFileError
from models.utterance import MEL_HOP, Audio, Mel, Samples, Text, Utterance
from models.vocoder import CHUNK_FRAMES, EARLY_FRAMES, EMBEDDED, Vocoder, VocoderEngine


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder()


@pytest.fixture(scope="module")
def voiced() -> Samples:
    """3.3 s of a gliding vowel with pauses and a hiss: pitch, noise and silence for the vocoder to tell apart."""
    random = np.random.default_rng(11)
    t = np.arange(283 * MEL_HOP) / 22_050
    f0 = 140 + 30 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(f0) / 22_050
    formants = [(600, 90), (1400, 120), (2600, 200)]
    wave = np.zeros_like(t)
    for h in range(1, 25):
        gain = sum(1 / (1 + ((h * f0 - hz) / width) ** 2) for hz, width in formants)
        wave += gain * np.sin(h * phase)
    wave *= 0.2 * (np.sin(2 * np.pi * 1.1 * t) > -0.5)
    wave[-12_000:-6_000] = 0.03 * random.standard_normal(6_000)
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def mel(voiced: Samples) -> Samples:
    return log_mel(voiced)


def pieces(mel: Samples, width: int) -> Iterator[Samples]:
    for at in range(0, mel.shape[1], width):
        yield mel[:, at : at + width]


def test_wave_is_whole_hops_and_says_the_mel_again(vocoder: Vocoder, mel: Samples) -> None:
    wave = vocoder.wave(mel)
    assert wave.dtype == np.float32
    assert wave.shape == (mel.shape[1] * MEL_HOP,)
    assert np.abs(wave).max() <= 1.0
    heard = mel > -5.0
    assert np.abs(log_mel(wave) - mel)[heard].mean() < 0.25


def test_pitch_of_the_wave_is_the_mels(vocoder: Vocoder, voiced: Samples, mel: Samples) -> None:
    def f0(wave: Samples) -> float:
        stretch = wave[15_000:19_000].astype(np.float64)
        correlation = np.correlate(stretch, stretch, "full")[len(stretch) - 1 :]
        return 22_050 / (80 + int(np.argmax(correlation[80:300])))

    assert f0(vocoder.wave(mel)) == pytest.approx(f0(voiced), rel=0.03)


def test_same_mel_same_wave(vocoder: Vocoder, mel: Samples) -> None:
    assert np.array_equal(vocoder.wave(mel), Vocoder().wave(mel))


@pytest.mark.parametrize("width", [1, 7, 64, 1000])
def test_stream_equals_whole(vocoder: Vocoder, mel: Samples, width: int) -> None:
    waves = list(vocoder.stream(pieces(mel, width)))
    assert len(waves) > 3
    assert all(len(wave) == CHUNK_FRAMES * MEL_HOP for wave in waves[:-1])
    assert np.abs(np.concatenate(waves) - vocoder.wave(mel)).max() < 1e-4


def test_long_stream_equals_whole(vocoder: Vocoder, mel: Samples) -> None:
    long = np.tile(mel, (1, 2))
    streamed = np.concatenate(list(vocoder.stream(pieces(long, 50))))
    assert np.abs(streamed - vocoder.wave(long)).max() < 1e-4


@pytest.mark.parametrize("frames", [1, 2, 43, 44, 67, 68, 86])
def test_short_stream_equals_whole(vocoder: Vocoder, mel: Samples, frames: int) -> None:
    """Around one chunk (43 frames), with and without frames of its context."""
    short = mel[:, 60 : 60 + frames]
    streamed = np.concatenate(list(vocoder.stream(pieces(short, 10))))
    assert streamed.shape == (frames * MEL_HOP,)
    assert np.abs(streamed - vocoder.wave(short)).max() < 1e-4


def test_stream_asks_for_no_more_than_it_needs(vocoder: Vocoder, mel: Samples) -> None:
    given = 0

    def counted() -> Iterator[Samples]:
        nonlocal given
        for piece in pieces(mel, 1):
            given += 1
            yield piece

    next(vocoder.stream(counted()))
    assert given < mel.shape[1] / 2


def test_nothing_in_nothing_out(vocoder: Vocoder) -> None:
    empty = np.zeros((80, 0), np.float32)
    assert vocoder.wave(empty).shape == (0,)
    assert list(vocoder.stream([])) == []
    assert list(vocoder.stream([empty, empty])) == []


def test_silence_stays_silent(vocoder: Vocoder) -> None:
    wave = vocoder.wave(np.full((80, 50), np.log(1e-5), np.float32))
    assert np.abs(wave).max() < 2e-3


@pytest.mark.parametrize("level", [-60.0, 20.0])
def test_mels_out_of_range_stay_in_bounds(vocoder: Vocoder, level: float) -> None:
    wave = vocoder.wave(np.full((80, 30), level, np.float32))
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() <= 1.0


@pytest.mark.parametrize("shape", [(79, 10), (10, 80), (80,), (1, 80, 10)])
def test_wrong_shapes_are_named(vocoder: Vocoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        vocoder.wave(np.zeros(shape, np.float32))


def test_values_that_are_not_finite_are_refused(vocoder: Vocoder, mel: Samples) -> None:
    bad = mel.copy()
    bad[3, 200] = np.nan
    with pytest.raises(ValueError, match="finite"):
        vocoder.wave(bad)
    with pytest.raises(ValueError, match="finite"):
        list(vocoder.stream(pieces(bad, 50)))


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes((EMBEDDED / "model.toml").read_bytes())
    (tmp_path / "model.onnx").write_bytes((EMBEDDED / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="sha256"):
        Vocoder(tmp_path)


def test_the_graph_is_a_function(vocoder: Vocoder) -> None:
    onnx = pytest.importorskip("onnx")
    kinds = {node.op_type for node in onnx.load(EMBEDDED / "model.onnx").graph.node}
    assert not {kind for kind in kinds if "Random" in kind or kind in ("Bernoulli", "Multinomial")}


async def collect(engine: Engine, utterance: Utterance) -> list[Audio]:
    return [chunk async for chunk in engine.run(utterance) if isinstance(chunk, Audio)]


async def test_engine_yields_the_wave_in_chunks(vocoder: Vocoder, mel: Samples) -> None:
    with ThreadPoolExecutor(2) as pool:
        engine: Engine = VocoderEngine(vocoder, pool)
        assert engine.info.family == "vocoder"
        assert engine.info.identity == vocoder.identity
        assert engine.info.sample_rate == 22_050
        chunks = await collect(engine, Utterance(Mel(mel)))
    assert {chunk.rate for chunk in chunks} == {22_050}
    assert len(chunks) == 1
    assert np.array_equal(chunks[0].samples, vocoder.wave(mel))


async def test_who_hears_it_as_it_comes_gets_a_small_chunk_first(vocoder: Vocoder, mel: Samples) -> None:
    ERRAND.set(Errand(early=True))
    with ThreadPoolExecutor(1) as pool:
        chunks = await collect(VocoderEngine(vocoder, pool), Utterance(Mel(mel)))
    assert [len(chunk.samples) // MEL_HOP for chunk in chunks] == [EARLY_FRAMES, mel.shape[1] - EARLY_FRAMES]
    assert np.abs(np.concatenate([chunk.samples for chunk in chunks]) - vocoder.wave(mel)).max() < 1e-4


def test_no_chunk_grows_beyond_its_bound(vocoder: Vocoder, mel: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.vocoder.MOST_FRAMES", 100)
    frames = [len(wave) // MEL_HOP for wave in vocoder.stream([mel], 10, 4)]
    assert frames[:3] == [10, 40, 100]
    assert sum(frames) == mel.shape[1]


def test_a_mel_on_the_device_gives_the_same_wave(vocoder: Vocoder, mel: Samples) -> None:
    there = ort.OrtValue.ortvalue_from_numpy(mel[None])
    assert np.array_equal(vocoder.wave_of(there), vocoder.wave(mel))


async def test_engine_serves_callers_at_once(vocoder: Vocoder, mel: Samples) -> None:
    with ThreadPoolExecutor(4) as pool:
        engine = VocoderEngine(vocoder, pool)
        answers = await asyncio.gather(*(collect(engine, Utterance(Mel(mel[:, i:]))) for i in range(4)))
    for i, chunks in enumerate(answers):
        whole = vocoder.wave(mel[:, i:])
        assert np.abs(np.concatenate([chunk.samples for chunk in chunks]) - whole).max() < 1e-4


class Counting(ThreadPoolExecutor):
    """Counts the calls handed to it."""

    calls = 0

    def submit(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().submit(*args, **kwargs)


async def test_closing_the_iterator_stops_the_work(vocoder: Vocoder, mel: Samples) -> None:
    with Counting(1) as pool:
        answer = VocoderEngine(vocoder, pool).run(Utterance(Mel(mel)))
        await anext(answer)
        await answer.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        assert pool.calls == 1


@pytest.mark.parametrize(
    "content", [Text("hello"), Mel(np.zeros((79, 4), np.float32)), Mel(np.full((80, 4), np.inf, np.float32))]
)
async def test_engine_says_what_is_wrong(vocoder: Vocoder, content: Text | Mel) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(EngineError, match=r"Mel|shape|finite"):
        await collect(VocoderEngine(vocoder, pool), Utterance(content))

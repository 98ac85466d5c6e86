"""The shipped acoustic model and the engine around it. The vocoder is a stand-in where only its contract matters."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import soxr

from models.engine import ERRAND, EngineError, Errand
from models.onnx import ModelFileError, read_manifest
from models.pronounce import Pronouncer
from models.speaker import SpeakerEncoder
from models.synthesizer import CUT, EMBEDDED, LEAD_IN, LEAD_OUT, PAUSES, AcousticModel, SynthesizerEngine
from models.text import NothingToSpeak
from models.training.vocoder_pitch import track
from models.utterance import MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Audio, Mel, Samples, Text, Utterance
from models.vocoder import EARLY_FRAMES, Vocoder

SENTENCE = "I have booked a table for four people on Friday evening."
VOICES = ("slt", "rms", "awb", "kal", "kdl", "slt-bright", "slt-low", "rms-deep", "awb-high", "kal-high")


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


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder()


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
    assert acoustic.voices == VOICES
    assert acoustic.emotions == ("neutral", "cheerful", "sad", "angry", "calm")
    assert len(acoustic.identity) == 64


def test_voices_are_known_by_embeddings_far_from_each_other(acoustic: AcousticModel) -> None:
    assert tuple(acoustic.embeddings) == VOICES
    rows = np.array(list(acoustic.embeddings.values()))
    assert rows.shape == (len(VOICES), 256)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (rows @ rows.T - 2 * np.eye(len(VOICES))).max() < 0.95


@pytest.mark.parametrize("voice", VOICES)
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


def spoken_pitch(vocoder: Vocoder, mel: Samples) -> float:
    """Mean fundamental of what the vocoder makes of it, in Hz."""
    pitch = track(vocoder.wave(mel))
    return float(np.exp(np.log(pitch.f0[pitch.voiced]).mean()))


def test_voices_differ_in_pitch_or_in_envelope(acoustic: AcousticModel, vocoder: Vocoder) -> None:
    mels = {voice: acoustic.mel(SENTENCE, voice) for voice in acoustic.voices}
    pitch = {voice: spoken_pitch(vocoder, mel) for voice, mel in mels.items()}
    # The mean of the loud frames, smoothed beyond the harmonics, tells throats apart.
    loud = {voice: mel[:, mel.mean(axis=0) > np.median(mel)].mean(axis=1) for voice, mel in mels.items()}
    shape = {voice: np.convolve(row - row.mean(), np.ones(9) / 9, mode="valid") for voice, row in loud.items()}
    for one, other in itertools.combinations(acoustic.voices, 2):
        semitones = abs(12 * np.log2(pitch[one] / pitch[other]))
        assert semitones + 4 * np.abs(shape[one] - shape[other]).mean() > 2.0, (one, other)
    assert pitch["rms-deep"] < 100 < pitch["awb"] < 150 < pitch["slt"] < 190 < pitch["slt-bright"] < 260


def test_the_shipped_encoder_hears_every_voice_as_itself(acoustic: AcousticModel, vocoder: Vocoder) -> None:
    encoder = SpeakerEncoder()
    # Where this fails, run `python -m models.training acoustic embed`.
    assert read_manifest(EMBEDDED)["options"]["encoder_sha256"] == encoder.model.manifest["sha256"]
    rows = np.array(list(acoustic.embeddings.values()))
    for place, voice in enumerate(acoustic.voices):
        wave = soxr.resample(vocoder.wave(acoustic.mel(SENTENCE, voice)), MEL_RATE, RECOGNIZER_RATE)
        assert int((rows @ encoder.embed(wave)).argmax()) == place, voice


def test_moods_change_pitch(acoustic: AcousticModel, vocoder: Vocoder) -> None:
    pitch = {mood: spoken_pitch(vocoder, acoustic.mel(SENTENCE, "rms", mood)) for mood in acoustic.emotions}
    assert pitch["sad"] < pitch["calm"] < pitch["neutral"] < pitch["angry"] < pitch["cheerful"]


def test_any_embedding_speaks_as_a_voice_between(acoustic: AcousticModel) -> None:
    session = ort.InferenceSession(EMBEDDED / "model.onnx", providers=["CPUExecutionProvider"])
    slt, rms = acoustic.embeddings["slt"], acoustic.embeddings["rms"]
    neutral = np.array([[0, 1, 1, 0, 0]], np.float32)
    symbols = np.array([[0, 57, 6, 22, 26, 0]], np.int64)
    for vector in (slt + rms, -slt, 50 * slt, np.random.default_rng(0).normal(size=256) / 16, np.zeros(256)):
        voice = np.asarray(vector[None], np.float32)
        feeds = {"symbols": symbols, "voice": voice, "emotion": neutral, "speed": np.ones(1, np.float32)}
        mel, frames = session.run(None, feeds)
        assert np.isfinite(mel).all()
        assert 20 < frames.sum() < 200


def test_voices_that_are_not_as_the_manifest_says_are_refused(tmp_path: Path) -> None:
    for file in ("model.onnx", "model.toml"):
        (tmp_path / file).write_bytes((EMBEDDED / file).read_bytes())
    with pytest.raises(ModelFileError, match=r"voices\.npz: missing"):
        AcousticModel(tmp_path)
    (tmp_path / "voices.npz").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match=r"voices\.npz: sha256 is .* option voices_sha256 says"):
        AcousticModel(tmp_path)


def test_a_graph_of_the_first_release_is_refused(tmp_path: Path) -> None:
    """It took places in a table: voice and mood int64."""
    make, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    inputs = [make("symbols", kind.INT64, [1, "n"]), make("voice", kind.INT64, [1]), make("mood", kind.INT64, [1])]
    outputs = [make("mel", kind.FLOAT, [1, 80, "t"]), make("frames", kind.INT64, [1, "n"])]
    nodes = [
        onnx.helper.make_node("Identity", ["symbols"], ["frames"]),
        onnx.helper.make_node("ConstantOfShape", ["shape"], ["mel"]),
    ]
    shape = onnx.numpy_helper.from_array(np.array([1, 80, 4], np.int64), "shape")
    graph = onnx.helper.make_graph(nodes, "old", [*inputs, make("speed", kind.FLOAT, [1])], outputs, [shape])
    opset = onnx.helper.make_opsetid("", 17)
    data = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data)
    told = (EMBEDDED / "model.toml").read_text("utf-8")
    digest = read_manifest(EMBEDDED)["sha256"]
    (tmp_path / "model.toml").write_text(told.replace(digest, hashlib.sha256(data).hexdigest()), "utf-8")
    with pytest.raises(ModelFileError, match=r"model\.onnx: .*voice.* emotion"):
        AcousticModel(tmp_path)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("voice: 'bob'.*slt, rms, awb, kal, .*kal-high", {"voice": "bob"}),
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


def test_a_clause_is_the_same_wherever_it_is_cut(acoustic: AcousticModel) -> None:
    """The cut in the graph against the cut in Python, with much and with little silence around."""
    for said, speed in ((SENTENCE, 1.0), ("oh", 2.0), ("oh", 0.5)):
        for clause, _ in acoustic.plan(said, speed=speed):
            there = acoustic.clause_on_device(clause, speed=speed)
            assert there.device_name() == acoustic.device
            np.testing.assert_array_equal(there.numpy()[0], acoustic.clause_mel(clause, speed=speed))


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 6), (2, 9), (10, 1), (20, 30)])
def test_the_cut_leaves_so_much_silence_and_no_more(before: int, after: int) -> None:
    mel = np.random.default_rng(1).normal(size=(1, 80, before + 5 + after)).astype(np.float32)
    session = ort.InferenceSession(CUT.read_bytes(), providers=["CPUExecutionProvider"])
    frames, leads = np.array([[before, 2, 3, after]]), np.array([LEAD_IN, LEAD_OUT])
    (cut,) = session.run(None, {"mel": mel, "frames": frames, "leads": leads})
    end = mel.shape[2] - max(0, after - LEAD_OUT)
    np.testing.assert_array_equal(cut, mel[:, :, max(0, before - LEAD_IN) : end])


def test_the_cut_is_what_the_training_package_writes() -> None:
    pytest.importorskip("onnx", reason="training needs the extra `train`")
    from models.training.cut import graph

    assert CUT.read_bytes() == graph()


async def test_who_hears_it_as_it_comes_hears_it_early(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    """The first clause in pieces, the others whole; together what they are otherwise."""
    vocoder = Vocoder()
    engine = SynthesizerEngine(acoustic, vocoder, pool)
    utterance = Utterance(Text("This is a sentence of some length, and this is another. Goodbye."))
    whole = await collect(engine, utterance)
    assert len(whole) == 3
    ERRAND.set(Errand(early=True))
    early = await collect(engine, utterance)
    assert len(early) > len(whole)
    assert len(early[0]) == EARLY_FRAMES * MEL_HOP < len(whole[0])
    np.testing.assert_allclose(np.concatenate(early), np.concatenate(whole), atol=1e-4)
    np.testing.assert_array_equal(early[-1], whole[-1])


class Kept:
    """Components that lie in a dictionary."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.tensors: dict[bytes, ort.OrtValue] = {}
        self.costs: list[float] = []
        self.found = 0

    async def find(self, name: bytes) -> ort.OrtValue | None:
        self.found += name in self.tensors
        return self.tensors.get(name)

    async def keep(self, name: bytes, tensor: ort.OrtValue, cost_ms: float) -> None:
        assert name not in self.tensors
        self.tensors[name] = tensor
        self.costs.append(cost_ms)


async def test_a_mel_is_made_once_for_all_vocoders_and_texts(
    acoustic: AcousticModel, vocoder: Vocoder, pool: ThreadPoolExecutor
) -> None:
    engine, other = SynthesizerEngine(acoustic, vocoder, pool), SynthesizerEngine(acoustic, Level(), pool)
    assert engine.info.component == other.info.component == acoustic.component
    first, again = Utterance(Text("This is one clause. Goodbye.")), Utterance(Text("Goodbye. And this is new."))
    plain = [np.concatenate(await collect(one, said)) for one in (engine, other) for said in (first, again)]
    ERRAND.set(Errand(components=(kept := Kept())))
    remembered = [np.concatenate(await collect(one, said)) for one in (engine, other) for said in (first, again)]
    for one, two in zip(plain, remembered, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (len(kept.tensors), kept.found) == (3, 5)
    assert min(kept.costs) > 0


async def test_who_hears_it_early_shares_the_mels(
    acoustic: AcousticModel, vocoder: Vocoder, pool: ThreadPoolExecutor
) -> None:
    engine = SynthesizerEngine(acoustic, vocoder, pool)
    kept = Kept()
    ERRAND.set(Errand(components=kept, early=True))
    early = await collect(engine, Utterance(Text(SENTENCE)))
    ERRAND.set(Errand(components=kept))
    whole = await collect(engine, Utterance(Text(SENTENCE)))
    assert (len(early) > 1, len(whole), len(kept.tensors), kept.found) == (True, 1, 1, 1)
    np.testing.assert_allclose(np.concatenate(early), whole[0], atol=1e-4)


@pytest.mark.parametrize("change", [{"voice": "rms"}, {"emotion": "sad"}, {"speed": 1.1}, {"content": Text("oh no")}])
async def test_whatever_changes_a_mel_is_in_its_name(
    acoustic: AcousticModel, pool: ThreadPoolExecutor, change: dict[str, Any]
) -> None:
    engine = SynthesizerEngine(acoustic, Level(), pool)
    said = Utterance(Text("oh"), voice="slt", emotion="neutral")
    ERRAND.set(Errand(components=(kept := Kept())))
    await collect(engine, said)
    await collect(engine, dataclasses.replace(said, **change))
    assert (len(kept.tensors), kept.found) == (2, 0)


async def test_mels_on_another_device_are_left_alone(acoustic: AcousticModel, pool: ThreadPoolExecutor) -> None:
    ERRAND.set(Errand(components=(kept := Kept("elsewhere"))))
    await collect(SynthesizerEngine(acoustic, Level(), pool), Utterance(Text("oh")))
    assert not kept.tensors


async def test_the_mel_of_a_clause_that_could_not_be_spoken_is_not_kept(
    acoustic: AcousticModel, pool: ThreadPoolExecutor
) -> None:
    ERRAND.set(Errand(components=(kept := Kept())))
    with pytest.raises(EngineError, match="out of memory"):
        await collect(SynthesizerEngine(acoustic, Broken(), pool), Utterance(Text("oh")))
    assert not kept.tensors


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
    assert set(ours.voice_embeddings) == set(acoustic.voices)
    assert ours.voice_embeddings["rms"] == tuple(map(float, acoustic.embeddings["rms"]))
    assert ours.sample_rate == MEL_RATE


def test_damaged_lexicon_is_refused(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "models" / "embedded" / "g2p"
    for file in ("model.onnx", "model.toml"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "lexicon.txt.gz").write_bytes(b"not a lexicon")
    with pytest.raises(ModelFileError, match="lexicon"):
        Pronouncer(tmp_path)

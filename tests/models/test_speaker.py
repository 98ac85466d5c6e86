"""The embedded voice encoder: unit vectors that nest, do not mind the level, and put a voice near itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from models.onnx import ModelFileError
from models.speaker import DIMENSIONS, EMBEDDED, SpeakerEncoder, prefix, spoken, voiced
from models.utterance import RECOGNIZER_RATE, Samples

TEXTS = ("please turn the lights off in the kitchen", "what is the weather going to be like tomorrow")


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder()


@pytest.fixture(scope="module")
def hum() -> Samples:
    """A buzz of 2 s that swells and fades, as syllables do."""
    time = np.arange(2 * RECOGNIZER_RATE) / RECOGNIZER_RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 30))
    noise = np.random.default_rng(0).normal(size=len(time))
    return np.asarray(0.05 * (buzz + 0.1 * noise) * (1.2 + np.sin(2 * np.pi * 3 * time)), np.float32)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Samples]:
    """Two voices saying two sentences each: by flite where it is installed, else by the embedded synthesizer."""
    folder = tmp_path_factory.mktemp("speech")
    if shutil.which("flite"):
        said = {}
        for voice in ("slt", "rms"):
            for number, text in enumerate(TEXTS):
                wav = folder / f"{voice}{number}.wav"
                subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(wav)], check=True)
                said[voice, number] = sf.read(wav, dtype="float32")[0]
        return said
    return by_our_own_voices()


def by_our_own_voices() -> dict[tuple[str, int], Samples]:
    from models.synthesizer import AcousticModel
    from models.vocoder import Vocoder

    acoustic, vocoder = AcousticModel(), Vocoder()
    said = {}
    for voice in ("slt", "rms"):
        for number, text in enumerate(TEXTS):
            wave = vocoder.wave(acoustic.mel(text, voice=voice))
            said[voice, number] = np.asarray(soxr.resample(wave, 22_050, RECOGNIZER_RATE), np.float32)
    return said


def test_an_embedding_is_a_unit_vector(encoder: SpeakerEncoder, hum: Samples) -> None:
    vector = encoder.embed(hum)
    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(vector, encoder.embed(hum))


def test_prefixes_are_embeddings(encoder: SpeakerEncoder, hum: Samples) -> None:
    vector = encoder.embed(hum)
    for d in DIMENSIONS:
        head = prefix(vector, d)
        assert head.shape == (d,)
        assert np.linalg.norm(head) == pytest.approx(1.0, abs=1e-5)
        assert head @ vector[:d] == pytest.approx(np.linalg.norm(vector[:d]), abs=1e-5)


@pytest.mark.parametrize("gain", [0.03, 0.3, 3.0])
def test_level_does_not_matter(encoder: SpeakerEncoder, hum: Samples, gain: float) -> None:
    assert encoder.embed(np.float32(gain) * hum) @ encoder.embed(hum) > 0.999


def test_pauses_do_not_matter(hum: Samples) -> None:
    assert len(voiced(np.pad(hum, 8000))) <= len(voiced(hum)) + 4
    assert len(spoken(np.zeros((10, 80), np.float32))) == 10


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.full(7999, 0.1, np.float32), "at least 0.5 s"),
        (np.zeros(0, np.float32), "at least 0.5 s"),
        (np.full(16000, 9e-5, np.float32), "silent"),
        (np.full(16000, np.nan, np.float32), "finite"),
        (np.full((2, 16000), 0.1, np.float32), "shape"),
    ],
)
def test_what_holds_no_voice_is_refused(encoder: SpeakerEncoder, samples: Samples, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encoder.embed(samples)


def test_wrong_prefixes_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions is 7; allowed are 8, 16"):
        prefix(np.ones(256, np.float32), 7)
    with pytest.raises(ValueError, match="allowed is \\[256\\]"):
        prefix(np.ones(255, np.float32), 8)
    with pytest.raises(ValueError, match="first 8 numbers"):
        prefix(np.zeros(256, np.float32), 8)


def test_a_voice_is_nearest_to_itself(encoder: SpeakerEncoder, speech: dict[tuple[str, int], Samples]) -> None:
    vectors = {key: encoder.embed(samples) for key, samples in speech.items()}
    for d in DIMENSIONS:
        heads = {key: prefix(vector, d) for key, vector in vectors.items()}
        for voice, other in (("slt", "rms"), ("rms", "slt")):
            own = float(heads[voice, 0] @ heads[voice, 1])
            strange = max(float(heads[voice, 0] @ heads[other, number]) for number in (0, 1))
            assert own > strange, f"{voice} at {d} dimensions"
    assert encoder.same(vectors["slt", 0], vectors["slt", 1])
    assert not encoder.same(vectors["slt", 0], vectors["rms", 0])


def test_the_model_says_what_it_is(encoder: SpeakerEncoder) -> None:
    assert encoder.name == "refrain-speaker"
    assert encoder.licence == "Apache-2.0"
    assert encoder.provider == "CPUExecutionProvider"
    assert len(encoder.identity) == 64
    assert 0.0 < encoder.threshold < 1.0
    assert set(encoder.thresholds) == set(DIMENSIONS)
    assert encoder.thresholds[256] == encoder.threshold
    assert all(0.0 < cosine < 1.0 for cosine in encoder.thresholds.values())


def test_another_familys_folder_is_refused(tmp_path: Path) -> None:
    shutil.copy(EMBEDDED / "model.onnx", tmp_path)
    manifest = (EMBEDDED / "model.toml").read_text()
    (tmp_path / "model.toml").write_text(manifest.replace("bands = 80", "bands = 64"))
    with pytest.raises(ModelFileError, match="bands and dimensions"):
        SpeakerEncoder(tmp_path)


def test_as_many_thresholds_as_lengths_are_needed(tmp_path: Path) -> None:
    shutil.copy(EMBEDDED / "model.onnx", tmp_path)
    lines = (EMBEDDED / "model.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("thresholds")]
    (tmp_path / "model.toml").write_text("\n".join([*kept, "thresholds = [0.5, 0.6]"]))
    with pytest.raises(ModelFileError, match="thresholds"):
        SpeakerEncoder(tmp_path)
    (tmp_path / "model.toml").write_text("\n".join(kept))
    assert set(SpeakerEncoder(tmp_path).thresholds.values()) == {SpeakerEncoder(tmp_path).threshold}

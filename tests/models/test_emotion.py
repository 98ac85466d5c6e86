"""The shipped emotion encoder: what it refuses, what leaves it unmoved, and that more arousal reads as more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.emotion import EMBEDDED, EmotionEncoder
from models.onnx import ModelFileError
from models.prosody import FEATURES, prosody, track
from models.training.emotion_alter import Change, alter
from models.utterance import Samples

RATE = 16_000
TRUE_PITCH = 140.0


@pytest.fixture(scope="module")
def encoder() -> EmotionEncoder:
    return EmotionEncoder()


def spoken(pitch: float, span: float, tilt: float, pace: float = 1.0, seed: int = 3) -> Samples:
    """2.4 s of vowel-like syllables: `span` semitones of pitch movement, `tilt` dB per octave of the harmonics."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(2.4 * RATE)) / RATE
    move = 0.6 * np.sin(2 * np.pi * 0.45 * t + 0.5) + 0.4 * np.sin(2 * np.pi * 1.1 * t)
    f0 = pitch * 2 ** (span * move / 12)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    first = 550 + 150 * np.sin(2 * np.pi * 1.7 * pace * t)
    wave = np.zeros_like(t)
    for h in range(1, 40):
        hertz = h * f0
        throat = sum(1 / (1 + ((hertz - at) / width) ** 2) for at, width in ((first, 110), (1500, 160), (2500, 220)))
        audible = hertz < 7000
        wave += audible * throat * 10 ** (tilt * np.log2(h) / 20) * np.sin(h * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.0 * pace * t) + 0.4, 0.02, 1.0)
    wave = wave * syllables + 0.004 * rng.standard_normal(len(t))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def test_feeling_has_the_stated_shapes_and_is_always_the_same(encoder: EmotionEncoder) -> None:
    samples = spoken(TRUE_PITCH, 3, -6)
    feeling = encoder.hear(samples)
    assert feeling.embedding.dtype == np.float32
    assert feeling.embedding.ndim == 1
    assert np.linalg.norm(feeling.embedding) == pytest.approx(1.0, abs=1e-4)
    assert 0.0 <= feeling.arousal <= 1.0
    again = encoder.hear(samples.copy())
    assert np.array_equal(again.embedding, feeling.embedding)
    assert again.arousal == feeling.arousal


def test_level_makes_no_difference(encoder: EmotionEncoder) -> None:
    samples = spoken(TRUE_PITCH, 3, -6)
    loud, quiet = encoder.hear(samples), encoder.hear(samples * np.float32(0.01))
    assert quiet.arousal == pytest.approx(loud.arousal, abs=1e-3)
    assert np.allclose(quiet.embedding, loud.embedding, atol=5e-3)


def test_more_of_what_shows_arousal_reads_as_more(encoder: EmotionEncoder) -> None:
    steps = [(105, 1.2, -10), (120, 2.0, -8), (150, 4.0, -5), (200, 5.5, -2), (270, 7.0, 0)]
    heard = [encoder.hear(spoken(*step)).arousal for step in steps]
    assert heard == sorted(heard)
    assert heard[-1] - heard[0] > 0.3


def test_pitch_is_read_within_a_third_of_a_semitone() -> None:
    heard = track(spoken(TRUE_PITCH, 0, -6))
    assert heard.voiced.mean() > 0.4
    off = 12 * np.log2(heard.f0[heard.voiced] / TRUE_PITCH)
    assert np.percentile(np.abs(off), 95) < 0.33


def test_measures_have_their_names_and_values() -> None:
    flat, steep = (dict(zip(FEATURES, prosody(spoken(TRUE_PITCH, 3, tilt)), strict=True)) for tilt in (0.0, -9.0))
    assert len(FEATURES) == len(set(FEATURES)) == len(flat)
    assert all(np.isfinite(value) for value in flat.values())
    assert flat["f0_median"] == pytest.approx(12 * np.log2(TRUE_PITCH / 100), abs=1.5)
    assert flat["alpha"] > steep["alpha"] + 5
    assert flat["hammarberg"] < steep["hammarberg"] - 5
    assert flat["h1_h2"] < steep["h1_h2"]


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (np.zeros(7999, np.float32), "s is too short; at least 0.5 s"),
        (np.zeros(16_000, np.float32), "samples: silence"),
        (np.full(16_000, np.nan, np.float32), "samples: holds values that are not finite"),
        (np.zeros((2, 16_000), np.float32), "samples: shape is"),
        (np.random.default_rng(0).standard_normal(16_000).astype(np.float32), "s is voiced speech"),
    ],
)
def test_what_cannot_be_heard_is_refused(encoder: EmotionEncoder, samples: Samples, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        encoder.hear(samples)


def test_mood_is_one_of_those_that_the_model_names(encoder: EmotionEncoder) -> None:
    mood, near = encoder.mood(spoken(TRUE_PITCH, 3, -6))
    assert set(encoder.moods) == {"neutral", "cheerful", "sad", "angry", "calm"}
    assert mood in encoder.moods
    assert 0.0 <= near <= 1.0


def test_a_folder_of_other_features_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "emotion"
    shutil.copytree(EMBEDDED, folder)
    text = (folder / "model.toml").read_text("utf-8")
    (folder / "model.toml").write_text(text.replace("f0_median", "f0_middle"), "utf-8")
    with pytest.raises(ModelFileError, match="option features"):
        EmotionEncoder(folder)


def test_altered_speech_changes_in_what_was_asked_for() -> None:
    samples = spoken(TRUE_PITCH, 3, -6)
    heard = track(samples)

    def measured(change: Change) -> dict[str, float]:
        said = alter(samples, heard, change, np.random.default_rng(5))
        return dict(zip(FEATURES, map(float, prosody(said)), strict=True))

    plain = measured(Change())
    assert measured(Change(pitch=5))["f0_median"] == pytest.approx(plain["f0_median"] + 5, abs=0.7)
    assert measured(Change(span=0.5))["f0_deviation"] > 1.3 * plain["f0_deviation"]
    assert measured(Change(tilt=3))["alpha"] > plain["alpha"] + 2
    assert measured(Change(first=-6))["h1_h2"] < plain["h1_h2"] - 3
    assert measured(Change(formant=0.15))["centroid_low"] > plain["centroid_low"]
    assert len(alter(samples, heard, Change(pace=0.2), np.random.default_rng(5))) == int(len(samples) / np.exp(0.2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_training_ends_in_a_folder_that_loads_and_resumes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra `train`")
    pytest.importorskip("onnx", reason="training needs the extra `train`")
    from models.training import emotion
    from models.training.emotion_data import VERSIONS, Examples

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    arousal = rng.uniform(-1, 1, (64, VERSIONS)).astype(np.float32)
    features = rng.standard_normal((64, VERSIONS, len(FEATURES))).astype(np.float32)
    features[:, :, 1] += 3 * arousal
    cues = np.repeat(arousal[:, :, None], 8, axis=2)
    examples = Examples(features, arousal, cues, np.arange(64) % 8 == 0)
    emotion.train(examples, tmp_path, 20, seed=1)
    network = emotion.train(examples, tmp_path, 60, seed=1)  # goes on from the checkpoint
    assert emotion.judged(network, examples)["dev_auc"] > 0.8
    emotion.export(network, tmp_path / "model")
    encoder = EmotionEncoder(tmp_path / "model")
    assert encoder.hear(spoken(TRUE_PITCH, 3, -6)).embedding.shape == (16,)
    with pytest.raises(ValueError, match="knows no moods"):
        encoder.mood(spoken(TRUE_PITCH, 3, -6))

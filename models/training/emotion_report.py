"""Measures the emotion encoder on acted speech that nothing was trained on, against plain pitch and energy.

Reads the clips of kind emotion_en of a data folder. All are brought to equal loudness first: the gated loudness of
ITU-R BS.1770 (blocks of 400 ms, gates at -70 LUFS and 10 LU below), its two filters applied in the frequency domain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile as sf
from scipy import fft, signal

from models.emotion import EmotionEncoder
from models.mel import frames_of
from models.prosody import ACTIVE_DB, track
from models.training.emotion_data import rows
from models.training.measures import area
from models.utterance import RECOGNIZER_RATE, Samples

HIGH, LOW = ("anger", "happiness", "fear"), ("sadness", "calm", "neutral")
VALENCE = ((("happiness",), ("anger",)), (("happiness", "calm"), ("anger", "sadness")))
"""Pleasant and unpleasant of like arousal: what this encoder cannot tell."""
LOUDNESS = -23.0
BASELINES = ("f0_mean", "f0_deviation", "f0_range", "energy_deviation", "rms_variance")
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heard:
    """One clip: who, what was acted and how strongly, and every score of it."""

    actor: str
    emotion: str
    strong: bool
    scores: dict[str, float]
    mood: str


def loudness(samples: Samples) -> float:
    """LUFS of a 16 kHz wave by BS.1770's gated blocks; -70 where nothing passes the gate."""
    spectrum = fft.rfft(samples)
    angle = 2 * np.pi * np.arange(len(spectrum)) * RECOGNIZER_RATE / len(samples) / 48_000  # the filters are for 48 kHz
    shelf = ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585])
    rumble = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])
    for numerator, denominator in (shelf, rumble):
        spectrum = spectrum * signal.freqz(numerator, denominator, worN=angle)[1]
    weighted = fft.irfft(spectrum, len(samples))
    blocks = frames_of(np.asarray(weighted, np.float32), 6400, 1600)
    power = np.square(blocks.astype(np.float64)).mean(axis=1) if len(blocks) else np.array([np.square(weighted).mean()])
    level = -0.691 + 10 * np.log10(power + 1e-12)
    kept = level > -70.0
    if not kept.any():
        return -70.0
    kept &= level > -0.691 + 10 * np.log10(power[kept].mean()) - 10.0
    return float(-0.691 + 10 * np.log10(power[kept].mean()))


def plain(samples: Samples) -> dict[str, float]:
    """Pitch in semitones over voiced frames, energy in dB over active ones, and the variance of the RMS itself."""
    heard = track(samples)
    semitones = 12 * np.log2(heard.f0[heard.voiced].astype(np.float64))
    level = heard.level[heard.level > np.percentile(heard.level, 95) - ACTIVE_DB]
    rms = np.sqrt(np.square(frames_of(samples, 400, 160).astype(np.float64)).mean(axis=1))
    values = (
        semitones.mean(),
        semitones.std(),
        np.subtract(*np.percentile(semitones, [90, 10])),
        level.std(),
        rms.var(),
    )
    return {name: float(value) for name, value in zip(BASELINES, values, strict=True)}


def hear_all(speech: Path, encoder: EmotionEncoder) -> list[Heard]:
    """Every clip at equal loudness; `arousal_noisy` is with white noise 20 dB below it, which hides the noise floor
    that a quiet take gains when it is brought up."""
    rng = np.random.default_rng(0)
    found = []
    for row in rows(speech, "emotion_en", "evaluate"):
        samples, rate = sf.read(speech / row["path"], dtype="float32")
        assert rate == RECOGNIZER_RATE
        samples = samples * np.float32(10 ** ((LOUDNESS - loudness(samples)) / 20))
        feeling = encoder.hear(samples)
        hiss = rng.standard_normal(len(samples)).astype(np.float32) * np.float32(10 ** ((LOUDNESS - 20.0) / 20))
        scores = {"arousal": feeling.arousal, "arousal_noisy": encoder.hear(samples + hiss).arousal, **plain(samples)}
        emotion, _, strength = row["emotion"].partition("_")
        mood = encoder.nearest(feeling.embedding)[0] if encoder.moods else ""
        found.append(Heard(row["speaker"], emotion, strength == "strong", scores, mood))
    added = ("f0_mean", "f0_deviation", "energy_deviation")
    sum_of = sum(_standard([clip.scores[name] for clip in found]) for name in added)
    for clip, value in zip(found, np.asarray(sum_of), strict=True):
        clip.scores["sum of F0 mean, F0 SD, energy SD"] = float(value)
    return found


def _standard(values: list[float]) -> Values:
    array = np.array(values)
    return np.asarray((array - array.mean()) / array.std())


def contrast(clips: list[Heard], score: str, high: tuple[str, ...], low: tuple[str, ...]) -> float:
    """AUC of a score between two groups of emotions."""
    groups = [np.array([clip.scores[score] for clip in clips if clip.emotion in group]) for group in (high, low)]
    return area(*groups)


def resampled(clips: list[Heard], rng: np.random.Generator) -> list[Heard]:
    """The clips of as many actors, drawn with replacement."""
    actors = sorted({clip.actor for clip in clips})
    drawn = [actors[n] for n in rng.integers(len(actors), size=len(actors))]
    return [clip for actor in drawn for clip in clips if clip.actor == actor]


def interval(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, [2.5, 97.5])]


def measured(clips: list[Heard], draws: int = 1000) -> dict[str, Any]:
    """All figures. Intervals are 95 %, by drawing actors; with six actors they are rough."""
    names = list(clips[0].scores)
    drawn = [resampled(clips, np.random.default_rng([7, n])) for n in range(draws)]
    aucs = {name: round(contrast(clips, name, HIGH, LOW), 3) for name in names}
    table = {
        name: {"auc": aucs[name], "interval": interval([contrast(some, name, HIGH, LOW) for some in drawn])}
        for name in names
    }
    best = max((name for name in names if not name.startswith("arousal")), key=aucs.__getitem__)
    gain = [contrast(some, "arousal", HIGH, LOW) - contrast(some, best, HIGH, LOW) for some in drawn]
    return {
        "clips": len(clips),
        "high against low": table,
        "best baseline": best,
        "gain over it": {"auc": round(aucs["arousal"] - aucs[best], 3), "interval": interval(gain)},
        "valence": {
            f"{' and '.join(pleasant)} against {' and '.join(unpleasant)}": {
                "auc": round(contrast(clips, "arousal", pleasant, unpleasant), 3),
                "interval": interval([contrast(some, "arousal", pleasant, unpleasant) for some in drawn]),
            }
            for pleasant, unpleasant in VALENCE
        },
        "by strength": {
            "normal": round(contrast([clip for clip in clips if not clip.strong], "arousal", HIGH, LOW), 3),
            "strong": round(
                contrast([clip for clip in clips if clip.strong or clip.emotion == "neutral"], "arousal", HIGH, LOW), 3
            ),
        },
        "by actor": by_actor(clips),
        "by emotion": by_emotion(clips),
    }


def by_actor(clips: list[Heard]) -> dict[str, dict[str, float]]:
    """AUC within each actor, of the encoder and of mean pitch, and the actor's median pitch in Hz when neutral."""
    table = {}
    for actor in sorted({clip.actor for clip in clips}):
        own = [clip for clip in clips if clip.actor == actor]
        pitch = np.median([clip.scores["f0_mean"] for clip in own if clip.emotion == "neutral"])
        table[actor] = {
            "auc": round(contrast(own, "arousal", HIGH, LOW), 3),
            "auc of f0_mean": round(contrast(own, "f0_mean", HIGH, LOW), 3),
            "neutral Hz": round(float(2 ** (pitch / 12))),
        }
    return table


def by_emotion(clips: list[Heard]) -> dict[str, dict[str, Any]]:
    """Mean arousal of each emotion, and how often each mood is the nearest."""
    table: dict[str, dict[str, Any]] = {}
    for emotion in sorted({clip.emotion for clip in clips}):
        own = [clip for clip in clips if clip.emotion == emotion]
        moods = [clip.mood for clip in own]
        table[emotion] = {
            "clips": len(own),
            "arousal": round(float(np.mean([clip.scores["arousal"] for clip in own])), 3),
            "moods": {mood: moods.count(mood) for mood in sorted(set(moods))},
        }
    return table


def picture(clips: list[Heard], figures: dict[str, Any], path: Path) -> None:
    """ROC of the encoder and of the baselines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 6))
    shown = {name: name.replace("_", " ") for name in clips[0].scores if name != "arousal_noisy"}
    for name, label in shown.items():
        high = np.array([clip.scores[name] for clip in clips if clip.emotion in HIGH])
        low = np.array([clip.scores[name] for clip in clips if clip.emotion in LOW])
        at = np.concatenate([[np.inf], np.sort(np.concatenate([high, low]))[::-1]])
        ours = name == "arousal"
        axes.step(
            [float((low >= t).mean()) for t in at],
            [float((high >= t).mean()) for t in at],
            where="post",
            label=f"{'emotion encoder' if ours else label}: {figures['high against low'][name]['auc']:.2f}",
            linewidth=2.4 if ours else 1.0,
            color="black" if ours else None,
        )
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=0.8)
    axes.set_xlabel("sad, calm, neutral taken for aroused")
    axes.set_ylabel("angry, happy, fearful found")
    axes.set_title("Arousal of acted speech at equal loudness (AUC)")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def report(speech: Path, folder: Path, out: Path) -> None:
    """Writes OUT/emotion.json and OUT/emotion-roc.png, and prints the figures."""
    out.mkdir(parents=True, exist_ok=True)
    clips = hear_all(speech, EmotionEncoder(folder))
    figures = measured(clips)
    (out / "emotion.json").write_text(json.dumps(figures, indent=1), "utf-8")
    picture(clips, figures, out / "emotion-roc.png")
    print(json.dumps(figures, indent=1))

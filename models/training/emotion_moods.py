"""The synthesizer's moods as the emotion encoder hears them: axes and centroids to ship, and how well they tell.

Measured through the embedded vocoder, on whatever voices and moods the embedded synthesizer has. The sentences of the
figures are not those of the centroids; how it would do on a voice it was not measured on is told by leaving each out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from tqdm import tqdm

from models.emotion import EmotionEncoder
from models.synthesizer import AcousticModel
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder

CENTRE_TEXTS = (
    "The train to the airport leaves from platform nine in half an hour.",
    "I have put your meeting with the doctor on Monday morning.",
    "Could you tell me where you left the keys to the house?",
    "It will rain tonight, so take an umbrella with you.",
    "There are four new messages from your sister.",
    "Please wait a moment while I look for the address.",
)
HELD_OUT_TEXTS = (
    "Your order has been sent and should arrive by Thursday.",
    "Nobody answered when we called the restaurant this evening.",
    "Turn left after the bridge, then follow the river to the old mill.",
)


@dataclass(frozen=True, slots=True)
class Moods:
    """What the options of the model folder hold; see `models.emotion.EmotionEncoder`."""

    names: list[str] = field(default_factory=list)
    axes: list[list[float]] = field(default_factory=list)
    centroids: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Heard:
    """n clips: embeddings float32 [n, k], arousal [n]; mood and voice as numbers [n]."""

    embeddings: Samples
    arousal: Samples
    mood: np.ndarray
    voice: np.ndarray

    def only(self, chosen: np.ndarray) -> Heard:
        return Heard(self.embeddings[chosen], self.arousal[chosen], self.mood[chosen], self.voice[chosen])


def hear_all(encoder: EmotionEncoder, acoustic: AcousticModel, texts: tuple[str, ...]) -> Heard:
    """Every text in every voice and mood."""
    vocoder = Vocoder()
    rows = []
    for mood, emotion in enumerate(tqdm(acoustic.emotions, desc="moods spoken", mininterval=5.0)):
        for voice, name in enumerate(acoustic.voices):
            for text in texts:
                wave = vocoder.wave(acoustic.mel(text, name, emotion))
                feeling = encoder.hear(soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE))
                rows.append((feeling.embedding, feeling.arousal, mood, voice))
    embeddings, arousal, moods, voices = zip(*rows, strict=True)
    return Heard(np.array(embeddings), np.array(arousal, np.float32), np.array(moods), np.array(voices))


def fit(names: list[str], heard: Heard) -> Moods:
    """Linear discriminant axes (one fewer than moods), scaled so that a mood's clips vary by 1 along each."""
    means = np.stack([heard.embeddings[heard.mood == mood].mean(axis=0) for mood in range(len(names))])
    within = heard.embeddings - means[heard.mood]
    covariance = within.T.astype(np.float64) @ within / len(within)
    # Half of the mean variance everywhere: a few voices do not show all the ways in which voices differ.
    values, vectors = np.linalg.eigh(
        covariance + 0.5 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T
    between = (means - means.mean(axis=0)) @ whitening
    axes = np.linalg.svd(between, full_matrices=False)[2][: len(names) - 1] @ whitening
    return Moods(names, np.round(axes, 4).tolist(), np.round(means @ axes.T, 4).tolist())


def told(moods: Moods, heard: Heard) -> tuple[np.ndarray, np.ndarray]:
    """The nearest mood of each clip and its similarity, as `EmotionEncoder.nearest` has them."""
    placed = heard.embeddings @ np.array(moods.axes, np.float32).T
    distances = np.square(placed[:, None] - np.array(moods.centroids, np.float32)).mean(axis=2)
    return distances.argmin(axis=1), np.exp(-0.5 * distances.min(axis=1))


def find(folder: Path) -> tuple[Moods, dict[str, Any]]:
    """Moods to ship; and on held-out sentences: the share right, also for voices left out, arousal and confusion."""
    encoder, acoustic = EmotionEncoder(folder), AcousticModel()
    names = list(acoustic.emotions)
    centre = hear_all(encoder, acoustic, CENTRE_TEXTS)
    held_out = hear_all(encoder, acoustic, HELD_OUT_TEXTS)
    moods = fit(names, centre)
    found, similarity = told(moods, held_out)
    new = 0
    for voice in range(len(acoustic.voices)):
        unheard = held_out.only(held_out.voice == voice)
        guessed, _ = told(fit(names, centre.only(centre.voice != voice)), unheard)
        new += int((guessed == unheard.mood).sum())
    figures = {
        "voices": list(acoustic.voices),
        "clips": len(found),
        "right": round(float((found == held_out.mood).mean()), 3),
        "right, voice left out": round(new / len(found), 3),
        "similarity, 5th and 50th percentile": np.percentile(similarity, [5, 50]).round(3).tolist(),
        "arousal": {name: round(float(held_out.arousal[held_out.mood == n].mean()), 3) for n, name in enumerate(names)},
        "confusion": {
            name: {other: int((found[held_out.mood == n] == m).sum()) for m, other in enumerate(names)}
            for n, name in enumerate(names)
        },
    }
    return moods, figures

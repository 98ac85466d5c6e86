"""A corpus spoken by the shipped synthesizer and vocoder, for the recognizer to know this house's own voices."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import soundfile
import soxr

from models.synthesizer import AcousticModel
from models.training.recognizer_data import share
from models.utterance import MEL_RATE, RECOGNIZER_RATE
from models.vocoder import Vocoder


def make_own(out: Path, texts: list[str], count: int, seed: int) -> None:
    """`count` sentences in random voices, moods and paces as 16 kHz FLAC beside an index.jsonl; resumes.

    A twentieth of the texts, chosen by their words, are dev.
    """
    acoustic, vocoder = AcousticModel(), Vocoder()
    out.mkdir(parents=True, exist_ok=True)
    index = out / "index.jsonl"
    done = len(index.read_text("utf-8").splitlines()) if index.is_file() else 0
    rng = random.Random(seed)
    texts = rng.sample(texts, len(texts))
    with index.open("a", encoding="utf-8") as log:
        for number in range(count):
            text = texts[number % len(texts)]
            voice, emotion = rng.choice(acoustic.voices), rng.choice(acoustic.emotions)
            speed = round(rng.choice((1.0, rng.uniform(0.8, 1.25))), 2)
            if number < done:
                continue
            wave = vocoder.wave(acoustic.mel(text, voice, emotion, speed))
            samples = soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE)
            path = f"{number:05d}.flac"
            soundfile.write(out / path, np.clip(samples, -1.0, 1.0), RECOGNIZER_RATE)
            row = {
                "path": path,
                "text": text,
                "voice": f"{voice}/{emotion}",
                "seconds": round(len(samples) / RECOGNIZER_RATE, 3),
                "split": "dev" if share(text) < 0.05 else "train",
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            if number % 50 == 0:
                print(f"own voices: {number} of {count} sentences", flush=True)

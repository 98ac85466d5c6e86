"""Judges the acoustic model: words another recognizer hears, moods by ear of a pitch tracker, pictures to look at.

The recognizer is PocketSphinx (nothing of ours, trained on people); it hears the teacher say the same sentences too,
and only the two word error rates side by side mean anything.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from models.mel import log_mel
from models.synthesizer import AcousticModel
from models.training.corpus import read_index
from models.training.g2p import edits
from models.training.vocoder_pitch import track
from models.training.vocoder_report import griffin_lim
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples

Maker = Callable[[Samples], Samples]
"""Mel float32 [80, T] to wave."""
MOOD_TEXTS = (
    "Your taxi is on its way, and it will arrive at half past seven.",
    "The next train to the harbour leaves in twenty minutes.",
    "I have booked a table for four people on Friday evening.",
    "Please hold the line, somebody will be with you in a moment.",
    "There are seven new messages, and one of them is from Anna.",
    "Tomorrow will be cloudy and rather cold near the old town.",
)


def dev_entries(corpus: Path, count: int) -> list[dict[str, Any]]:
    """Plain dev utterances of at least three words, one a sentence."""
    found: dict[str, dict[str, Any]] = {}
    for entry in read_index(corpus / "index.jsonl"):
        row: dict[str, Any] = entry
        plain = row["phones"] and row["pitch"] == row["stretch"] == 1.0
        if plain and row["split"] == "dev" and len(row["text"].split()) >= 3:
            found.setdefault(row["text"], row)
    return list(found.values())[:count]


def words(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())


def hearer() -> Callable[[Samples, int], list[str]]:
    """PocketSphinx with its own English model and dictionary."""
    decoder = importlib.import_module("pocketsphinx").Decoder(samprate=float(RECOGNIZER_RATE), loglevel="FATAL")

    def hear(wave: Samples, rate: int) -> list[str]:
        narrow = soxr.resample(wave, rate, RECOGNIZER_RATE)
        quiet = np.zeros(RECOGNIZER_RATE // 4, np.float32)
        pcm = (np.clip(np.concatenate([quiet, narrow, quiet]), -1, 1) * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        return words(decoder.hyp().hypstr) if decoder.hyp() else []

    return hear


def hearing(model: AcousticModel, make: Maker, corpus: Path, count: int, out: Path) -> dict[str, Any]:
    """Word error rates on dev sentences: the teacher, the teacher through `make` alone, and the model through it."""
    hear = hearer()
    wrong = {"teacher": 0, "teacher mel": 0, "model": 0}
    by_voice: dict[str, dict[str, int]] = {}
    total = 0
    for n, entry in enumerate(dev_entries(corpus, count)):
        voice = entry["voice"].replace("kal16", "kal")
        truth = words(entry["text"])
        samples, rate = sf.read(corpus / entry["path"], dtype="float32")
        mel = model.mel(entry["text"], voice)
        teacher_mel = log_mel(soxr.resample(samples, rate, MEL_RATE))
        said = {
            "teacher": (samples, rate),
            "teacher mel": (make(teacher_mel), MEL_RATE),
            "model": (make(mel), MEL_RATE),
        }
        for name, (wave, hz) in said.items():
            errors = edits(truth, hear(wave, hz))
            wrong[name] += errors
            counts = by_voice.setdefault(voice, {"words": 0})
            counts[name] = counts.get(name, 0) + errors
        by_voice[voice]["words"] += len(truth)
        total += len(truth)
        if n < 8:
            sf.write(out / f"dev{n}_{voice}_model.wav", said["model"][0], MEL_RATE)
            sf.write(out / f"dev{n}_{voice}_teacher.wav", samples, rate)
            picture(out / f"dev{n}_{voice}.png", {"teacher": teacher_mel, "model": mel}, entry["text"])
    rates = {name: round(count / total, 4) for name, count in wrong.items()}
    return {"words": total, "wer": rates, "words wrong by voice": by_voice}


def moods(model: AcousticModel, make: Maker, out: Path) -> dict[str, dict[str, float]]:
    """By mood, over all voices: F0 mean in Hz, F0 deviation in semitones, seconds said, level in dB of voiced parts."""
    table: dict[str, dict[str, float]] = {}
    for emotion in model.emotions:
        rows = list(_measured(model, make, emotion, out))
        means = np.mean(np.array(rows), axis=0)
        names = ("f0_hz", "f0_semitones", "seconds", "level_db")
        table[emotion] = {name: round(float(value), 3) for name, value in zip(names, means, strict=True)}
    return table


def _measured(model: AcousticModel, make: Maker, emotion: str, out: Path) -> Iterator[tuple[float, ...]]:
    for voice in model.voices:
        for n, text in enumerate(MOOD_TEXTS):
            wave = make(model.mel(text, voice, emotion))
            if n == 0:
                sf.write(out / f"mood_{voice}_{emotion}.wav", wave, MEL_RATE)
            pitch = track(wave)
            f0 = pitch.f0[pitch.voiced].astype(np.float64)
            power = np.square(wave[: len(pitch.voiced) * 256].reshape(-1, 256)).mean(axis=1)[pitch.voiced]
            semitones = 12 * np.log2(f0)
            yield (
                float(np.exp(np.log(f0).mean())),
                float(np.subtract(*np.percentile(semitones, [90, 10]))),
                len(wave) / MEL_RATE,
                float(10 * np.log10(power.mean() + 1e-10)),
            )


def picture(path: Path, mels: dict[str, Samples], title: str) -> None:
    """The mels under each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(mels), 1, figsize=(12, 3 * len(mels)), sharex=True)
    for axis, (name, mel) in zip(np.atleast_1d(axes), mels.items(), strict=True):
        axis.imshow(mel, origin="lower", aspect="auto", vmin=-10, vmax=2)
        axis.set_title(f"{name}: {title}")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def report(corpus: Path, out: Path, folder: Path | None, vocoder: Path | None, count: int) -> None:
    """Prints and writes OUT/report.json; waves and pictures beside it. Griffin-Lim where no vocoder is given."""
    out.mkdir(parents=True, exist_ok=True)
    model = AcousticModel(folder) if folder else AcousticModel()
    make: Maker = griffin_lim
    if vocoder:
        from models.vocoder import Vocoder

        make = Vocoder(vocoder).wave
    result = {
        "vocoder": "embedded" if vocoder else "Griffin-Lim",
        "heard": hearing(model, make, corpus, count, out) if count else {},
        "moods": moods(model, make, out),
    }
    (out / "report.json").write_text(json.dumps(result, indent=1), "utf-8")
    print(json.dumps(result, indent=1))

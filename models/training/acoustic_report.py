"""Judges the acoustic model: words another recognizer hears, moods and voices as measured, pictures to look at.

The recognizer is PocketSphinx (nothing of ours, trained on people); it hears the teachers say the same sentences too,
and only the two word error rates side by side mean anything.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from models import speaker
from models.synthesizer import AcousticModel
from models.training.acoustic_pictures import draw_moods, draw_spectrograms
from models.training.corpus import TEACHERS, Job, read_index, speak_teacher
from models.training.measures import edits, griffin_lim
from models.training.vocoder_pitch import Pitch, track
from models.utterance import MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples

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


def dev_texts(corpus: Path, count: int) -> list[str]:
    """Distinct dev sentences of at least three words that a teacher spoke."""
    found: dict[str, None] = {}
    for entry in read_index(corpus / "index.jsonl"):
        if entry["phones"] and entry["split"] == "dev" and len(str(entry["text"]).split()) >= 3:
            found[str(entry["text"])] = None
    return list(found)[:count]


def teacher_says(voice: str, text: str) -> Samples:
    """At 16 kHz, by the program whose voice it is."""
    name = voice if voice in TEACHERS else voice.replace("kal", "kal16")
    with tempfile.TemporaryDirectory() as folder:
        speak_teacher(Job("said.wav", text, name, "dev", 1.0, 1.0), Path(folder) / "said.wav")
        return np.asarray(sf.read(Path(folder) / "said.wav", dtype="float32")[0], np.float32)


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


def hearing(model: AcousticModel, make: Maker, texts: list[str], voices_each: int) -> dict[str, Any]:
    """Word error rates of teachers and model, sentence by sentence in `voices_each` voices, all voices in turn."""
    hear = hearer()
    count = len(model.voices)
    counts = {voice: {"words": 0, "teacher": 0, "model": 0} for voice in model.voices}
    plan = [(n, (n + k * max(1, count // voices_each)) % count) for n in range(len(texts)) for k in range(voices_each)]
    for n, place in tqdm(plan, desc="listening", mininterval=10.0):
        voice, truth = model.voices[place], words(texts[n])
        row = counts[voice]
        row["words"] += len(truth)
        row["teacher"] += edits(truth, hear(teacher_says(voice, texts[n]), RECOGNIZER_RATE))
        row["model"] += edits(truth, hear(make(model.mel(texts[n], voice)), MEL_RATE))
    total = sum(row["words"] for row in counts.values())
    rates = {who: round(sum(row[who] for row in counts.values()) / total, 4) for who in ("teacher", "model")}
    return {"sentences": len(texts), "utterances": len(plan), "words": total, "wer": rates, "by voice": counts}


def moods(model: AcousticModel, make: Maker, texts: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """By mood over all voices, and by voice in the neutral mood: what `figures_of` tells, averaged."""
    rows = {
        (emotion, voice): np.mean([figures_of(make(model.mel(text, voice, emotion))) for text in texts], axis=0)
        for emotion in tqdm(model.emotions, desc="moods", mininterval=10.0)
        for voice in model.voices
    }
    by_mood = {e: _named(np.mean([rows[e, voice] for voice in model.voices], axis=0)) for e in model.emotions}
    return by_mood, {voice: _named(rows[model.emotions[0], voice]) for voice in model.voices}


def figures_of(wave: Samples) -> tuple[float, ...]:
    """F0 mean in Hz, its 10 to 90 % range in semitones, seconds, level of voiced parts in dB."""
    pitch = track(wave)
    f0 = pitch.f0[pitch.voiced].astype(np.float64)
    power = np.square(wave[: len(pitch.voiced) * MEL_HOP].reshape(-1, MEL_HOP)).mean(axis=1)[pitch.voiced]
    return (
        float(np.exp(np.log(f0).mean())),
        float(np.subtract(*np.percentile(12 * np.log2(f0), [90, 10]))),
        len(wave) / MEL_RATE,
        float(10 * np.log10(power.mean() + 1e-10)),
    )


def _named(values: Any) -> dict[str, float]:
    names = ("f0_hz", "f0_semitones", "seconds", "level_db")
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def likeness(model: AcousticModel, make: Maker, texts: tuple[str, ...]) -> dict[str, Any]:
    """By voice: the cosine of its speech here, one sentence at a time, to every registered voice; and which is nearest.

    The encoder is the embedded one.
    """
    encoder = speaker.SpeakerEncoder()
    registered = np.array(list(model.embeddings.values()))
    table: dict[str, Any] = {}
    for place, voice in enumerate(model.voices):
        waves = (soxr.resample(make(model.mel(text, voice)), MEL_RATE, RECOGNIZER_RATE) for text in texts)
        cosines = np.array([encoder.embed(wave) for wave in waves]) @ registered.T
        table[voice] = {
            "nearest to itself": float((cosines.argmax(axis=1) == place).mean()),
            "cosines": [round(float(value), 3) for value in cosines.mean(axis=0)],
        }
    return {"registered": [[round(float(v), 3) for v in row] for row in registered @ registered.T], "speech": table}


def report(corpus: Path, out: Path, folder: Path | None, vocoder: Path | None, count: int, voices_each: int) -> None:
    """Prints and writes OUT/report.json, and pictures beside it. Griffin-Lim where no vocoder is given."""
    out.mkdir(parents=True, exist_ok=True)
    model = AcousticModel(folder) if folder else AcousticModel()
    make: Maker = griffin_lim
    if vocoder:
        from models.vocoder import Vocoder

        make = Vocoder(vocoder).wave
    text = MOOD_TEXTS[2]
    pairs = {voice: (teacher_says(voice, text), model.mel(text, voice)) for voice in model.voices}
    draw_spectrograms(out / "acoustic-voices.png", pairs, text)
    contours: dict[str, dict[str, Pitch]] = {
        voice: {emotion: track(make(model.mel(text, voice, emotion))) for emotion in model.emotions}
        for voice in model.voices[:2]
    }
    draw_moods(out / "acoustic-moods.png", contours, text)
    by_mood, by_voice = moods(model, make, MOOD_TEXTS)
    result: dict[str, Any] = {"vocoder": "embedded" if vocoder else "Griffin-Lim", "moods": by_mood, "voices": by_voice}
    if (speaker.EMBEDDED / "model.toml").is_file():
        result["likeness"] = likeness(model, make, MOOD_TEXTS)
    if count:
        result["heard"] = hearing(model, make, dev_texts(corpus, count), voices_each)
    (out / "report.json").write_text(json.dumps(result, indent=1), "utf-8")
    print(json.dumps(result, indent=1))

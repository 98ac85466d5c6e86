"""Sentences nobody trained on, and the system's voices that say them: flite, festival, espeak-ng, where installed."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from models.training import phrases
from models.training.corpus import ESPEAK_ACCENTS, TEACHERS, Job, choose_sentences, read_texts, speak, split_of
from models.training.recognizer_data import read_sound, spoken
from models.utterance import Samples

CORPUS: Final = 8_000
"""Sentences of the smallest corpus that was trained on: what it held out, every later one held out too."""
ESPEAK_VOICES: Final = [f"espeak:{accent}+{kind}" for accent in dict.fromkeys(ESPEAK_ACCENTS) for kind in ("m3", "f2")]
FLITE: Final = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence by a voice of the system. `words` are plain lower-case words; `samples` float32 [n] at 16 kHz."""

    text: str
    words: str
    voice: str
    samples: Samples
    phones: tuple[str, ...]
    ends: tuple[float, ...]
    """Seconds at which the phones end; none of espeak-ng."""


def unseen_sentences(folder: Path, count: int, seed: int) -> list[str]:
    """Sentences of three words and more of folder/text/*.csv that the training corpora held out, in a random order."""
    if not (folder / "text").is_dir():
        return []
    try:
        texts = choose_sentences(folder, CORPUS, 1)
    except (OSError, KeyError):  # other lists than those the corpora were made of
        texts = list(itertools.chain.from_iterable(read_texts(path) for path in sorted(folder.glob("text/*.csv"))))
    return _held_out(texts, count, seed)


def generated_sentences(count: int, seed: int) -> list[str]:
    """The same of our own generator, by a seed that no corpus used: new sentences, of patterns that are known."""
    return _held_out(itertools.islice(phrases.sentences(seed + 1_000), 60 * count + 1_000), count, seed)


def _held_out(texts: Iterable[str], count: int, seed: int) -> list[str]:
    found = [text for text in dict.fromkeys(texts) if split_of(text) == "dev" and len((spoken(text) or "").split()) > 2]
    random.Random(seed).shuffle(found)
    return found[:count]


def voices_here() -> dict[str, str]:
    """Every voice of the system that can speak, by the program that it needs."""
    programs = {name: "festival" if teacher.speaker == "kdl" else "flite" for name, teacher in TEACHERS.items()}
    programs |= dict.fromkeys(ESPEAK_VOICES, "espeak-ng")
    return {voice: program for voice, program in programs.items() if shutil.which(program)}


def say_all(asked: list[tuple[str, str]], scratch: Path, what: str, jobs: int) -> list[Said | None]:
    """Each (text, voice) said, in order; None where the voice could not say it."""
    (scratch / "wav").mkdir(parents=True, exist_ok=True)
    tasks = [
        (scratch, Job(f"wav/{what}{n}.wav", text, voice, "dev", 1.0, 1.0)) for n, (text, voice) in enumerate(asked)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        results = list(
            tqdm(pool.map(speak, tasks), total=len(tasks), desc=f"speaking, {what}", leave=False, mininterval=1.0)
        )
    return [None if isinstance(result, str) else _said(scratch, result) for result in results]


def _said(scratch: Path, entry: dict[str, Any]) -> Said:
    samples = read_sound(scratch / entry["path"]).astype(np.float32) / 32768.0
    (scratch / entry["path"]).unlink()
    words = spoken(entry["text"]) or ""
    return Said(entry["text"], words, entry["voice"], samples, tuple(entry["phones"]), tuple(entry["ends"]))

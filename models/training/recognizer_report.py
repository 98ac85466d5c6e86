"""What the exported recognizer gets right on speech it was not trained on: word errors, commands, cost.

Measured with the ONNX file and the runtime that ship, on the clips a pool marks as dev.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.ctc import greedy, score
from models.recognizer import Recognizer, transcript_of
from models.training.augment import add_noise, companded
from models.training.measures import edits
from models.training.recognizer_data import Clip, Pool
from models.utterance import RECOGNIZER_RATE, Samples

Alter = Callable[[Samples], Samples]


def wilson(right: int, total: int) -> list[float]:
    """The share right / total with its 95 % Wilson interval: [share, low, high]."""
    if total == 0:
        return [math.nan, 0.0, 1.0]
    z, share = 1.96, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return [round(value, 4) for value in (share, middle - half, middle + half)]


def word_error_rate(
    recognizer: Recognizer, pool: Pool, clips: Sequence[Clip], alter: Alter = lambda x: x
) -> dict[str, Any]:
    """Word error rate of altered clips, by voice (espeak variants together), and of the best path without search."""
    errors: dict[str, int] = {}
    words: dict[str, int] = {}
    for clip in clips:
        samples = alter(pool.sound(clip))
        heard = recognizer.transcribe(samples).text
        path = transcript_of([greedy(recognizer.log_probs(samples), recognizer.alphabet)], final=True).text
        voice = "espeak" if clip.voice.startswith(("espeak", "en-")) else clip.voice
        for name, text in (("all", heard), (voice, heard), ("all, best path", path)):
            errors[name] = errors.get(name, 0) + edits(clip.text.split(), text.split())
            words[name] = words.get(name, 0) + len(clip.text.split())
    return {name: {"wer": round(errors[name] / words[name], 4), "words": words[name]} for name in sorted(words)}


def with_noise(noise: Sequence[Samples], snr: float, seed: int, then: Alter = lambda x: x) -> Alter:
    """Adds a random stretch of the noises at `snr` dB below the mean power of the whole clip, then `then`."""
    rng = np.random.default_rng(seed)

    def alter(samples: Samples) -> Samples:
        sound = noise[int(rng.integers(len(noise)))]
        start = int(rng.integers(0, max(1, len(sound) - len(samples))))
        return then(add_noise(samples, np.resize(sound[start:], len(samples)), snr))

    return alter


def commands(recognizer: Recognizer, pool: Pool, clips: Sequence[Clip], alter: Alter = lambda x: x) -> dict[str, Any]:
    """Share of altered command clips right: the free transcript equals the word, and best of all words by CTC score."""
    words = sorted({clip.text for clip in pool.clips if clip.source == "command"})
    free = best = 0
    wrong: dict[str, int] = {}
    for clip in clips:
        samples = alter(pool.sound(clip))
        log_probs = recognizer.log_probs(samples)
        heard = recognizer.transcribe(samples).text
        chosen = max(words, key=lambda word: score(log_probs, word, recognizer.alphabet))
        free += heard == clip.text
        best += chosen == clip.text
        if chosen != clip.text:
            pair = f"{clip.text} as {chosen}"
            wrong[pair] = wrong.get(pair, 0) + 1
    common = sorted(wrong.items(), key=lambda item: -item[1])[:8]
    return {
        "clips": len(clips),
        "speakers": len({clip.voice for clip in clips}),
        "free": wilson(free, len(clips)),
        f"best_of_{len(words)}": wilson(best, len(clips)),
        "confused": dict(common),
    }


def cost(recognizer: Recognizer, samples: Samples) -> float:
    """Processor seconds per second of speech, all of `transcribe` included, the best of three."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        recognizer.transcribe(samples)
        spent.append(time.process_time() - began)
    return round(min(spent) / (len(samples) / RECOGNIZER_RATE), 5)


def report(folder: Path, pool: Pool, seed: int, sentences: int = 0) -> dict[str, Any]:
    """All figures of the card. `sentences` bounds the dev sentences of each source, 0 for all."""
    recognizer = Recognizer(folder)
    figures: dict[str, Any] = {}
    noise = [pool.sound(clip) for clip in pool.of("noise", "dev")]
    for source in ("teacher", "extra", "own"):
        clips = pool.of(source, "dev")
        clips = clips[:sentences] if sentences else clips
        if clips:
            figures[f"{source}_sentences"] = word_error_rate(recognizer, pool, clips)
        if clips and noise and source != "extra":
            figures[f"{source}_10db"] = word_error_rate(recognizer, pool, clips, with_noise(noise, 10.0, seed))
            coded = with_noise(noise, 20.0, seed, companded)
            figures[f"{source}_20db_mu_law"] = word_error_rate(recognizer, pool, clips, coded)
    clips = pool.of("command", "dev")
    if clips and noise:
        figures["commands_clean"] = commands(recognizer, pool, clips)
        figures["commands_10db"] = commands(recognizer, pool, clips, with_noise(noise, 10.0, seed))
    heard = [recognizer.transcribe(sound).text for sound in noise]
    figures["noise_clips_with_text"] = [sum(map(bool, heard)), len(heard)]
    long = pool.of("teacher", "dev")[:40]
    if long:
        figures["cpu_seconds_per_second"] = cost(recognizer, np.concatenate([pool.sound(clip) for clip in long]))
    return figures

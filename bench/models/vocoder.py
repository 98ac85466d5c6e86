"""The shipped vocoder on mels of real speech, beside Griffin-Lim: PESQ, distances of spectra, streams, cost."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bench.models.chance import mean, mean_interval
from bench.models.folder import Row, is_reading, reading_unheard, sound, spread
from bench.models.targets import TARGETS, Report
from models.mel import log_mel
from models.training.measures import griffin_lim, judge, stft_distance
from models.utterance import MEL_HOP, MEL_RATE, Samples
from models.vocoder import CHUNK_FRAMES, EARLY_FRAMES, GROWTH, Vocoder

PART: Final = "vocoder"
WAYS: Final[dict[str, tuple[int, int] | None]] = {
    "whole": None,
    "streamed": (EARLY_FRAMES, GROWTH),
    "streamed in chunks of 0.5 s": (CHUNK_FRAMES, 1),
}
"""Frames of the first chunk, and how many times the last each next one is. `streamed` is how the gateway streams."""
Waves = dict[str, Samples]
"""original, vocoder and Griffin-Lim, float32 [n] each at 22,050 Hz."""


def measure_vocoder(model: Vocoder, rows: Sequence[Row], every: bool, limit: int, report: Report) -> Waves | None:
    """All its figures; returns the first clip's waves, to be drawn."""
    readings = [row for row in rows if is_reading(row)]
    unheard = reading_unheard(readings)
    chosen = spread([row for row in readings if every or unheard(row)], limit)
    if not chosen:
        report.lacks("vocoder:", "no English sentences by people that were not trained on")
        return None
    first: Waves | None = None
    judged: list[tuple[dict[str, float], dict[str, float]]] = []
    spent = dict.fromkeys(WAYS, 0.0)
    apart = seconds = 0.0
    with_pesq = importlib.util.find_spec("pesq") is not None
    for row in tqdm(chosen, desc="vocoding", leave=False, mininterval=1.0):
        samples = sound(row, MEL_RATE)
        mel = log_mel(samples)
        original = samples[: mel.shape[1] * MEL_HOP]
        made = {}
        for way, chunks in WAYS.items():
            made[way], cost = _timed(model, mel, chunks)
            spent[way] += cost
            apart = max(apart, float(np.abs(made[way] - made["whole"]).max()))
        seconds += len(original) / MEL_RATE
        waves = {"original": original, "vocoder": made["whole"], "Griffin-Lim, 60 iterations": griffin_lim(mel)}
        first = first or waves
        ours, theirs = (_judged(waves[name], original, with_pesq) for name in list(waves)[1:])
        judged.append((ours, theirs))
    seen = any(row.seen and not unheard(row) for row in chosen)
    _quality(chosen, judged, with_pesq, seen, report)
    report.measured("vocoder: streamed against whole, largest difference", apart)
    for way, cost in spent.items():
        name = f"vocoder: CPU a second of speech, {way}"
        if name in TARGETS:
            report.measured(name, cost / seconds)
        else:
            report.told(name, cost / seconds, "s")
    report.context(
        PART,
        clips=len(chosen),
        speakers=len({row.speaker for row in chosen}),
        seconds=round(seconds, 1),
    )
    return first


def _quality(
    rows: Sequence[Row],
    judged: Sequence[tuple[dict[str, float], dict[str, float]]],
    with_pesq: bool,
    seen: bool,
    report: Report,
) -> None:
    """Gains over Griffin-Lim clip by clip, with intervals over speakers; means of both in the context."""
    speakers = [row.speaker or row.name for row in rows]
    gains = np.array([ours.get("pesq_wb", np.nan) - theirs.get("pesq_wb", np.nan) for ours, theirs in judged])
    if np.isfinite(gains).any():
        name = "vocoder: PESQ above Griffin-Lim's"
        report.measured(name, mean(gains), mean_interval(gains, speakers), seen=seen)
        report.context(
            PART,
            **{
                "least gain in PESQ of a clip": round(float(np.nanmin(gains)), 3),
                **{f"gain in PESQ by {column}": groups for column, groups in _by_column(rows, gains)},
            },
        )
    else:
        why = "it finds no speech in these clips" if with_pesq else "the package pesq is not installed (extra `bench`)"
        report.lacks("vocoder: PESQ", why)
    ratios = np.array([ours["stft"] / theirs["stft"] for ours, theirs in judged])
    report.measured(
        "vocoder: STFT distance over Griffin-Lim's", float(ratios.mean()), mean_interval(ratios, speakers), seen=seen
    )
    for place, who in enumerate(("vocoder", "Griffin-Lim")):
        keys = judged[0][place].keys()
        means = {key: round(mean([pair[place][key] for pair in judged]), 4) for key in keys}
        report.context(PART, **{who: means})


def _judged(wave: Samples, original: Samples, with_pesq: bool) -> dict[str, float]:
    if with_pesq:
        return judge(wave, original)
    mel_l1 = float(np.abs(log_mel(wave) - log_mel(original)).mean())
    return {"stft": stft_distance(wave, original), "mel_l1": mel_l1}


def _by_column(rows: Sequence[Row], values: npt.NDArray[np.float64]) -> Iterator[tuple[str, dict[str, float]]]:
    """Means by kind, and by what the folder tells of its speakers."""
    told = [{"kind": row.kind, **row.told} for row in rows]
    for column in sorted({key for one in told for key in one}):
        names = sorted({one.get(column, "not told") for one in told})
        member = {name: [one.get(column, "not told") == name for one in told] for name in names}
        yield column, {name: round(mean(values[at]), 3) for name, at in member.items()}


def _timed(model: Vocoder, mel: Samples, chunks: tuple[int, int] | None) -> tuple[Samples, float]:
    """The wave, and processor seconds: the better of two."""
    spent = []
    for _ in range(2):
        began = time.process_time()
        wave = model.wave(mel) if chunks is None else np.concatenate(list(model.stream([mel], *chunks)))
        spent.append(time.process_time() - began)
    return wave, min(spent)

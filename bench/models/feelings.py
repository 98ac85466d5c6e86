"""The shipped emotion encoder on acted speech: high against low arousal at one loudness, beside plain statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bench.distort import speech_power
from bench.models.chance import Floats, Places, interval
from bench.models.folder import Row, sound, spread
from bench.models.targets import Report
from models.emotion import EmotionEncoder
from models.prosody import ACTIVE_DB, track
from models.training.measures import area
from models.utterance import Samples

Flags = npt.NDArray[np.bool_]

PART: Final = "emotion encoder"
HIGH: Final = ("angry", "happy", "fearful", "anger", "happiness", "fear")
LOW: Final = ("sad", "calm", "neutral", "sadness")
"""What may stand before a `_` (happy, happiness_strong); both intensities count."""
LOUDNESS: Final = 10 ** (-26 / 20)
"""Root mean square of the parts with speech that every clip is brought to (-26 dBFS, as in ITU-T P.56's practice)."""
STATISTICS: Final = ("F0 mean", "F0 deviation", "F0 range", "energy deviation", "energy range")
"""Mean energy is none of them: all clips are equally loud."""


@dataclass(frozen=True, slots=True)
class Heard:
    row: Row
    high: bool
    arousal: float
    plain: tuple[float, ...]
    """In the order of STATISTICS; semitones and dB."""


def measure_feelings(encoder: EmotionEncoder, rows: Sequence[Row], limit: int, report: Report) -> None:
    """Areas under the ROC curve, with intervals over actors, and in the context by emotion, language and sex."""
    acted = [row for row in rows if row.is_a("emotion") and emotion_of(row) in HIGH + LOW]
    heard: list[Heard] = []
    unheard = 0
    for row in tqdm(spread(acted, limit), desc="hearing feelings", leave=False, mininterval=1.0):
        samples = levelled(sound(row))
        try:
            excited = encoder.hear(samples).arousal
        except ValueError:  # nothing voiced in it: no answer is neither high nor low
            excited = 0.5
            unheard += 1
        heard.append(Heard(row, emotion_of(row) in HIGH, excited, plain_statistics(samples)))
    high = np.array([one.high for one in heard], np.bool_)
    if not high.any() or high.all():
        report.lacks("emotion encoder:", "no acted speech of both angry, happy or fearful and sad, calm or neutral")
        return
    arousal = np.array([one.arousal for one in heard])
    plain = np.array([one.plain for one in heard])
    together = ((plain - plain.mean(axis=0)) / (plain.std(axis=0) + 1e-9)).sum(axis=1)
    actors = [one.row.speaker for one in heard]
    seen = any(one.row.seen for one in heard)
    ours, theirs = area(arousal[high], arousal[~high]), area(together[high], together[~high])
    report.measured(
        "emotion encoder: area under the curve, high against low arousal",
        ours,
        interval(lambda at: _area(arousal, high, at), actors),
        seen=seen,
    )
    report.measured(
        "emotion encoder: area above F0 and energy statistics",
        ours - theirs,
        interval(lambda at: _area(arousal, high, at) - _area(together, high, at), actors),
        seen=seen,
    )
    fitted = left_out(plain, high, actors)
    report.told("emotion encoder: area of F0 and energy statistics", theirs, "AUC", better="higher")
    report.told("emotion encoder: area of the same, fitted to the other actors", fitted, "AUC", better="higher")
    single = {name: round(area(plain[high, n], plain[~high, n]), 4) for n, name in enumerate(STATISTICS)}
    report.context(
        PART,
        clips=len(heard),
        actors=len(set(actors)),
        **{"clips without an answer": unheard, "area of each statistic": single},
        **{"mean arousal by emotion": _means(heard)},
        **_break_down(heard, arousal, high),
    )


def emotion_of(row: Row) -> str:
    return row.emotion.lower().split("_")[0]


def levelled(samples: Samples) -> Samples:
    """Brought to LOUDNESS where it speaks."""
    return np.asarray(samples * np.float32(LOUDNESS / np.sqrt(speech_power(samples) + 1e-12)), np.float32)


def plain_statistics(samples: Samples) -> tuple[float, ...]:
    """What a ruler tells: mean, deviation and 10 to 90 % range of F0, deviation and range of the level."""
    heard = track(samples)
    active = heard.level > np.percentile(heard.level, 95) - ACTIVE_DB
    level = heard.level[active].astype(np.float64)
    voiced = heard.voiced & active
    f0 = 12 * np.log2(heard.f0[voiced if voiced.any() else active].astype(np.float64) / 100.0)
    spans = [float(np.subtract(*np.percentile(values, [90, 10]))) for values in (f0, level)]
    return float(f0.mean()), float(f0.std()), spans[0], float(level.std()), spans[1]


def left_out(values: Floats, high: Flags, actors: Sequence[str]) -> float:
    """Area of a linear discriminant that is fitted, for every actor, to all the others: what tuning would bring."""
    names = np.array(actors)
    scores = np.full(len(values), np.nan)
    for name in dict.fromkeys(actors):
        mine = names == name
        one, other = values[~mine & high], values[~mine & ~high]
        if len(one) < 2 or len(other) < 2:
            return float("nan")
        within = np.cov(one.T) + np.cov(other.T)
        direction = np.linalg.solve(within + 1e-6 * np.eye(len(within)), one.mean(axis=0) - other.mean(axis=0))
        scores[mine] = values[mine] @ direction
    return area(scores[high], scores[~high])


def _area(values: Floats, high: Flags, at: Places) -> float:
    """Not a number where the places drawn hold only one of both."""
    chosen, up = values[at], high[at]
    return area(chosen[up], chosen[~up]) if up.any() and not up.all() else float("nan")


def _means(heard: Sequence[Heard]) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for one in heard:
        groups[one.row.emotion.lower()].append(one.arousal)
    return {name: round(float(np.mean(group)), 4) for name, group in sorted(groups.items())}


def _break_down(heard: Sequence[Heard], arousal: Floats, high: Flags) -> dict[str, dict[str, float]]:
    """Areas within each language, actor, and whatever else the folder tells."""
    told = [{"lang": one.row.lang, "actor": one.row.speaker, **one.row.told} for one in heard]
    table: dict[str, dict[str, float]] = {}
    for column in sorted({key for one in told for key in one}):
        names = np.array([one.get(column, "not told") for one in told])
        areas = {name: _area(arousal, high, np.flatnonzero(names == name)) for name in np.unique(names)}
        table[f"area by {column}"] = {str(name): round(value, 4) for name, value in areas.items() if value == value}
    return table

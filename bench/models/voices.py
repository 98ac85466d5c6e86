"""The shipped voice encoder on people it never heard: equal error rates by how many of its dimensions are compared."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bench.models.chance import Floats, Interval, equal_error, equal_error_interval, trade_off
from bench.models.folder import Row, sound, spread, voice_unheard
from bench.models.targets import DIMENSIONS, FALLS, Report
from models.speaker import SpeakerEncoder, prefix
from models.utterance import RECOGNIZER_RATE, Samples

PART: Final = "voice encoder"
SHORTEST, LONGEST = 2.0, 4.0
"""Seconds of a segment."""
SEGMENTS: Final = 3
"""At most, of one recording's; more would let a few long recordings decide."""


@dataclass(frozen=True, slots=True)
class Segment:
    speaker: str
    recording: str
    row: Row
    embedding: Samples


@dataclass(frozen=True, slots=True)
class Errors:
    """Equal error rates with their intervals, and the trade-off (false alarms, misses), by dimension."""

    rates: dict[int, float]
    intervals: dict[int, Interval]
    curves: dict[int, tuple[Floats, Floats]]


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of segments that are compared: their places [n, 2] and whether one speaker said both."""

    places: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]


def is_read(row: Row) -> bool:
    """Speech long enough to cut, by a speaker who is told apart: no single words, acted emotion or noise."""
    return bool(row.speaker) and row.seconds >= SHORTEST and not row.is_a("commands", "digits", "emotion", "noise")


def measure_voices(
    encoder: SpeakerEncoder, rows: Sequence[Row], every: bool, limit: int, report: Report
) -> Errors | None:
    """Error rates on English read speech, and in the context by language and by what the folder tells of speakers."""
    read = [row for row in rows if is_read(row) and (every or voice_unheard(row))]
    english = [row for row in read if row.english]
    segments = segments_of(encoder, spread(english, limit))
    pairs = pairs_of(segments)
    if not pairs.same.any() or pairs.same.all():
        report.lacks("voice encoder:", "no two speakers of English read speech, one of them with two segments of 2 s")
        return None
    seen = any(row.seen and not voice_unheard(row) for row in english)
    errors = errors_of(segments, pairs)
    for dimensions, rate in errors.rates.items():
        name, bounds = f"voice encoder: equal error rate at {dimensions}", errors.intervals[dimensions]
        if dimensions in (8, 256):
            report.measured(name, rate, bounds, seen=seen)
        else:
            report.told(name, rate, "share", bounds, seen=seen)
    # With no error at all, half a pair is what could have been missed.
    whole = max(errors.rates[256], 0.5 / pairs.same.sum())
    for dimensions in FALLS:
        report.measured(
            f"voice encoder: error at {dimensions} over that at 256", errors.rates[dimensions] / whole, seen=seen
        )
    across = sum(segments[a].recording != segments[b].recording for a, b in pairs.places[pairs.same])
    report.context(
        PART,
        speakers=len({segment.speaker for segment in segments}),
        segments=len(segments),
        positives=int(pairs.same.sum()),
        negatives=int((~pairs.same).sum()),
        **{"positives of different recordings": int(across)},
    )
    _break_down(encoder, segments, [row for row in read if not row.english], limit, report)
    return errors


def segments_of(encoder: SpeakerEncoder, rows: Sequence[Row]) -> list[Segment]:
    """Disjoint stretches of 2 to 4 s, always the same ones, embedded; those without voice are left out."""
    found = []
    for row in tqdm(rows, desc="embedding voices", leave=False, mininterval=1.0):
        samples = sound(row)
        for start, end in cuts(len(samples), row.name):
            try:
                embedding = encoder.embed(samples[start:end])
            except ValueError:  # silence
                continue
            found.append(Segment(f"{row.kind}: {row.speaker}", row.name, row, embedding))
    return found


def cuts(samples: int, name: str) -> list[tuple[int, int]]:
    """Where segments of a recording begin and end; the lengths follow from its name alone."""
    rng = np.random.default_rng(list(name.encode()))
    places: list[tuple[int, int]] = []
    start = 0
    while len(places) < SEGMENTS:
        left = (samples - start) / RECOGNIZER_RATE
        if left < SHORTEST:
            break
        # What would be left too short for a segment is shared out among those before it.
        longest = min(LONGEST, left if left < 2 * SHORTEST else left - SHORTEST)
        end = start + round(rng.uniform(SHORTEST, max(SHORTEST, longest)) * RECOGNIZER_RATE)
        places.append((start, min(end, samples)))
        start = end
    return places


def pairs_of(segments: Sequence[Segment]) -> Pairs:
    """All pairs, but of a speaker with several recordings only those of different ones."""
    recordings: dict[str, set[str]] = defaultdict(set)
    for segment in segments:
        recordings[segment.speaker].add(segment.recording)
    speakers = np.unique([segment.speaker for segment in segments], return_inverse=True)[1]
    files = np.unique([segment.recording for segment in segments], return_inverse=True)[1]
    several = np.array([len(recordings[segment.speaker]) > 1 for segment in segments], np.bool_)
    one, other = np.triu_indices(len(segments), 1)
    same = speakers[one] == speakers[other] if len(segments) else np.zeros(0, np.bool_)
    fair = ~same | ~several[one] | (files[one] != files[other]) if len(segments) else same
    return Pairs(np.stack([one[fair], other[fair]], axis=1).astype(np.int64), same[fair])


def scores_of(segments: Sequence[Segment], pairs: Pairs, dimensions: int) -> Floats:
    """Cosines of the pairs' prefixes."""
    short = np.stack([prefix(segment.embedding, dimensions) for segment in segments]).astype(np.float64)
    return np.asarray((short @ short.T)[pairs.places[:, 0], pairs.places[:, 1]])


def errors_of(segments: Sequence[Segment], pairs: Pairs) -> Errors:
    rates, intervals, curves = {}, {}, {}
    names, speakers = np.unique([segment.speaker for segment in segments], return_inverse=True)
    for dimensions in DIMENSIONS:
        scores = scores_of(segments, pairs, dimensions)
        rates[dimensions] = equal_error(scores, pairs.same)
        intervals[dimensions] = equal_error_interval(scores, speakers[pairs.places], pairs.same, len(names))
        curves[dimensions] = trade_off(scores, pairs.same)
    return Errors(rates, intervals, curves)


def _break_down(
    encoder: SpeakerEncoder, english: Sequence[Segment], foreign: Sequence[Row], limit: int, report: Report
) -> None:
    """Error rates at 256 within groups: other languages, and columns of the folder that tell of speakers."""
    groups: dict[str, list[Segment]] = defaultdict(list)
    for column, segment in itertools.product(sorted({key for one in english for key in one.row.told}), english):
        groups[f"{column}: {segment.row.told.get(column, 'not told')}"].append(segment)
    for lang in sorted({row.lang for row in foreign}):
        groups[f"lang: {lang}"] = segments_of(encoder, spread([row for row in foreign if row.lang == lang], limit))
    for name, members in groups.items():
        pairs = pairs_of(members)
        if pairs.same.any() and not pairs.same.all():
            rate = equal_error(scores_of(members, pairs, 256), pairs.same)
            speakers = len({segment.speaker for segment in members})
            report.context(PART, **{name: {"equal error rate at 256": round(rate, 4), "speakers": speakers}})

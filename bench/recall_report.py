"""From what was asked to figures: recall by distortion, duration and language, false hits, bounds, baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from bench.asking import Asked, Tried
from bench.baselines import HK_THRESHOLD
from bench.bounds import Bounds, bounds, share_interval
from bench.distort import CONDITIONS
from bench.figures import Figure, Figures
from bench.swaps import ADDED
from gateway.fingerprint.bits import MIN_ACTIVE_S

GROUPS: Final = ("words", "speech")
DURATIONS: Final = (
    ("under 0.3 s (exact only)", 0.0, 0.3),
    ("0.3 to 0.6 s", 0.3, 0.6),
    ("0.6 to 1 s", 0.6, 1.0),
    ("1 to 3 s", 1.0, 3.0),
    ("over 3 s", 3.0, 1e9),
)
WANTED: Final = {"words": 100_000_000, "speech": 10_000_000}
"""Pairs that have to be compared."""
SWAPS_WANTED: Final = 3000
SWAP_LIMIT: Final = 0.3
SWAP_REACH: Final = 0.1
"""95 % upper bounds in % of one-word swaps accepted."""
PAIRS_LISTED: Final = 60


def percent(values: Iterable[bool]) -> float:
    found = list(values)
    return 100 * sum(found) / len(found) if found else float("nan")


def mel_threshold(asked: Sequence[Asked]) -> float:
    """The lowest similarity at which MinHash has no more false hits than the gateway had on these very queries."""
    rows = [one for one in asked if one.baselines]
    wrong = sorted((one.mel_wrong for one in rows if one.mel_wrong == one.mel_wrong), reverse=True)
    allowed = sum(bool(one.false) for one in rows)
    return wrong[allowed] if allowed < len(wrong) else 0.0


def report(asked: Sequence[Asked], tried: Sequence[Tried], out: Figures) -> None:
    for name in GROUPS:
        group = [one for one in asked if one.group == name]
        if not group:
            continue
        compared = [one for one in asked if one.group == name or (name == "speech" and one.group == "windows")]
        _false_hits(name, compared, out)
        _by_condition(name, group, out)
        _split(name, group, out)
        _costs(name, group, out)
    _durations([one for one in asked if one.group in GROUPS], out)
    _trials(tried, out)


def _by_condition(name: str, group: Sequence[Asked], out: Figures) -> None:
    column, threshold = GROUPS.index(name), mel_threshold(group)
    spread = out.context.setdefault("recall, 95 % by speaker", {})
    for condition in CONDITIONS.values():
        rows = [one for one in group if one.condition == condition.name]
        if not rows:
            continue
        base = [one for one in rows if one.baselines]
        label = f"{name}, {condition.name}"
        recall = percent(one.known for one in rows)
        floor = condition.floor[column] if condition.floor else None
        reach = condition.reach[column] if condition.reach else None
        out.add(Figure(f"{label}: recall", recall, "%", percent(one.exact for one in rows), floor, "higher"))
        if reach is not None:
            out.add(Figure(f"{label}: recall, to reach", recall, "%", None, reach, "higher"))
        heard = [one for one in rows if one.speech_s >= MIN_ACTIVE_S]
        if 0 < len(heard) < len(rows):
            kept = percent(one.known for one in heard)
            out.add(Figure(f"{label}: recall where 0.3 s or more is spoken", kept, "%", None, floor, "higher"))
        out.add(Figure(f"{label}: among the candidates", percent(one.candidate for one in rows), "%"))
        classic = percent(one.classic < HK_THRESHOLD for one in base) if base else None
        out.add(Figure(f"{label}: passes the verifier", percent(one.judged for one in rows), "%", classic))
        if base:
            out.add(
                Figure(f"{label}: MinHash at its best threshold", percent(one.mel > threshold for one in base), "%")
            )
        spread[label] = [round(v, 1) for v in share_interval([o.known for o in rows], [o.speaker for o in rows])]
    out.add(Figure(f"{name}: mean recall", percent(one.known for one in group), "%"))


def _durations(asked: Sequence[Asked], out: Figures) -> None:
    for label, low, high in DURATIONS:
        rows = [one for one in asked if low <= one.speech_s < high]
        if rows:
            out.add(Figure(f"{label} of speech: recall", percent(one.known for one in rows), f"% of {len(rows)}"))
            out.add(Figure(f"{label} of speech: among the candidates", percent(one.candidate for one in rows), "%"))
            out.add(Figure(f"{label} of speech: passes the verifier", percent(one.judged for one in rows), "%"))


def _split(name: str, group: Sequence[Asked], out: Figures) -> None:
    """By kind of recording, and by what the folder tells of the speakers."""
    parts: dict[str, list[Asked]] = defaultdict(list)
    for one in group:
        if one.kind:
            parts[f"of {one.kind}"].append(one)
        for column, value in one.told:
            parts[f"{column} {value}"].append(one)
    for label, rows in sorted(parts.items()):
        if len(parts) > 1:
            out.add(Figure(f"{name}, {label}: mean recall", percent(one.known for one in rows), f"% of {len(rows)}"))
            wrong, pairs = sum(len(one.false) for one in rows), sum(one.compared for one in rows)
            out.add(Figure(f"{name}, {label}: false hits, all pairs", wrong, f"of {pairs:,}", None, 0))


def _false_hits(name: str, rows: Sequence[Asked], out: Figures) -> None:
    looked = [one for one in rows if one.lookup_ms == one.lookup_ms]
    mistaken = sum(one.mistaken for one in looked)
    out.add(Figure(f"{name}: false hits, whole lookups", mistaken, f"of {len(looked):,} lookups", None, 0))
    found = bounds([len(one.false) for one in rows], [one.compared for one in rows], [one.speaker for one in rows])
    out.add(Figure(f"{name}: false hits, all pairs", found.errors, f"of {found.trials:,} pairs", None, 0))
    out.add(Figure(f"{name}: pairs compared", found.trials, "pairs", None, WANTED[name], "higher"))
    _bounds(f"{name}: false hits a pair", found, 1e6, "per million", None, out)
    passed = 1e6 * sum(one.passed_first for one in rows) / max(found.trials, 1)
    out.add(Figure(f"{name}: pairs that pass the first test", passed, "per million"))
    full = 1e6 * sum(one.judged_fully for one in rows) / max(found.trials, 1)
    out.add(Figure(f"{name}: pairs that are judged in full", full, "per million"))
    base = [one for one in rows if one.baselines]
    pairs = sum(one.compared for one in base)
    classic = sum(one.classic_false for one in base)
    out.add(Figure(f"{name}: Haitsma-Kalker at {HK_THRESHOLD}, false hits", classic, f"of {pairs:,} pairs"))
    out.add(Figure(f"{name}: MinHash, its best threshold", mel_threshold(rows), "similarity"))
    crossed = sum(one.crossed for one in rows)
    if crossed:
        wrong, other = sum(len(one.crossed_false) for one in rows), "speech" if name == "words" else "words"
        out.add(Figure(f"{name} asked, {other} stored: false hits", wrong, f"of {crossed:,} pairs", None, 0))
    listed = [(one.condition, *pair) for one in rows for pair in (*one.false, *one.crossed_false)]
    out.context.setdefault("false hits: condition, asked, stored", {})[name] = listed[:PAIRS_LISTED]


def _bounds(label: str, found: Bounds, scale: float, unit: str, target: float | None, out: Figures) -> None:
    out.add(Figure(f"{label}: 95 % upper bound", scale * found.plain, unit, None, target))
    out.add(Figure(f"{label}: 95 % upper bound, speakers resampled", scale * found.resampled, unit, None, target))
    out.add(Figure(f"{label}: speakers with any, 95 % upper bound", 100 * found.speakers, "% of speakers"))


def _trials(tried: Sequence[Tried], out: Figures) -> None:
    kinds: dict[str, list[Tried]] = defaultdict(list)
    for one in tried:
        kinds[one.about[0]].append(one)
    for kind, rows in kinds.items():
        swapped, gate = kind == "one-word swaps", None if kind in ("one-word swaps", ADDED) else 0
        found = bounds([int(one.accepted) for one in rows], [1] * len(rows), [one.speaker for one in rows])
        classic = sum(one.classic for one in rows)
        out.add(Figure(f"{kind}: false hits", found.errors, f"of {len(rows):,}", classic, gate))
        _bounds(kind, found, 100, "%", SWAP_LIMIT if swapped else None, out)
        if swapped:
            out.add(Figure(f"{kind}: pairs", len(rows), "pairs", None, SWAPS_WANTED, "higher"))
            out.add(Figure(f"{kind}: 95 % upper bound, to reach", 100 * found.plain, "%", None, SWAP_REACH))
        for about, part in _by(rows, lambda one: one.about[1:]):
            wrong = sum(one.accepted for one in part)
            bound = bounds([int(one.accepted) for one in part], [1] * len(part), [one.speaker for one in part])
            out.add(Figure(f"{kind}, {about}: false hits", wrong, f"of {len(part):,}", None, gate))
            if swapped:
                out.add(Figure(f"{kind}, {about}: 95 % upper bound", 100 * bound.plain, "%", None, SWAP_LIMIT))
            if swapped or kind == ADDED:
                same = [one.same_accepted is True for one in part]
                out.add(Figure(f"{kind}, {about}: the same without it is accepted", percent(same), "%"))


def _by(rows: Sequence[Tried], keys: Callable[[Tried], tuple[str, ...]]) -> list[tuple[str, list[Tried]]]:
    found: dict[tuple[int, str], list[Tried]] = defaultdict(list)
    for one in rows:
        for place, key in enumerate(keys(one)):
            found[(place, key)].append(one)
    return [(key, part) for (_, key), part in sorted(found.items())]


def _costs(name: str, group: Sequence[Asked], out: Figures) -> None:
    times = np.array([one.lookup_ms for one in group if one.lookup_ms == one.lookup_ms])
    spent, seconds = sum(one.hear_ms for one in group), sum(one.seconds for one in group)
    out.add(Figure(f"{name}: making a query", spent / max(seconds, 1e-9), "ms CPU a second of sound"))
    if len(times):
        out.add(Figure(f"{name}: lookup, p50", float(np.median(times)), "ms CPU"))
        out.add(Figure(f"{name}: lookup, p99", float(np.quantile(times, 0.99)), "ms CPU"))
    short = percent(one.speech_s < 0.3 for one in group)
    out.add(Figure(f"{name}: under 0.3 s of speech, so exact only", short, "%"))


def told(asked: Sequence[Asked], tried: Sequence[Tried]) -> dict[str, Any]:
    """How much was asked, for the context."""
    speakers: set[Hashable] = {one.speaker for one in asked}
    queries = {name: sum(one.group == name for one in asked) for name in (*GROUPS, "windows")}
    return {"queries": queries, "pairs made": len(tried), "speakers asked": len(speakers)}

"""The report's plots: which values, on which axes, in which units."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.report_svg import Axis, Series, lines, ranges, round_ticks, stacks
from gateway.stats import human_bytes, human_seconds

STYLES: Final = {"HIT_EXACT": "c1", "HIT_FUZZY": "c2", "COALESCED": "c3", "MISS": "c4", "BYPASS": "c5"}
POLICY_NAMES: Final = {"lru": "LRU", "lfu": "LFU", "tinylfu": "W-TinyLFU"}
_SPANS: Final = {1: "second", 60: "minute", 3600: "hour", 86_400: "day", 7 * 86_400: "week"}
FEW: Final = 0.05
"""Of the mean: a span with fewer requests has no rate worth drawing."""


def span_name(seconds: float) -> str:
    """Such as "hour" or "15 min"."""
    return _SPANS.get(round(seconds)) or _round(human_seconds(seconds))


def _round(told: str) -> str:
    """Without zeros behind the point, for ticks."""
    number, _, unit = told.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def _share_axis(label: str, high: float = 1.0, low: float = 0.0) -> Axis:
    return Axis(label, low, high, lambda value: f"{value * 100:.0f}")


def latency(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms") if name in rows[0]]
    rows = [row for row in rows if row["p99_ms"]]
    low = 10.0 ** math.floor(math.log10(max(1e-3, min(row["p50_ms"] for row in rows))))
    high = 10.0 ** math.ceil(math.log10(max(row[names[-1]] for row in rows) * 1.01))
    high = max(high, 10 * low)
    ticks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    axis = Axis(
        "time to the end of the answer, logarithmic",
        low,
        high,
        lambda ms: _round(human_seconds(ms / 1e3)),
        ticks,
        log=True,
    )
    words = {"HIT_EXACT": "exact hit", "HIT_FUZZY": "fuzzy hit"}
    bars = [
        (
            " ".join(filter(None, (row["task"], words.get(row["status"], row["status"].lower()), row["tier"]))),
            [row[name] for name in names],
            STYLES.get(row["status"], "c5"),
        )
        for row in rows
    ]
    told = [name.removesuffix("_ms").replace("p", "") + " %" if name != "max_ms" else "longest" for name in names]
    told[0] = "median"
    return ranges("Time to answer, by source", axis, bars, told)


def _time_axis(hours: Mapping[str, Any]) -> Axis:
    rows, width = hours["rows"], hours["seconds"]
    low, high = rows[0]["begins"], rows[-1]["begins"] + width
    span = high - low
    step = next((s for s in (1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400) if span / s <= 8), 28 * 86_400)
    ticks = list(range(-(-low // step) * step, high + 1, step))
    form = "%d %b" if step >= 86_400 else "%d %b %H:%M" if span > 86_400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    return Axis("UTC", low, high, lambda value: time.strftime(form, time.gmtime(value)), ticks)


def requests_by_hour(hours: Mapping[str, Any]) -> str:
    width = hours["seconds"]
    columns = []
    for row in hours["rows"]:
        other = row["requests"] - row["hits"] - row["coalesced"] - row["misses"]
        columns.append((row["begins"], row["begins"] + width, (row["hits"], row["coalesced"], row["misses"], other)))
    most = max(sum(values) for *_, values in columns)
    axis = Axis(
        f"requests {'an' if width == 3600 else 'a'} {span_name(width)}"
        if width in _SPANS
        else f"requests in {span_name(width)}",
        0,
        most * 1.05,
        lambda value: f"{value:,.0f}",
    )
    names = [("hits", "c1"), ("coalesced", "c3"), ("misses", "c4"), ("bypassed or not recorded", "c5")]
    there = [at for at in range(len(names)) if any(values[at] for *_, values in columns)]
    some = [(begin, end, [values[at] for at in there]) for begin, end, values in columns]
    return stacks("Requests by what became of them", _time_axis(hours), axis, some, [names[at] for at in there])


def rates_by_hour(hours: Mapping[str, Any]) -> str:
    middle = hours["seconds"] / 2
    mean = sum(row["requests"] for row in hours["rows"]) / len(hours["rows"])
    busy = [row for row in hours["rows"] if row["requests"] > FEW * mean]
    rate = [(row["begins"] + middle, row["hits"] / row["requests"]) for row in busy]
    compute = [
        (row["begins"] + middle, row["saved_s"] / (row["saved_s"] + row["spent_s"]))
        for row in busy
        if row["saved_s"] + row["spent_s"]
    ]
    series = [Series("hits, share of requests", rate, "c1"), Series("of compute", compute, "c4")]
    axis = _share_axis("from memory, %")
    return lines("Hit rate over time", _time_axis(hours), axis, series, height=220)


def miss_ratio(curve: Mapping[str, Any]) -> str:
    rows = curve["sizes"]
    names = list(dict.fromkeys(("lru", curve["policy"])))
    styles = dict(zip(names[::-1], ("c1", "c4"), strict=False))
    series = [
        Series(
            POLICY_NAMES.get(name, name) + (", the policy in use" if name == curve["policy"] else ""),
            [(row["bytes"], 1 - row[name]["requests"]) for row in rows],
            styles[name],
        )
        for name in names
    ]
    series.append(Series("Belady", [(row["bytes"], 1 - row["belady"]["requests"]) for row in rows], "c3"))
    if not curve["even"]:
        series.append(
            Series("no policy below", [(row["bytes"], 1 - row["bound"]["requests"]) for row in rows], "c5 dashed")
        )
    low, high = rows[0]["bytes"], rows[-1]["bytes"]
    floor = 1 - curve["ceiling"]["requests"]
    series.append(Series("endless cache", [(low, floor), (high, floor)], "c2 dashed"))
    worst = max(1 - row["lru"]["requests"] for row in rows)
    y = _share_axis(
        "misses, % of requests", min(1.0, worst * 1.05), max(0.0, floor - max(0.02, (worst - floor) * 0.15))
    )
    ticks = [high * 0.5**halving for halving in range(20) if high * 0.5**halving >= low * 0.99]
    x = Axis(
        "size of the tier, logarithmic; the right end holds everything",
        low,
        max(high, low * 1.01),
        human_bytes,
        ticks,
        log=True,
    )
    first = curve["first_tier_bytes"]
    marks = [(first, "first tier")] if low <= first <= high else []
    return lines("Miss ratio by size", x, y, series, marks=marks, height=340)


def similarity(found: Mapping[str, Any]) -> str:
    edges, counts = found["edges"], found["hits"]
    lowest = next(at for at, count in enumerate(counts) if count)
    begin = max(0, min(lowest - 1, len(counts) - 10))
    columns = [(edges[at], edges[at + 1], (counts[at],)) for at in range(begin, len(counts))]
    x = Axis("similarity", edges[begin], 1.0, lambda value: f"{value:.2f}", round_ticks(edges[begin], 1.0, 10))
    y = Axis("fuzzy hits", 0, max(counts) * 1.05, lambda value: f"{value:,.0f}")
    return stacks("Similarity of fuzzy hits", x, y, columns, (("fuzzy hits", "c2"),), height=220)


def drift(found: Mapping[str, Any]) -> str:
    rows = found["rows"]
    kept = [(row["part"] + 1, row["kept"]) for row in rows if "kept" in row]
    answered = [(row["part"] + 1, row["share_of_last_head"]) for row in rows if "kept" in row]
    own = [(row["part"] + 1, row["head_share"]) for row in rows]
    span = span_name(found["seconds"]) if found["seconds"] else "eighth of the trace"
    parts = [row["part"] + 1 for row in rows]
    ticks = parts[:: max(1, len(parts) // 12)]
    x = Axis(span, min(parts), max(max(parts), min(parts) + 1), lambda value: f"{value:.0f}", ticks)
    series = [
        Series("of the head also in the head before", kept, "c1"),
        Series("of requests, for the head", own, "c3"),
        Series("for the head before", answered, "c4"),
    ]
    return lines(f"Drift of the {found['head']} commonest keys", x, _share_axis("%"), series, height=240)

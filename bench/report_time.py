"""A trace along its time: hit rates by hour, and drift, how the popular head moves from day to day."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.report_counts import Kept
from bench.report_keys import ByKey
from gateway.stats import COALESCED, HIT_EXACT, HIT_FUZZY, MISS

DAY_S: Final = 86_400
WIDTHS: Final = (1, 10, 60, 300, 900, 3600, 6 * 3600, DAY_S, 7 * DAY_S, 28 * DAY_S)
MOST: Final = 200
"""Spans along the time."""
HEAD: Final = 100
FEW: Final = 0.1
"""Of the mean: a day with fewer requests is left out."""
PARTS: Final = 8
"""Of a trace that is shorter than two days, in which drift is looked at instead of days."""


def by_hour(kept: Kept) -> dict[str, Any]:
    """Counts along the time, in spans of an hour, or shorter and longer ones so that a few hundred show it all."""
    if not len(kept) or kept.second.min() == kept.second.max():
        return {"seconds": 0, "rows": []}
    begun, ended = int(kept.second.min()), int(kept.second.max())
    fits = (width for width in WIDTHS if (ended - begun) / width <= MOST)
    width = next(fits, WIDTHS[-1])
    first = begun // width
    at = kept.second // np.uint32(width) - np.uint32(first)
    spans = int(at.max()) + 1
    columns: dict[str, npt.NDArray[Any]] = {"requests": np.bincount(at, minlength=spans)}
    for name, statuses in (("hits", (HIT_EXACT, HIT_FUZZY)), ("misses", (MISS,)), ("coalesced", (COALESCED,))):
        columns[name] = np.bincount(at[np.isin(kept.status, statuses)], minlength=spans)
    hit = np.isin(kept.status, (HIT_EXACT, HIT_FUZZY))
    columns["saved_s"] = np.bincount(at[hit], kept.cost_ms[hit], minlength=spans) / 1e3
    columns["spent_s"] = np.bincount(at[~hit], kept.cost_ms[~hit], minlength=spans) / 1e3
    rows = [
        {"begins": (first + span) * width} | {name: column[span].item() for name, column in columns.items()}
        for span in range(spans)
    ]
    return {"seconds": width, "rows": rows}


def drift(by: ByKey) -> dict[str, Any]:
    """The head of each day, its HEAD commonest keys: how many of them were in the head the day before, and what share
    of the day's requests the day before's head would have been."""
    seconds = by.kept.second
    if not len(seconds):
        return {"head": HEAD, "seconds": 0, "rows": []}
    begun, ended = int(seconds.min()), int(seconds.max())
    width = DAY_S if ended - begun >= 2 * DAY_S else 0
    while width and (ended - begun) / width > 60:
        width *= 7
    if width:
        first = begun // width
        part = (seconds // np.uint32(width) - np.uint32(first)).astype(np.int64)
    else:  # by the count, for a short trace may hold no time at all
        part = np.arange(len(seconds)) * PARTS // len(seconds)
    rows: list[dict[str, Any]] = []
    before: npt.NDArray[np.int64] | None = None
    parts = int(part.max()) + 1
    for number in range(parts):
        counts = np.bincount(by.key[part == number], minlength=by.keys)
        total = int(counts.sum())
        if total < FEW * len(seconds) / parts:  # such as the first minutes of a day at the end
            continue
        head = _head(counts)
        row = {"part": number, "requests": total, "head_share": float(counts[head].sum() / total)}
        if before is not None and len(before):
            row["kept"] = len(np.intersect1d(head, before)) / len(before)
            row["share_of_last_head"] = float(counts[before].sum() / total)
        rows.append(row)
        before = head
    return {"head": HEAD, "seconds": width, "rows": rows}


def _head(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    most = min(HEAD, len(counts))
    head = np.argpartition(-counts, most - 1)[:most]
    return head[counts[head] > 0]

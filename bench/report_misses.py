"""Why answers were no hits, as far as a trace can tell: what its records say of themselves, and what came before each.

In this order. The gateway says that it did not look (a refresh), that what it found was too old for the caller, that
the second tier could not be asked, or that audits held back what was found. Otherwise an earlier record of the same key
tells whether the answer had been stored: if not, it is new, or new to this model or voice; if it had been, it is gone,
because its time to live was over or to make room. Where the second tier's filter spared the question although the
answer had been stored, either it was evicted and the filter knew it, or the filter was wrong; a record cannot tell.
Every miss has one reason, so reasons add up to the misses.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.report_keys import ByKey
from gateway.stats import (
    BYPASS,
    COALESCED,
    HIT_EXACT,
    HIT_FUZZY,
    MISS,
    NOT_LOOKED,
    SPARED,
    TOO_OLD,
    UNAVAILABLE,
    UNLIKE,
    WITHHELD,
)

REASONS: Final = {
    "first seen": "the same request had never come before",
    "new form": "the same words or sound had come before, in another voice, format or with other options",
    "new model": "the same words or sound had come before, and another model or version had answered",
    "not alike enough": "new, and recall found no recording that is alike enough",
    "not stored": "it had come before, and nothing was stored then: a bypass, no_store, or an answer from one alike",
    "expired": "it had been stored longer ago than answers live",
    "evicted": "it had been stored, and was gone before its time: room was needed, or somebody dropped it",
    "filter": "it had been stored, and the second tier's filter said it was not there: evicted, or a false negative",
    "too old": "it was there, and older than the caller allows",
    "not looked": "the caller wanted a new answer in place of the stored one",
    "unavailable": "the second tier could not be asked",
    "withheld": "a recording alike was found, and audits held its answer back",
}
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def reasons(by: ByKey, ttl_s: float) -> npt.NDArray[np.uint8]:
    """[n] a number into REASONS for each miss, 255 for all else. `ttl_s`: how long stored answers live."""
    kept, number = by.kept, {name: index for index, name in enumerate(REASONS)}
    stored_before, stored_at = _stored(by)
    known_input, known_pair = _known(by)
    age = kept.second.astype(np.int64) - stored_at
    found = np.full(len(kept), number["first seen"], np.uint8)
    found[known_pair] = number["new form"]
    found[known_input & ~known_pair] = number["new model"]
    found[(kept.cause == UNLIKE) & ~known_input] = number["not alike enough"]
    found[_had_before(by, by.kept.status != COALESCED)] = number["not stored"]
    found[stored_before] = number["evicted"]
    found[stored_before & (kept.cause == SPARED)] = number["filter"]
    found[stored_before & (stored_at >= 0) & (age > ttl_s)] = number["expired"]
    for cause, name in (
        (TOO_OLD, "too old"), (NOT_LOOKED, "not looked"), (UNAVAILABLE, "unavailable"), (WITHHELD, "withheld"),
    ):  # fmt: skip
        found[kept.cause == cause] = number[name]
    found[kept.status != MISS] = 255
    return found


def reasons_json(by: ByKey, ttl_s: float) -> list[dict[str, Any]]:
    """Requests and compute by reason, the commonest first; those that no miss had are left out."""
    found = reasons(by, ttl_s)
    misses = found != 255
    count = np.bincount(found[misses], minlength=len(REASONS))
    spent = np.bincount(found[misses], by.kept.cost_ms[misses], minlength=len(REASONS)) / 1e3
    rows = [
        {"reason": name, "meaning": meaning, "requests": int(count[at]), "compute_s": float(spent[at])}
        for at, (name, meaning) in enumerate(REASONS.items())
        if count[at]
    ]
    return sorted(rows, key=lambda row: -row["requests"])


def cold_and_warm(by: ByKey) -> dict[str, dict[str, Any]]:
    """Requests that were the first of their key in the trace, and those that came again, apart."""
    kept = by.kept
    hit = (kept.status == HIT_EXACT) | (kept.status == HIT_FUZZY)
    told = {}
    for name, some in (("cold", by.first), ("warm", ~by.first)):
        requests, hits = int(some.sum()), int((some & hit).sum())
        cost = kept.cost_ms[some].sum(dtype=np.float64)
        saved = kept.cost_ms[some & hit].sum(dtype=np.float64)
        told[name] = {
            "requests": requests,
            "hits": hits,
            "coalesced": int((some & (kept.status == COALESCED)).sum()),
            "bypassed": int((some & (kept.status == BYPASS)).sum()),
            "hit_rate": hits / requests if requests else 0.0,
            "compute_hit_rate": float(saved / cost) if cost else 0.0,
        }
    return told


def coalesced_saved_s(by: ByKey) -> float:
    """Compute that coalesced requests did not spend, at what their key's answer is known to cost."""
    followed = by.kept.status == COALESCED
    return float(by.costs[by.key[followed]].sum()) / 1e3


def _stored(by: ByKey) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """For each record whether an earlier one shows its answer stored, and the second of the last store, -1 if unknown.

    A fuzzy hit shows nothing: it is answered from under another key. A bypass stores nothing. Nor does one that was
    coalesced: it may end, and be recorded, before the miss that it followed.
    """
    before = _had_before(by, np.isin(by.kept.status, (MISS, HIT_EXACT)))
    status = by.kept.status[by.order]
    begins = np.repeat(by.starts, by.counts)
    when = np.full(len(status), -1, np.int64)
    last = _last(status == MISS)
    seconds = by.kept.second[by.order].astype(np.int64)
    when[by.order] = np.where(last >= begins, seconds[np.maximum(last, 0)], -1)
    return before, when


def _had_before(by: ByKey, marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """For each record whether an earlier one of its key is marked."""
    had = np.zeros(len(marks), bool)
    had[by.order] = _last(marks[by.order]) >= np.repeat(by.starts, by.counts)
    return had


def _last(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each position that of the last mark before it, -1 for none."""
    at = np.where(marks, np.arange(len(marks)), -1)
    last = np.empty_like(at)
    last[:1] = -1
    last[1:] = np.maximum.accumulate(at)[:-1]
    return last


def _known(by: ByKey) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each record whether its input had come before, and whether it had with the same engine."""
    kept = by.kept
    others = np.flatnonzero((kept.status != HIT_EXACT) & (kept.status != HIT_FUZZY))
    led = kept.status[others] != COALESCED  # for as in _stored, what was followed has a record of its own
    others, asked = others[led], kept.asked[led]
    named = asked != 0
    known_input, known_pair = np.zeros(len(kept), bool), np.zeros(len(kept), bool)
    known_input[others] = named & _repeated(asked)
    # The two are hashes: their mixture tells pairs apart as well as either tells inputs.
    known_pair[others] = named & _repeated(asked ^ (kept.engine[led].astype(np.uint64) + np.uint64(1)) * _MIX)
    return known_input, known_pair


def _repeated(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    order = np.argsort(values, kind="stable")
    again = np.zeros(len(values), bool)
    again[order[1:]] = values[order[1:]] == values[order[:-1]]
    return again

"""What a trace says of itself: how much of it is repeats, how heavy its head is, who asked for what, and what it got.

Shares of repeats and of the head are over all requests in the order they came, whatever was served: a repeat is what an
endless cache could have answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench import trace_frames
from bench.trace_frames import Rows

FIELDS: Final = ("time_us", "digest", "tenant", "bytes_in", "bytes_out", "cost_ms", "task", "status", "tier")
_HEAD_RANKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    requests: int
    distinct: int
    span_s: float
    """From the first record to the last; 0 where the form holds no time."""
    tenants: int
    bytes_in: int
    bytes_out: int
    repeats: float
    """Share of requests whose digest had come before."""
    once: float
    """Share of the distinct digests that came once."""
    head_10: float
    """Share of requests for the ten commonest digests."""
    head_100: float
    zipf: float
    """Exponent of the power law through the head: slope of log count over log rank, of the first thousand ranks with
    at least three requests; 0 for fewer than ten such ranks."""
    rows: tuple[tuple[str, str, str, int, float], ...]
    """Task, status, tier, requests and seconds of compute that these answers cost or spared."""


def facts(path: Path) -> Facts:
    """Raises `TraceError`, `OSError`."""
    return of_rows(trace_frames.load(path, FIELDS))


def of_rows(rows: Rows) -> Facts:
    """`rows` has FIELDS."""
    counts = np.sort(np.unique(rows["digest"], return_counts=True)[1])[::-1]
    total = len(rows)
    times = rows["time_us"]
    return Facts(
        requests=total,
        distinct=len(counts),
        span_s=float(times.max() - times.min()) / 1e6 if total else 0.0,
        tenants=len(np.unique(rows["tenant"])),
        bytes_in=int(rows["bytes_in"].sum(dtype=np.uint64)),
        bytes_out=int(rows["bytes_out"].sum(dtype=np.uint64)),
        repeats=1 - len(counts) / total if total else 0.0,
        once=float((counts == 1).mean()) if total else 0.0,
        head_10=float(counts[:10].sum() / total) if total else 0.0,
        head_100=float(counts[:100].sum() / total) if total else 0.0,
        zipf=zipf_exponent(counts),
        rows=tuple(_rows(rows)),
    )


def zipf_exponent(counts: npt.NDArray[np.int64]) -> float:
    """Of counts in falling order; see `Facts.zipf`."""
    head = counts[: min(_HEAD_RANKS, int((counts >= 3).sum()))]
    if len(head) < 10:
        return 0.0
    slope = np.polyfit(np.log(np.arange(1, len(head) + 1)), np.log(head), 1)[0]
    return float(-slope)


def _rows(rows: Rows) -> list[tuple[str, str, str, int, float]]:
    codes = rows["task"].astype(np.int64) << 16 | rows["status"].astype(np.int64) << 8 | rows["tier"]
    kinds, at = np.unique(codes, return_inverse=True)
    requests, seconds = np.bincount(at), np.bincount(at, rows["cost_ms"]) / 1e3
    return [
        (
            trace_frames.name_of("task", int(kind) >> 16),
            trace_frames.name_of("status", int(kind) >> 8 & 255),
            trace_frames.name_of("tier", int(kind) & 255),
            int(count),
            float(spent),
        )
        for kind, count, spent in zip(kinds, requests, seconds, strict=True)
    ]

"""Who asks when: a trace's requests laid out in time, before the first is sent.

The load is open: when a request is due depends on the trace or on the rate, never on how quickly others were answered
(Schroeder et al., "Open versus closed", NSDI 2006).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.replay_things import Cast, Things, things_of
from bench.trace_frames import Rows
from bench.trace_synth import Said


@dataclass(frozen=True, slots=True)
class Plan:
    due_s: npt.NDArray[np.float64]
    """[n], from the beginning, rising."""
    things: Things

    @property
    def span_s(self) -> float:
        return float(self.due_s[-1]) if len(self.due_s) else 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast requests come: one of the three."""

    rate: float = 0.0
    """A second, Poisson."""
    speed: float = 0.0
    """Times as fast as the trace was recorded."""
    ramp: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From a rate to a rate in so many seconds, then on at that; Poisson."""


def parse_ramp(text: str) -> tuple[float, float, float]:
    """`FROM:TO:SECONDS`. Raises ValueError."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(f"{number}:{number}:{number}", text)
    values = tuple(map(float, found.groups())) if found else ()
    if len(values) != 3 or values[1] <= 0 or values[2] <= 0:
        raise ValueError(f"{text!r}: allowed is FROM:TO:SECONDS, such as 10:500:60")
    return values[0], values[1], values[2]


def plan_of(rows: Rows, pace: Pace, cast: Cast, seed: int, known: Said | None = None) -> Plan:
    """`rows` has replay_things.FIELDS. `known`: what a synthesized trace was made from."""
    due = _due(rows["time_us"], pace, seed)
    order = np.argsort(due, kind="stable")
    return Plan(due[order], things_of(rows[order], cast, seed, known))


def _due(times: npt.NDArray[np.uint64], pace: Pace, seed: int) -> npt.NDArray[np.float64]:
    """Raises ValueError where the trace holds no time to go by."""
    if pace.speed:
        if not len(times) or times.max() == times.min():
            raise ValueError("the trace holds no times, so --speed means nothing: give --rate or --ramp")
        since: npt.NDArray[np.float64] = (times - times.min()).astype(np.float64)
        return since / (1e6 * pace.speed)
    gaps = np.random.default_rng(seed).exponential(1.0, len(times))
    count: npt.NDArray[np.float64] = np.cumsum(
        gaps
    )  # arrivals of a Poisson process of rate 1, to be put on the clock of the rate
    if pace.rate:
        return count / pace.rate
    first, last, seconds = pace.ramp
    if first == last:
        return count / first
    slope = (last - first) / seconds
    rising = (np.sqrt(np.maximum(first**2 + 2 * slope * count, last**2 if slope < 0 else 0)) - first) / slope
    climbed = (first + last) / 2 * seconds
    return np.where(count <= climbed, rising, seconds + (count - climbed) / last)

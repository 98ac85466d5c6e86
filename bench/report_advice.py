"""What to do next: where more memory stops paying, what reasons of misses can be acted on, and what it would gain to
fetch the head after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bench.miss_ratio import GAIN, TIMES, Sample
from bench.report_parts import share
from gateway.stats import human_bytes

WORTH_TELLING: Final = 0.03
"""Of requests: a reason of misses that is rarer is no advice."""
AFTER: Final = 0.1
"""Of the trace's requests that come after the restart looked at."""


def enough(curve: Mapping[str, Any]) -> float:
    """Bytes after which doubling gains less than GAIN of the requests, by the running policy."""
    sizes = [row["bytes"] for row in curve["sizes"]]
    pays = [size for size in sizes if rate_at(curve, 2 * size) - rate_at(curve, size) >= GAIN]
    return float(min(size for size in sizes if not pays or size > pays[-1]))


def rate_at(curve: Mapping[str, Any], size: float, of: str = "requests") -> float:
    """Hit rate of the running policy at a size; between simulated sizes in proportion to the logarithm."""
    rows = curve["sizes"]
    at = [math.log(row["bytes"]) for row in rows]
    return float(np.interp(math.log(max(size, 1)), at, [row[curve["policy"]][of] for row in rows]))


def larger(curve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What if the first tier were 1, 2, 4, 8 times as large."""
    first = curve["first_tier_bytes"]
    return [
        {"times": times, "size_bytes": times * first}
        | {of: rate_at(curve, times * first, of) for of in ("requests", "bytes", "compute")}
        for times in TIMES
    ]


def restart(sample: Sample, running: str, first_tier: float) -> dict[str, Any]:
    """A restart in the middle of the trace: hit rates of the first tier over the tenth of the trace that follows, had
    nothing happened, if it begins empty, and if it begins with the keys that were asked for most until then."""
    half, n = len(sample) // 2, len(sample)
    until = min(n, half + max(1, round(n * AFTER)))
    sizes, costs = sample.sizes, sample.costs
    undisturbed, empty, fetched = (sample.policy(running, first_tier) for _ in range(3))
    sample.missed(undisturbed, first_tier, 0, half)
    counts = np.bincount(sample.keys[:half], minlength=len(sizes))
    ranked = np.argsort(-counts, kind="stable")
    ranked = ranked[(counts[ranked] > 0) & (np.cumsum(np.array(sizes)[ranked]) <= fetched.capacity)]
    for key in ranked[::-1].tolist():  # the commonest last, so that it is the most recent too
        fetched.offer(key, sizes[key], costs[key])
    heads = sample.head[(sample.head_at >= half) & (sample.head_at < until)]
    after = sample.keys[half:until].tolist()
    requests = len(after) / sample.rate + len(heads)
    told = []
    for name, policy in (("had nothing happened", undisturbed), ("empty", empty), ("with the head", fetched)):
        missed = sample.missed(policy, first_tier, half, until)
        lost = sum(costs[key] for key, gone in zip(after, missed.tolist(), strict=True) if gone) / sample.rate
        number = missed.sum() / sample.rate
        if name == "empty":
            again = np.unique(heads)
            number, lost = number + len(again), lost + sample.head_costs[again].sum()
        told.append({"begins": name, "hit_rate": 1 - number / requests if requests else 0.0, "missed_s": lost / 1e3})
    fetched_bytes = (sum(sizes[key] for key in ranked.tolist()) / sample.rate) + sample.head_bytes
    return {"requests": round(requests), "fetched_bytes": round(fetched_bytes), "rows": told}


def advice(
    curve: Mapping[str, Any] | None,
    reasons: Sequence[Mapping[str, Any]],
    requests: int,
    restarted: Mapping[str, Any] | None,
) -> list[str]:
    """Sentences, the most rewarding first."""
    told: list[tuple[float, str]] = []
    if curve and curve["sizes"]:
        told.append((1.0, _memory(curve)))
        told += _policy(curve)
    by_reason = {row["reason"]: row["requests"] / requests for row in reasons if requests}
    for reason, does in (
        ("expired", "a longer time to live (redis.ttl) would have kept them"),
        ("evicted", "a larger second tier (redis.maxmemory) would have kept them"),
        ("filter", "they were evicted, or the filter of the second tier was wrong: compare evictions and "
         "refrain_bloom_false_negatives_total"),
        ("new model", "a new version asks for everything anew: warm the head of the old one before promoting it"),
        ("not alike enough", "they may be known words said anew, or copies noisier than is matched"),
        ("withheld", "audits do not let fuzzy answers through yet; the bound below says how far they are"),
        ("unavailable", "the second tier did not answer in time: look at its health"),
        ("not looked", "callers ask for new answers (REFRESH): ask them why"),
    ):  # fmt: skip
        rate = by_reason.get(reason, 0.0)
        if rate >= WORTH_TELLING:
            told.append((rate, f"{share(rate)} of requests were missed for one reason, {reason}: {does}."))
    if restarted:
        empty, warm = (row["hit_rate"] for row in restarted["rows"][1:])
        if warm - empty >= GAIN:
            told.append(
                (
                    warm - empty,
                    f"Fetching the head after a restart ({human_bytes(restarted['fetched_bytes'])}) would bring the "
                    f"first tier's hit rate over the next {restarted['requests']:,} requests from {share(empty)} to "
                    f"{share(warm)}.",
                )
            )
    return [text for _, text in sorted(told, key=lambda pair: -pair[0])]


def _memory(curve: Mapping[str, Any]) -> str:
    first, size = curve["first_tier_bytes"], enough(curve)
    now, then = share(rate_at(curve, first)), share(rate_at(curve, size))
    beyond = f"from there on, twice the memory gains less than {GAIN * 100:g} points"
    if first >= size:
        return (
            f"The first tier's {human_bytes(first)} are enough: {human_bytes(size)} would answer {then} of requests, "
            f"and {beyond}."
        )
    if 2 * first >= size:
        return (
            f"Give the first tier {human_bytes(size)} instead of {human_bytes(first)}: {then} of requests instead of "
            f"{now}; {beyond}."
        )
    return (
        f"Twice the first tier's memory, {human_bytes(2 * first)}, would answer {share(rate_at(curve, 2 * first))} of "
        f"requests instead of {now}. More pays up to {human_bytes(size)} ({then}); {beyond}."
    )


def _policy(curve: Mapping[str, Any]) -> list[tuple[float, str]]:
    first = curve["first_tier_bytes"]
    nearest = min(curve["sizes"], key=lambda row: abs(math.log(row["bytes"] / max(first, 1))))
    best, mine = nearest["bound"]["requests"], nearest[curve["policy"]]["requests"]
    if not best:
        return []
    least = "" if curve["even"] else "at least "
    reached = f"{least}{share(mine / best)} of what any policy could at {human_bytes(nearest['bytes'])}"
    return [(0.0, f"The policy in use, {curve['policy']}, answers {reached}.")]

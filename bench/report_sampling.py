"""How far hit rates by size, simulated on a sample, are from those of the whole trace: what sampling costs a report.

    python -m bench.report_sampling --json OUT [--requests 1000000] [--samples 3] [--seed 1]

Two streams, of `refrain trace synth` and of bench.speech_streams with sizes and costs that differ, are simulated once
as a whole and some times as a sample that `refrain report` would draw, by the same code, at the sizes it would tell.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Final

import numpy as np

from bench import trace_synth
from bench.figures import Figure, Figures
from bench.miss_ratio import SAMPLE, curve, sampled
from bench.report_counts import count
from bench.report_keys import ByKey, by_key
from bench.simulation import DEFAULT
from bench.speech_streams import Stream, stream
from bench.trace_frames import ROW
from gateway.arguments import new_file, whole
from gateway.stats import MISS

FIRST_TIER: Final = 0.05
TARGET: Final = 1.5
"""Points of the hit rate."""


def synthesized(requests: int, seed: int) -> ByKey:
    shape = trace_synth.Shape(requests=requests, days=7, new_model_day=0)
    return by_key(count([trace_synth.synth(shape, seed)]).kept)


def speech(requests: int, seed: int) -> ByKey:
    trace = stream(seed, Stream(requests=requests))
    rows = np.zeros(requests, ROW)
    rows["digest"], rows["bytes_out"], rows["cost_ms"] = np.array(trace.keys) + 1, trace.sizes, trace.costs
    rows["status"] = MISS
    return by_key(count([rows]).kept)


def errors(by: ByKey, samples: int) -> dict[str, list[float]]:
    """Points by which each sample is off at each size, without sign, by policy."""
    whole = sampled(by, most=1 << 62)
    first_tier = FIRST_TIER * whole.all_bytes
    truth = curve(whole, DEFAULT, first_tier)["sizes"]
    found = defaultdict(list)
    for luck in range(samples):
        for one, other in zip(truth, curve(sampled(by, seed=luck), DEFAULT, first_tier)["sizes"], strict=True):
            for name in ("lru", DEFAULT, "belady"):
                found[name].append(100 * abs(one[name]["requests"] - other[name]["requests"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=whole(1), default=1_000_000, metavar="N", help="of each stream")
    parser.add_argument("--samples", type=whole(1), default=3, metavar="N", help="of each stream")
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--json", type=new_file, metavar="OUT")
    arguments = parser.parse_args()
    figures = Figures({"requests": arguments.requests, "sampled": SAMPLE, "seed": arguments.seed})
    for name, make in (("synthesized", synthesized), ("speech stream", speech)):
        for policy, points in errors(make(arguments.requests, arguments.seed), arguments.samples).items():
            figures.add(Figure(f"{name}, {policy}: off in the mean", float(np.mean(points)), "points"))
            figures.add(Figure(f"{name}, {policy}: off at worst", max(points), "points", target=TARGET))
    figures.write(arguments.json)


if __name__ == "__main__":
    main()

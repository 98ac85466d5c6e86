"""Every policy on any trace: ratios of hits by requests, bytes and compute, beside rivals and bounds.

    python -m bench.policies TRACE... [--counts CSV...] [--streams 10] [--json OUT] [--plot FILE] [--table FILE]

A TRACE is NAME.keys.txt or NAME.csv with key,size,cost_ms (`bench.policy_traces`); each of --counts is a CSV of phrases
with a column `count`, whose recordings come in a random order; and there are streams of `bench.speech_streams`, once
with equal answers, once with costs that differ, once with sizes and costs that do. The same classes run in the gateway.

Each is run with ten seeds. The seed makes the order or the stream; of a trace, which has one order, it makes the names
of the keys, on which sampling and sketches depend. Differences are paired by seed, with the 95 % interval of their mean
by Student's t. The default is to be, at 1, 5 and 20 % of the distinct keys, not surely below the best of LRU, LFU and
theine on speech, above it in the mean, and ahead of it in compute where costs differ; on traces named by --web, not
below the best of LRU and LFU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from scipy.stats import t as student
from tqdm import tqdm

from bench.figures import Figure, Figures
from bench.policy_report import plot, table
from bench.policy_rivals import S3Fifo, Sieve, Theine, belady, have_theine, pfoo_bound
from bench.policy_traces import Trace, TraceError, of_counts, read_trace, renamed
from bench.simulation import missed_by
from bench.speech_streams import Stream, stream
from cache_tiers.policy import named
from gateway.arguments import new_file, old_file, whole

SHARES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
JUDGED: Final = (0.01, 0.05, 0.2)
OURS: Final = "worth"
POLICIES: Final[dict[str, Callable[[int], Any]]] = {
    **named.POLICIES,
    "s3-fifo": S3Fifo,
    "sieve": Sieve,
    "theine": Theine,
}
BY_SEED: Final = (OURS, "theine")
"""Those for which the names of keys, or chance, make a difference that is worth its time; at the judged shares."""
STREAM_REQUESTS: Final = 60_000

Ratios = dict[str, float]


@dataclass(slots=True)
class Source:
    """Where traces come from: one for each seed. `web` if it is no speech; `fixed` if only names differ by seed."""

    name: str
    make: Callable[[int], Trace]
    web: bool = False
    fixed: bool = False


@dataclass(slots=True)
class Result:
    """The ratios of one policy on one source at one share of the size of all keys, by seed."""

    source: str
    share: float
    policy: str
    by_seed: list[Ratios]

    def of(self, ratio: str) -> list[float]:
        return [one[ratio] for one in self.by_seed]


def simulate(policy: Any, trace: Trace) -> Iterable[bool]:
    """Whether each request is a hit, as the device tier would tell the policy of them."""
    missed = missed_by(policy, trace.keys, trace.sizes, trace.costs)
    return (not miss for miss in missed.tolist())


def ratios(hits: Iterable[bool], trace: Trace) -> Ratios:
    requests = size = cost = 0.0
    for hit, one_size, one_cost in zip(hits, trace.sizes, trace.costs, strict=True):
        if hit:
            requests += 1
            size += one_size
            cost += one_cost
    return {
        "requests": requests / len(trace),
        "bytes": size / sum(trace.sizes),
        "compute": cost / max(sum(trace.costs), 1e-300),
    }


def run(source: Source, seeds: int, shares: tuple[float, ...]) -> list[Result]:
    found: dict[tuple[float, str], Result] = {}
    for seed in range(seeds):
        trace = source.make(seed)
        countable = trace.of_one_size and have_theine()
        even = trace.of_one_size and trace.of_one_cost
        for share in tqdm(shares, desc=f"{source.name} {seed}", leave=False):
            capacity = max(1, int(trace.size_of_all * share))
            for name, make in POLICIES.items():
                if name == "theine" and not countable:
                    continue
                if source.fixed and seed and (name not in BY_SEED or not (share in JUDGED or source.web)):
                    continue
                policy = make(capacity if name != "theine" else max(1, capacity // trace.sizes[0]))
                result = found.setdefault((share, name), Result(source.name, share, name, []))
                result.by_seed.append(ratios(simulate(policy, trace), trace))
                if isinstance(policy, Theine):
                    policy.close()
            if not (source.fixed and seed):
                bound = ratios(belady(trace, capacity), trace) if even else pfoo_bound(trace, capacity)
                name = "belady" if even else "pfoo-l"
                found.setdefault((share, name), Result(source.name, share, name, [])).by_seed.append(bound)
    for result in found.values():
        if len(result.by_seed) < seeds:
            result.by_seed *= seeds
    return list(found.values())


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval."""
    if len(values) < 2:
        return values[0], 0.0
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), half


def judge(source: Source, results: list[Result], shares: tuple[float, ...], out: Figures) -> list[float]:
    """Figures of the default against the best of the others; returns its lead at each judged share."""
    leads = []
    others = ("lru", "lfu") if source.web else ("lru", "lfu", "theine")
    for share in shares:
        rows = {one.policy: one for one in results if one.share == share}
        # Where costs differ, compute is what the default is after, and requests are shown alone.
        differ = rows[OURS].of("requests") != rows[OURS].of("compute")
        for ratio in ("requests", "compute") if differ else ("requests",):
            best = max((rows[name] for name in others if name in rows), key=lambda one: statistics.fmean(one.of(ratio)))
            mean, half = interval([a - b for a, b in zip(rows[OURS].of(ratio), best.of(ratio), strict=True)])
            judged = (share in JUDGED or source.web) and (ratio == "compute") == differ
            place = f"{source.name}, {share:.1%} of the keys: {ratio}"
            name = f"{place}, {OURS} less {best.policy}, upper end of the interval"
            out.add(Figure(name, mean + half, "", None, 0.0 if judged else None, "higher"))
            own, theirs = statistics.fmean(rows[OURS].of(ratio)), statistics.fmean(best.of(ratio))
            out.add(Figure(f"{place}, {OURS}", own, "", theirs))
            if judged and not source.web:
                leads.append(mean)
    return leads


def speed(out: Figures, rounds: int = 5) -> None:
    """Processor time of an access, hits and misses as a stream has them, beside cachetools in the same run."""
    trace = stream(1, Stream(requests=STREAM_REQUESTS))
    times: dict[str, list[float]] = {"lru": [], "lfu": [], "tinylfu": [], OURS: []}
    for share in JUDGED:
        capacity = int(trace.size_of_all * share)
        for _ in range(rounds):
            for name, spent in times.items():
                policy = POLICIES[name](capacity)
                start = time.process_time()
                simulate(policy, trace)
                spent.append(1e6 * (time.process_time() - start) / len(trace))
    lfu = statistics.median(times["lfu"])
    for name, spent in times.items():
        target = 3.0 if name == OURS else None
        out.add(Figure(f"an access, {name}, median", statistics.median(spent), "us", lfu, target))


def sources(options: argparse.Namespace) -> list[Source]:
    found: list[Source] = []
    for path in (*options.traces, *options.web):
        trace = read_trace(path)
        found.append(Source(trace.name, partial(renamed, trace), web=path in options.web, fixed=True))
    found += [Source(path.stem, partial(of_counts, path)) for path in options.counts]
    if options.streams:
        shape = Stream(requests=options.requests)
        found.append(Source("streams", lambda seed: stream(seed, shape).even()))
        found.append(Source("streams, costs differ", lambda seed: stream(seed, shape).of_equal_sizes()))
        found.append(Source("streams, sizes and costs differ", lambda seed: stream(seed, shape)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("traces", nargs="*", type=old_file, metavar="TRACE")
    parser.add_argument("--web", nargs="*", type=old_file, default=[], help="traces that are no speech")
    parser.add_argument("--counts", nargs="*", type=old_file, default=[], help="CSV of phrases with a column count")
    parser.add_argument("--no-streams", dest="streams", action="store_false", help="no streams of bench.speech_streams")
    parser.add_argument("--requests", type=whole(1), default=STREAM_REQUESTS, help="of each stream")
    parser.add_argument("--seeds", type=whole(1), default=10)
    parser.add_argument("--json", type=new_file)
    parser.add_argument("--plot", type=new_file)
    parser.add_argument("--table", type=new_file, help="all ratios, as Markdown")
    options = parser.parse_args()

    out = Figures(context={"seeds": options.seeds, "theine": have_theine()})
    results: list[Result] = []
    leads: list[float] = []
    try:
        chosen = sources(options)
    except TraceError as error:
        parser.error(str(error))
    for source in chosen:
        mine = run(source, options.seeds, SHARES)
        results += mine
        leads += judge(source, mine, SHARES, out)
    if leads:
        name = f"speech, mean over all: {OURS} less the best of LRU, LFU and theine"
        out.add(Figure(name, statistics.fmean(leads), "", None, 0.0, "higher"))
    speed(out)
    out.context["ratios"] = [
        {
            "source": one.source,
            "share": one.share,
            "policy": one.policy,
            **{ratio: interval(one.of(ratio)) for ratio in one.by_seed[0]},
        }
        for one in results
    ]
    out.write(options.json)
    if options.table:
        options.table.write_text(table(out.context["ratios"]))
    if options.plot:
        plot(out.context["ratios"], options.plot)


if __name__ == "__main__":
    main()

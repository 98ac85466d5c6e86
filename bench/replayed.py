"""Whole traces through a running gateway: its hit rates beside the simulation's and Belady's, what the cache is worth
under load, how much quicker a hit is, and how much one replay process can send.

    python -m bench.replayed --phrases FILE --json OUT [--requests N] [--seed S] [--plot PNG] [--inputs DIR]

- phrase counts: recordings of the phrases of FILE (CSV with text and count), in random order, each spoken
- restaurant-like: a stream of bench.speech_streams, whose phrases are heard, spoken or vocoded; FILE has the words

Each has a gateway and a Redis of its own: the device tier holds 5 % of the bytes of all distinct answers, Redis 50 %,
as a sample of the answers says beforehand. They are asked one request after the other, so that the gateway's own trace,
simulated, has to come to what the gateway did. Then the stream goes on with four callers at once, in rounds: each with
the cache and past it (BYPASS), in turn. With 10,000 requests of each it takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from bench import trace_frames
from bench.bare import bare_server
from bench.figures import Figure, Figures
from bench.policy_traces import TraceError
from bench.replay_inputs import METHODS, Inputs, Item
from bench.replayed_load import (
    Answer,
    Asked,
    House,
    Round,
    counted,
    house,
    one_by_one,
    replayed_at,
    restaurant,
    rounds_of,
    sized,
)
from bench.replayed_tiers import (
    Recorded,
    behind,
    bounds,
    by_trace_alone,
    costs_past,
    numbers_of,
    recorded,
    saved_share,
    simulated,
)
from bench.trace_synth import read_phrases
from gateway.arguments import new_file, real, whole
from gateway.cli import CommandError
from gateway.stats import HIT_EXACT, MISS, UNAVAILABLE

TRACES: Final = ("phrase counts", "restaurant-like")
DEVICE_SHARE: Final = 0.05
BEHIND_SHARE: Final = 0.5
SAMPLE: Final = 150
"""Answers of each trace by which its tiers are sized."""
ROUNDS: Final = 8
ROUND: Final = 500
"""Requests of the stream in a round."""
RATE: Final = 1500.0
"""A second, that one replay process has to send."""
OFFERED: Final = 1.05
"""Times that, since arrivals by chance may be somewhat fewer."""
TOO_MUCH: Final = 6.0
"""Times that, at which it has to say that it is itself the limit."""
NAMINGS: Final = 9
"""Simulations of a trace whose mean is compared with what was measured."""


# --------------------------------------------------------------------------------------------------- the figures


def add_rates(figures: Figures, asked: Asked, place: House, trace: Recorded, answers: Sequence[Answer]) -> None:
    """Hit rates of one trace, as they were and as they are simulated."""
    entries = list(dict.fromkeys(answer.entry for answer in answers))  # by first appearance, as the trace's keys
    if len(entries) != len(trace.weights) or len(answers) != len(trace.keys):
        raise RuntimeError(f"{asked.name}: the gateway recorded other requests than it was asked")
    drawn = by_trace_alone(trace, place.device_bytes, NAMINGS)
    both = [behind(trace, missed, place.behind_bytes) for missed in drawn]
    first, everywhere = trace.hits("device"), trace.hits("device", "redis")
    for what, measured, runs, points in (("L1 hits", first, drawn, 0.5), ("hits of all tiers", everywhere, both, 2.0)):
        hits = [1 - float(missed.mean()) for missed in runs]
        figures.add(Figure(f"{asked.name}: {what}", measured, "of requests", statistics.fmean(hits)))
        off, luck = 100 * abs(measured - statistics.fmean(hits)), 100 * statistics.stdev(hits)
        figures.add(Figure(f"{asked.name}: {what}, off the simulation by", off, "points", luck, points))
    name = f"{asked.name}: L1 hits, off the simulation told the keys too by"
    exactly = 1 - float(simulated(trace, numbers_of(entries), place.device_bytes).mean())
    figures.add(Figure(name, 100 * abs(first - exactly), "points"))
    size = place.device_bytes + place.behind_bytes
    best, most = bounds(trace, size)
    judged = 0.97 if asked.name == "restaurant-like" else None
    name = f"{asked.name}: served from cache, of what Belady serves in the bytes of both tiers together"
    figures.add(Figure(name, everywhere / max(best, 1e-9), "ratio", 1.0, judged, "higher"))
    alone, _ = bounds(trace, place.device_bytes)
    name = f"{asked.name}: served by L1, of what Belady serves in its bytes"
    figures.add(Figure(name, first / max(alone, 1e-9), "ratio", 1.0))
    figures.context[asked.name] = {
        "requests": len(trace.keys),
        "distinct": len(trace.weights),
        "repeats": 1 - len(trace.weights) / len(trace.keys),
        "bytes_of_all": trace.weight_of_all,
        "device_share": place.device_bytes / trace.weight_of_all,
        "redis_share": place.behind_bytes / trace.weight_of_all,
        "belady": best,
        "pfoo_l": most,
        "redis_unavailable": int((trace.rows["cause"] == UNAVAILABLE).sum()),
    }


def add_times(figures: Figures, answers: Sequence[Answer]) -> None:
    """Medians as the one caller saw them, hits of both tiers together."""
    for task in METHODS:
        took = {
            status: [answer.took_s * 1e3 for answer in answers if (answer.task, answer.status) == (task, status)]
            for status in (HIT_EXACT, MISS)
        }
        if not all(took.values()):
            continue
        hit, miss = (statistics.median(took[status]) for status in (HIT_EXACT, MISS))
        judged = task != "vocode"
        figures.add(Figure(f"{task}: a hit, median", hit, "ms", miss, 5.0 if judged else None))
        name = f"{task}: a miss's median over a hit's"
        figures.add(Figure(name, miss / hit, "ratio", None, 6.7 if judged else None, "higher"))


def add_speed_up(figures: Figures, rows: trace_frames.Rows, rounds: Sequence[Round]) -> None:
    """`rows`: what the gateway recorded of the rounds, as many each way."""
    length = len(rows) // (2 * len(rounds))
    cost_of = costs_past(rows)
    told = []
    for number, one in enumerate(rounds):
        begin = (2 * number + (not one.cached_first)) * length
        rate = saved_share(rows[begin : begin + length], cost_of)
        gained = {"speed_up": one.past_s / one.cached_s, "by_processor_time": one.past_busy_s / one.cached_busy_s}
        told.append({"hit_rate": rate, "allowed": 1 / max(1e-9, 1 - rate), **gained})
    figures.context["rounds"] = told
    rate, allowed, gain = (statistics.median(row[key] for row in told) for key in ("hit_rate", "allowed", "speed_up"))
    figures.add(Figure("mixed load: compute-weighted hit rate", rate, "of compute"))
    figures.add(Figure("mixed load: speed-up by the cache", gain, "ratio", allowed))
    name = "mixed load: speed-up, of what the hit rate allows"
    for key, how, target in (("speed_up", name, 0.85), ("by_processor_time", f"{name}, by processor time", None)):
        reached = statistics.median(row[key] / row["allowed"] for row in told)
        figures.add(Figure(how, reached, "ratio", 1.0, target, "higher"))


def add_sender(figures: Figures, target: str, phrases: Sequence[str], folder: Path, seconds: float) -> None:
    """What one `refrain replay` process sends: to a gateway that has the answers in its first tier, and to a server
    that does nothing but answer with one of them; at that rate, and at more than either can do."""
    some = sorted(phrases, key=len)[:32]
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(METHODS["synthesize"], None, None)
        for text in [*some, some[-1]]:
            answer = call(Inputs(folder).request(Item("synthesize", text)), timeout=60)
    (folder / "answer").write_bytes(answer)
    with bare_server(folder / "answer", METHODS["synthesize"]) as port:
        bare = f"127.0.0.1:{port}"
        told = {
            "to the gateway": replayed_at(target, some, OFFERED * RATE, seconds, folder),
            "to a bare server": replayed_at(bare, some, OFFERED * RATE, seconds, folder),
            "to a bare server, asked for too much": replayed_at(bare, some, TOO_MUCH * RATE, seconds / 2, folder),
        }
    for where, report in told.items():
        name, sent = f"one replay process {where}", report["achieved_per_s"]
        if "too much" in where:
            figures.add(Figure(f"{name}: sent", sent, "a second", report["offered_per_s"]))
        else:
            hits = sent * report["hits"] / max(1, report["requests"])
            figures.add(Figure(f"{name}: hits sent", hits, "a second", report["offered_per_s"], RATE, "higher"))
        figures.add(Figure(f"{name}: late at the 99th percentile", report["late"]["p99_ms"], "ms"))
        kept = ("hits", "requests", "errors", "sender_cpu", "sender_is_the_limit")
        figures.context[name] = {key: report[key] for key in kept}
    said = bool(told["to a bare server, asked for too much"]["sender_is_the_limit"])
    figures.add(Figure("a replay process that is the limit says so", float(said), "", None, 1, "higher"))


# ----------------------------------------------------------------------------------------------------- together


def measure(figures: Figures, options: argparse.Namespace, folder: Path) -> None:
    inputs = options.inputs or folder / "inputs"
    counts = counted(options.phrases, options.requests, options.seed)
    whole = restaurant(options.phrases, options.requests + options.rounds * options.round, options.seed)
    served = whole.cut(0, options.requests)
    traces = (counts, served)
    with house(folder, "spacious", 0, 0, 1.0) as place:
        sizes, swell = sized(place, traces, inputs, options.sample)
        texts = [text for text, _ in read_phrases(options.phrases)]
        add_sender(figures, place.gateway.target, texts, folder, options.seconds)
    figures.context["redis_bytes_for_one"] = swell
    with ExitStack() as stack:
        places = [
            stack.enter_context(house(folder, asked.name, int(DEVICE_SHARE * size), int(BEHIND_SHARE * size), swell))
            for asked, size in zip(traces, sizes, strict=True)
        ]
        # One caller leaves a core idle, so both traces go at the same time.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            going = [
                processes.submit(one_by_one, place.gateway.target, asked, inputs, row)
                for row, (asked, place) in enumerate(zip(traces, places, strict=True))
            ]
            answers = [one.result() for one in going]
        rounds = rounds_of(places[1], whole, inputs, options.requests, options.rounds)
    for asked, place, told in zip(traces, places, answers, strict=True):  # whose gateways have ended, with their trace
        rows = trace_frames.load(place.gateway.data_dir / "trace", trace_frames.FIELDS)
        add_rates(figures, asked, place, recorded(rows[: len(asked.order)]), told)
    add_times(figures, answers[1])
    more = 2 * options.rounds * options.round
    add_speed_up(figures, rows[options.requests : options.requests + more], rounds)


def draw(figures: Figures, path: Path) -> None:
    """Hit rates beside the simulated and Belady's; each round's speed-up over what its hit rate allows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    named = {figure.name: figure for figure in figures.figures}
    picture, (rates, rounds) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for at, name in enumerate(TRACES):
        first, both = named[f"{name}: L1 hits"], named[f"{name}: hits of all tiers"]
        values = [first.value, first.baseline, both.value, both.baseline, figures.context[name]["belady"]]
        bars = rates.bar(np.arange(5) + 6 * at, values, color=["#0f5c5c", "#8fc4bd", "#0f5c5c", "#8fc4bd", "0.75"])
        rates.bar_label(bars, [f"{100 * value:.1f}" for value in values], fontsize=7)
    words = ["L1", "simulated", "both tiers", "simulated", "Belady"]
    rates.set_xticks([6 * at + bar for at in range(2) for bar in range(5)], 2 * words, rotation=60, fontsize=8)
    rates.set_ylabel("share of requests served")
    rates.set_title(" | ".join(TRACES), fontsize=9)
    allowed, gained = ([row[key] for row in figures.context["rounds"]] for key in ("allowed", "speed_up"))
    most = max(*allowed, *gained) * 1.05
    rounds.plot([1, most], [1, most], color="0.6", label="all that is allowed")
    rounds.plot([1, most], [0.85, 0.85 * most], color="0.6", linestyle="--", label="0.85 of it")
    rounds.plot(allowed, gained, "o", color="#0f5c5c")
    rounds.set_xlabel("speed-up that the compute-weighted hit rate allows")
    rounds.set_ylabel("speed-up by the clock")
    rounds.legend(fontsize=8)
    for axis in (rates, rounds):
        axis.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=120)
    plt.close(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phrases", type=Path, required=True, help="CSV with columns text and count")
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--plot", type=new_file, help="draw them here")
    parser.add_argument("--requests", type=whole(1), default=10_000, help="of each trace; default %(default)s")
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument(
        "--sample", type=whole(1), default=SAMPLE, help="answers of each trace by which tiers are sized"
    )
    parser.add_argument("--rounds", type=whole(1), default=ROUNDS)
    parser.add_argument("--round", type=whole(1), default=ROUND, help="requests of a round; default %(default)s")
    parser.add_argument("--seconds", type=real(above=True), default=10.0, help="for which a replay process sends")
    parser.add_argument("--inputs", type=Path, metavar="DIR", help="keep here what was spoken to be heard")
    options = parser.parse_args()
    for name in ("requests", "sample", "rounds", "round"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: it must be at least 1")
    about = {name: getattr(options, name) for name in ("requests", "seed", "sample", "rounds", "round")}
    figures = Figures({**about, "phrases": options.phrases.name})
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(figures, options, Path(folder))
        except (CommandError, TraceError, OSError) as error:  # of the file of phrases
            parser.error(str(error))
    figures.write(options.json)
    if options.plot:
        draw(figures, options.plot)


if __name__ == "__main__":
    main()

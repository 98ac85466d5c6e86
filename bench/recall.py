"""How often a recording heard before is known again, and how often something else is taken for it.

    python -m bench.recall --speech DIR --noise DIR [--rir DIR] [--json OUT] [--docs DIR] [--quick]

Enrols every clip of a folder (its index.csv says who speaks what), asks with distorted copies, and compares them with
everything else that was stored; a false hit is one of another transcript. Thresholds are those frozen in the package.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from bench.asking import Asked, Plan, Tried, measure
from bench.clips import Choice
from bench.figures import Figures
from bench.recall_report import report, told
from gateway.arguments import new_file, whole

QUICK = 12
"""By how much less --quick measures."""


def carried_out(plan: Plan) -> tuple[list[Asked], list[Tried]]:
    """All parts of the plan, each in a process of its own where there are several."""
    if plan.parts == 1:
        return measure(plan, 0)
    asked: list[Asked] = []
    tried: list[Tried] = []
    with ProcessPoolExecutor(plan.parts, multiprocessing.get_context("spawn")) as pool:
        for some_asked, some_tried in pool.map(measure, [plan] * plan.parts, range(plan.parts)):
            asked += some_asked
            tried += some_tried
    return asked, tried


def planned(options: argparse.Namespace) -> Plan:
    """ValueError where an option makes no sense."""
    low, high = options.unseen or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise ValueError(f"--unseen {low} {high}: two numbers with 0 <= LOW < HIGH <= 1 are allowed")
    for name in ("pairs", "queries", "windows", "swaps", "processes"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: 1 or more is allowed")
    if options.processes > (cores := multiprocessing.cpu_count()):
        raise ValueError(f"--processes {options.processes}: 1 to {cores} are allowed, as many as there are cores")
    choice = Choice(options.half, tuple(filter(None, options.kinds.split(","))), tuple(options.unseen or ()) or None)
    plan = Plan(
        speech=options.speech,
        noise=options.noise,
        rir=options.rir,
        choice=choice,
        seed=options.seed,
        pairs=options.pairs,
        queries=options.queries,
        windows=options.windows,
        swaps=options.swaps,
        baseline_every=5,
        parts=options.processes,
    )
    if not options.quick:
        return plan
    few = {name: max(1, getattr(plan, name) // QUICK) for name in ("pairs", "queries", "swaps")}
    return replace(plan, windows=max(1, plan.windows // 4), **few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=Path, required=True, help="folder with index.csv, or of FLAC and WAV files")
    parser.add_argument("--noise", type=Path, required=True, help="the same for noise")
    parser.add_argument("--rir", type=Path, help="folder of WAV or FLAC impulse responses of rooms")
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every second speaker")
    parser.add_argument("--kinds", default="", help="only these kinds of the index, with commas")
    parser.add_argument("--unseen", type=float, nargs=2, metavar=("LOW", "HIGH"), help="only names of that share")
    parser.add_argument("--pairs", type=whole(), default=110_000_000, help="comparisons of words")
    parser.add_argument("--queries", type=whole(), default=5000, help="copies of longer speech")
    parser.add_argument(
        "--windows", type=whole(), default=3300, help="stretches of longer speech, stored and asked for"
    )
    parser.add_argument("--swaps", type=whole(), default=4800, help="one-word swaps; half as many of the other pairs")
    parser.add_argument("--processes", type=whole(1), default=1)
    parser.add_argument("--quick", action="store_true", help=f"a {QUICK}th of all that")
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--json", type=new_file)
    parser.add_argument("--docs", type=Path, help="folder for the plots and what they show")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        plan = planned(options)
        asked, tried = carried_out(plan)
    except ValueError as error:
        parser.error(str(error))
    out = Figures({**told(asked, tried), "plan": json.loads(json.dumps(asdict(plan), default=lambda path: path.name))})
    report(asked, tried, out)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    out.context["minutes of CPU"] = round(sum(use.ru_utime + use.ru_stime for use in spent) / 60, 1)
    out.context["MB at most, a process"] = round(max(use.ru_maxrss for use in spent) / 1024)
    out.context["minutes"] = round((time.perf_counter() - start) / 60, 1)
    if options.docs is not None:
        from bench.recall_plots import draw  # matplotlib is slow to load, and only wanted here

        draw(asked, options.docs)
    out.write(options.json)


if __name__ == "__main__":
    main()

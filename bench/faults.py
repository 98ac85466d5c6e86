"""What callers notice while something is broken, and for how long after: the figures to tests/faults.

    python -m bench.faults --json OUT

Two gateways on one Redis, real processes. Recovery is from the end of a fault until a new answer of the one gateway
comes to the other from Redis. The miss path with Redis and without it take turns, a round each. Goodput under overload
is held against the closed loop's, measured before and after it on the same models.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from bench import fleet
from bench.figures import Figure, Figures
from bench.fleet import FAULTS, Pair, speech_of
from bench.open_loop import Ask, Mode, Report, attempt, steady

RECOVERY_S = 5.0
WORSE_S = 0.005
"""By how much the miss path may be slower without Redis."""
GOODPUT = 0.9
MEMORY_MB = 256.0
FEW = 60
"""Requests of a load during a fault."""
REFUSED = "RESOURCE_EXHAUSTED"


async def recovery(pair: Pair, known: Sequence[Ask], rate: float, figures: Figures) -> None:
    """Every fault of Redis under load: what failed, what was wrong, and how long answers were not shared after it."""
    everything = Report()
    for name, fault in tqdm(FAULTS.items(), desc="faults", unit="fault"):
        await pair.share()
        async with steady(pair.one.target, fleet.mixed(known), rate) as load:
            with fault(pair):
                await load.answered(FEW, 300)
            ended = time.monotonic()
            await pair.share()
            took_s = time.monotonic() - ended
        everything.attempts += load.report.attempts
        figures.add(Figure(f"recovery from Redis {name}", took_s, "s", None, RECOVERY_S))
    failed = len(everything.where(lambda each: each.code != "OK"))
    wrong = len(everything.where(lambda each: each.code == "OK" and not each.right))
    figures.add(Figure("requests during faults", len(everything), "requests"))
    figures.add(Figure("failed among them", failed, "requests", None, 0))
    figures.add(Figure("answered wrongly among them", wrong, "requests", None, 0))


async def without_redis(pair: Pair, rate: float, rounds: int, each: int, figures: Figures) -> None:
    """The miss path, with Redis there and with Redis killed."""
    took: dict[bool, list[float]] = {True: [], False: []}
    rng = np.random.default_rng(13)
    new = (Ask("new", "Vocode", fleet.vocode(rng.normal(-6.0, 1.0, (80, 40)).clip(-11.5))) for _ in itertools.count())
    for down in tqdm([False, True] * rounds, desc="miss path", unit="round"):
        await pair.share()
        if down:
            pair.redis.kill()
        asks = list(itertools.islice(new, 2 * each))
        async with steady(pair.one.target, asks, rate) as load:
            await load.answered(min(10, each))  # those that find out are in the figures of recovery
            part = await load.answered(each, 300)
        took[down] += [attempt.took_s for attempt in part.attempts if attempt.code == "OK"]
        if down:
            pair.redis.start()
    there, gone = (float(np.quantile(took[down], 0.99)) for down in (False, True))
    figures.context["miss path, p50 with and without Redis, ms"] = [
        1e3 * float(np.median(took[d])) for d in (False, True)
    ]
    figures.add(Figure("miss path p99, Redis down", 1e3 * gone, "ms", 1e3 * there, 1e3 * (there + WORSE_S)))


async def capacity(pair: Pair, asks: Sequence[Ask], seconds: float, callers: int = 4) -> float:
    """Requests a second that callers get who wait for each answer."""
    done, until = 0, time.monotonic() + seconds

    async def caller(speech: Any, own: itertools.cycle[Ask]) -> None:
        nonlocal done
        while time.monotonic() < until:
            made = await attempt(speech, next(own))
            done += made.right

    begun = time.monotonic()
    async with speech_of(pair.one) as speech:
        await asyncio.gather(*(caller(speech, itertools.cycle(asks[start:])) for start in range(callers)))
    return done / (time.monotonic() - begun)


async def overload(pair: Pair, known: Sequence[Ask], seconds: float, figures: Figures) -> None:
    """Three times as many misses as the engines can compute."""
    sung = [ask.by(Mode.BYPASS) for ask in known if ask.method == "Vocode"]
    process = psutil.Process(pair.one.process.pid)
    before_mb = process.memory_info().rss / 1e6
    first = await capacity(pair, sung, seconds)
    async with steady(pair.one.target, sung, 3 * first) as load:
        begun = load.now()
        await asyncio.sleep(seconds)
        ended, peak_mb = load.now(), process.memory_info().rss / 1e6
    second = await capacity(pair, sung, seconds)
    report = load.report
    # From the first answer of a line that is never empty: what it takes to fill is not the gateway's.
    good = report.where(lambda each: each.right and begun <= each.due_s + each.took_s <= ended)
    able = (first + second) / 2
    refused = report.where(lambda each: each.code == REFUSED)
    told = refused.where(lambda each: bool(each.retry_s))
    figures.context["overload, codes"] = dict(report.codes)
    figures.context["capacity before and after, requests/s"] = [first, second]
    figures.add(
        Figure(
            "goodput at three times capacity, over capacity",
            len(good) / (ended - begun) / able,
            "ratio",
            1.0,
            GOODPUT,
            "higher",
        )
    )
    figures.add(
        Figure(
            "refused with a retry delay, of those not answered",
            _share(told, report.where(lambda each: not each.right)),
            "share",
            None,
            1.0,
            "higher",
        )
    )
    figures.add(Figure("memory more than before", peak_mb - before_mb, "MB", None, MEMORY_MB))


def _share(part: Report, whole: Report) -> float:
    return len(part) / len(whole) if len(whole) else 1.0


async def measure(pair: Pair, rounds: int, each: int, seconds: float, figures: Figures) -> None:
    known = await fleet.asks(pair.one.target)
    able = await capacity(pair, [ask.by(Mode.BYPASS) for ask in known], seconds / 2)
    figures.context["capacity, all kinds, requests/s"] = able
    # A third of what is asked must be made anew: far from a queue, which would be in every figure.
    await recovery(pair, known, min(30.0, 0.5 * able), figures)
    await without_redis(pair, min(20.0, 0.25 * able), rounds, each, figures)
    await overload(pair, known, seconds, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=5, help="of the miss path, with Redis and without")
    parser.add_argument("--requests", type=int, default=200, help="a round")
    parser.add_argument("--seconds", type=float, default=20.0, help="of overload")
    args = parser.parse_args()
    figures = Figures(context={"rounds": args.rounds, "requests": args.requests, "seconds": args.seconds})
    with tempfile.TemporaryDirectory() as folder, fleet.pair_in(Path(folder)) as pair:
        asyncio.run(measure(pair, args.rounds, args.requests, args.seconds, figures))
    figures.write(args.json)


if __name__ == "__main__":
    main()

"""What callers notice while something is broken, and for how long after: the figures to tests/faults.

    python -m bench.faults --json OUT

Two gateways on one Redis, real processes. Recovery is from the end of a fault until a new answer of the one gateway
comes to the other from Redis. The miss path with Redis and without it take turns, a round each. Goodput under overload
is held against the closed loop's, in turns on the same models: with a load program in Python and with one in C (needs
h2load), because on few cores what the load itself takes is taken from the engines; and against the closed loop beside
the same load program, whose excess another server refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from bench import fleet
from bench.figures import Figure, Figures
from bench.fleet import FAULTS, Pair, speech_of
from bench.flood import flood, refusing
from bench.h2load import grpc_body, require_h2load
from bench.open_loop import Ask, Mode, Report, attempt, steady
from bench.processes import Gateway
from gateway.arguments import new_file, real, whole

RECOVERY_S = 5.0
WORSE_S = 0.005
"""By how much the miss path may be slower without Redis."""
GOODPUT = 0.9
OVERLOAD = 3
"""How many times what the engines can do."""
CHECKED = 20
"""One in so many of the load that h2load sends is sent by us, who look at its answer."""
MOST_S = 600.0
"""How long a flood lasts that nobody ends."""
BY_PYTHON = "capacity, load in Python on the same cores"
BY_C = "capacity, load in C on the same cores"
BESIDE = "capacity while a bare server refuses the same excess"
MEMORY_MB = 256.0
FEW = 60
"""Requests of a load during a fault."""
REFUSED = "RESOURCE_EXHAUSTED"
VOCODE = "/refrain.v1.Speech/Vocode"


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
        turned = [[*asks[start:], *asks[:start]] for start in range(callers)]
        await asyncio.gather(*(caller(speech, itertools.cycle(own)) for own in turned))
    return done / (time.monotonic() - begun)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a gateway has done, by its own word and the system's."""

    at_s: float
    answered: float
    refused: float
    loop_s: float
    """Processor time of its event loop."""

    def since(self, before: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))


def counts(gateway: Gateway) -> Counts:
    page, process = fleet.metrics(gateway), psutil.Process(gateway.process.pid)
    answered = sum(value for name, value in page.items() if name.startswith("refrain_requests_total{"))
    refused = sum(value for name, value in page.items() if "refrain_failed_requests" in name and REFUSED in name)
    loop = next(thread for thread in process.threads() if thread.id == process.pid)
    return Counts(time.monotonic(), answered, refused, loop.user_time + loop.system_time)


async def overload(pair: Pair, known: Sequence[Ask], rounds: int, seconds: float, figures: Figures) -> None:
    """Three times as many misses as the engines can compute, in short turns with the closed loop that it is held
    against, because what else runs on a machine changes. Every answer that comes here is looked at; of h2load's calls
    the gateway's own counts tell what came of them, and one in `CHECKED` is sent from here."""
    ask = next(ask for ask in known if ask.method == "Vocode").by(Mode.BYPASS)
    process, gateway, everything = psutil.Process(pair.one.process.pid), pair.one, Report()
    before_mb, peak_mb = process.memory_info().rss / 1e6, 0.0
    over: dict[str, list[float]] = {BY_PYTHON: [], BY_C: [], BESIDE: []}
    able, refusal_ms, miss_ms = list[float](), list[float](), list[float]()

    async def beyond(rate: float) -> Counts:
        """What the gateway does in `seconds` once it refuses, with `rate` requests a second sent from here."""
        nonlocal peak_mb
        async with steady(gateway.target, [ask], rate) as load:
            while REFUSED not in load.report.codes:
                await load.answered(1)
            begun = await asyncio.to_thread(counts, gateway)
            await asyncio.sleep(seconds)
            part = (await asyncio.to_thread(counts, gateway)).since(begun)
            peak_mb = max(peak_mb, process.memory_info().rss / 1e6)
        everything.attempts += load.report.attempts
        return part

    with tempfile.TemporaryDirectory() as folder, refusing(VOCODE) as bare:
        body = Path(folder) / "body"
        body.write_bytes(grpc_body(ask.request.SerializeToString()))
        for _ in tqdm(range(rounds), desc="overload", unit="round"):
            begun = await asyncio.to_thread(counts, gateway)
            first = await capacity(pair, [ask], seconds)
            closed, rate = (await asyncio.to_thread(counts, gateway)).since(begun), OVERLOAD * first
            with flood(gateway.port, VOCODE, body, rate - rate / CHECKED, MOST_S):
                by_c = await beyond(rate / CHECKED)
            with flood(bare, VOCODE, body, rate - first, MOST_S):
                beside = await capacity(pair, [ask], seconds)
            by_python = await beyond(rate)
            able.append((first + await capacity(pair, [ask], seconds)) / 2)
            over[BY_C].append(by_c.answered / by_c.at_s / able[-1])
            over[BY_PYTHON].append(by_python.answered / by_python.at_s / able[-1])
            over[BESIDE].append(by_c.answered / by_c.at_s / beside)
            miss_ms.append(1e3 * closed.loop_s / closed.answered)
            refusal_ms.append((1e3 * by_c.loop_s - miss_ms[-1] * by_c.answered) / by_c.refused)
    everything.check(REFUSED)
    refused = everything.where(lambda each: each.code == REFUSED)
    told = refused.where(lambda each: bool(each.retry_s))
    figures.context |= {
        "overload, codes": dict(everything.codes),
        "overload, rounds": over,
        "capacity, requests/s": able,
    }
    for name, ratios in over.items():
        name = f"goodput at three times capacity, over {name}"
        figures.add(Figure(name, statistics.median(ratios), "ratio", 1.0, GOODPUT, "higher"))
    name, miss = "event loop's processor time of a refusal (of a miss)", statistics.median(miss_ms)
    figures.add(Figure(name, statistics.median(refusal_ms), "ms", miss))
    name = "refused with a retry delay, of those not answered"
    figures.add(Figure(name, _share(told, refused), "share", None, 1.0, "higher"))
    figures.add(Figure("memory more than before", peak_mb - before_mb, "MB", None, MEMORY_MB))


def _share(part: Report, whole: Report) -> float:
    return len(part) / len(whole) if len(whole) else 1.0


async def measure(pair: Pair, rounds: int, each: int, seconds: float, figures: Figures) -> None:
    known = await fleet.asks(pair.one.target)
    able = await capacity(pair, [ask.by(Mode.BYPASS) for ask in known], 2 * seconds)
    figures.context["capacity, all kinds, requests/s"] = able
    # A third of what is asked must be made anew: far from a queue, which would be in every figure.
    await recovery(pair, known, min(30.0, 0.5 * able), figures)
    await without_redis(pair, min(20.0, 0.25 * able), rounds, each, figures)
    await overload(pair, known, rounds, seconds, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument(
        "--rounds", type=whole(1), default=5, help="of the miss path with Redis and without, of overload"
    )
    parser.add_argument("--requests", type=whole(1), default=200, help="a round of the miss path")
    parser.add_argument("--seconds", type=real(above=True), default=5.0, help="of each turn in a round of overload")
    args = parser.parse_args()
    require_h2load()
    figures = Figures(context={"rounds": args.rounds, "requests": args.requests, "seconds": args.seconds})
    with tempfile.TemporaryDirectory() as folder, fleet.pair_in(Path(folder)) as pair:
        asyncio.run(measure(pair, args.rounds, args.requests, args.seconds, figures))
    figures.write(args.json)


if __name__ == "__main__":
    main()

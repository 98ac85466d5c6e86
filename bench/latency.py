"""What each way of a request costs beside what it can't do without: exact, fuzzy and Redis hits, misses, open streams.

    OPENBLAS_NUM_THREADS=1 python -m bench.latency --json OUT [--only NAME]

- recognize: an exact hit of 3 s of sound in, beside a bare grpc.aio server that takes and gives the same bytes
- fuzzy: processor time of the gateway (and its Redis) for each of many noisy copies of recordings heard before, one
  at a time and four at once
- redis: a hit in the second tier, beside a bare server that asks the same Redis for the same value
- miss: distinct inputs through the gateway, and by the same engines in this process, in turn; a bare call beside
- streams: connections with open streams each, all answered in the end; the gateway's memory for either

Speech is made here, by the embedded models. Those that are compared take turns; figures are medians of the rounds.
NumPy has one thread, as in the gateway, or the engines here would be slower than those there. `bench.throughput` has
the exact hit of one second of speech out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
from redis import Redis
from tqdm import tqdm

from bench.bare import bare_server
from bench.engine import SAYINGS
from bench.figures import Figure, Figures
from bench.h2load import grpc_body, in_turn, require_h2load
from bench.held_streams import hold
from bench.misses import SERVICE, distinct_inputs
from bench.misses import in_turn as misses_in_turn
from bench.own_speech import Voice, noisy, to_hear
from bench.processes import Gateway, start_gateway
from gateway.arguments import new_file, whole
from models.load import load_engines
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

Status = speech_pb2.CacheInfo.Status
REDIS_CALLERS = 8
FUZZY_CALLERS = 4
LEAST_SHARE = 0.8
"""Of the answers that must have come from Redis, for the figure to be of that."""
SMALL_DEVICE = "[device]\nsize = 100000\npolicy = 'lru'\n"
"""Room for one second of speech, so that of several in turn each is found in Redis alone, and moves up."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rounds: int
    requests: int
    """A round, of exact hits; a quarter of it of those in Redis."""
    copies: int
    misses: int
    connections: int
    streams: int
    """On each connection."""


@contextmanager
def gateway_with(config: str) -> Iterator[Gateway]:
    """A gateway in a process and a data folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "refrain.toml"
        file.write_text(config)
        gateway = start_gateway(Path(folder) / "data", "--config", str(file))
        try:
            yield gateway
        finally:
            gateway.stop()


def answered(gateway: Gateway, status: int, tier: str) -> int:
    """How many answers of this kind the gateway itself has counted."""
    with grpc.insecure_channel(gateway.target) as channel:
        stats = cache_pb2_grpc.CacheAdminStub(channel).GetStats(cache_pb2.GetStatsRequest())
    return sum(row.requests for row in stats.outcomes if (row.status, row.tier) == (status, tier))


def recognize(figures: Figures, sizes: Sizes, voice: Voice) -> None:
    """An exact L1 hit that takes 3 s of sound in."""
    method = f"{SERVICE}/Recognize"
    with gateway_with("") as gateway, tempfile.TemporaryDirectory() as folder:
        request = to_hear(voice.recording(SAYINGS[3]))
        with grpc.insecure_channel(gateway.target) as channel:
            stub = speech_pb2_grpc.SpeechStub(channel)
            response = [stub.Recognize(request) for _ in range(2)][-1]
        body, answer = Path(folder) / "body", Path(folder) / "answer"
        body.write_bytes(grpc_body(request.SerializeToString()))
        answer.write_bytes(response.SerializeToString())
        before = answered(gateway, Status.HIT_EXACT, "device")
        with bare_server(answer, method) as bare:
            beside = in_turn(gateway.port, bare, method, [body], sizes.rounds, sizes.requests)
        hits = answered(gateway, Status.HIT_EXACT, "device") - before
    if hits != sizes.rounds * sizes.requests + max(1, sizes.requests // 4):
        raise RuntimeError(f"only {hits} answers under load were exact L1 hits")
    rate, p99 = statistics.median(beside.rates), statistics.median(beside.p99s)
    figures.add(Figure("exact L1 hit of 3 s in, rate over bare grpc.aio", rate, "ratio", 1.0, 0.6, "higher"))
    figures.add(Figure("exact L1 hit of 3 s in, p99 over bare grpc.aio", p99, "ratio", 1.0, 1.5))
    figures.context["recognize"] = {"request_bytes": len(request.SerializeToString()), **beside.context()}


def busy_s(pid: int, apart: int = 0) -> float:
    """Processor time of a process and its children so far, but for its thread `apart`."""
    process = psutil.Process(pid)
    threads = [thread for one in (process, *process.children(recursive=True)) for thread in one.threads()]
    return sum(thread.user_time + thread.system_time for thread in threads if thread.id != apart)


def engine_thread(gateway: Gateway, run: Callable[[], object]) -> int:
    """The thread that runs the engines, of which there is one: who has worked most while `run` did, which is to run
    the model. By it what audits compute beside the callers is told from what answering takes."""
    before = {thread.id: thread.user_time for thread in psutil.Process(gateway.process.pid).threads()}
    run()
    after = {thread.id: thread.user_time for thread in psutil.Process(gateway.process.pid).threads()}
    return max(after, key=lambda id: after[id] - before.get(id, 0.0))


def fuzzy(figures: Figures, sizes: Sizes, voice: Voice) -> None:
    """A fuzzy L1 hit of 3 s in, alone and beside others: decode, fingerprint, look up, verify, answer, and all that
    goes on."""
    rng = np.random.default_rng(5)
    config = "[engines]\nworkers = 1\n[tenants.default]\nrequire_proof = false\n"
    with gateway_with(config) as gateway, grpc.insecure_channel(gateway.target) as channel:
        stub = speech_pb2_grpc.SpeechStub(channel)
        heard = [voice.recording(saying) for saying in SAYINGS]
        for one in heard:
            stub.Recognize(to_hear(one))
        bypass = to_hear(heard[0])
        bypass.cache_control.mode = speech_pb2.CacheControl.BYPASS
        apart = engine_thread(gateway, lambda: [stub.Recognize(bypass) for _ in range(10)])
        match = speech_pb2.CacheControl.FUZZY
        requests = [to_hear(noisy(heard[n % len(heard)], rng), match) for n in range(sizes.copies)]
        costs: list[float] = []
        crowded: list[float] = []
        share = 0.0
        for start in tqdm(range(0, sizes.copies, 2 * len(heard)), desc="fuzzy", unit="round"):
            part = requests[start : start + 2 * len(heard)]
            began = busy_s(gateway.process.pid, apart)
            answers = [stub.Recognize(request) for request in part]
            costs.append((busy_s(gateway.process.pid, apart) - began) / len(part) * 1e3)
            share += sum(answer.cache_info.status == Status.HIT_FUZZY for answer in answers) / sizes.copies
            with ThreadPoolExecutor(FUZZY_CALLERS) as callers:
                began = busy_s(gateway.process.pid, apart)
                list(callers.map(stub.Recognize, part))
                crowded.append((busy_s(gateway.process.pid, apart) - began) / len(part) * 1e3)
    name = "fuzzy L1 hit of 3 s in, processor time"
    figures.add(Figure(name, statistics.median(costs[1:] or costs), "ms", None, 4.0))
    figures.add(Figure(f"{name}, {FUZZY_CALLERS} callers", statistics.median(crowded[1:] or crowded), "ms", None, 4.0))
    told = {"ms_by_round": costs, "ms_by_round_of_several": crowded}
    figures.context["fuzzy"] = {"share_answered_fuzzily": share, "recordings": len(heard), **told}


def redis(figures: Figures, sizes: Sizes) -> None:
    """A hit in Redis of one second of speech, several callers with a sentence of their own each."""
    method = f"{SERVICE}/Synthesize"
    with gateway_with(SMALL_DEVICE) as gateway, tempfile.TemporaryDirectory() as folder:
        bodies = [Path(folder) / f"body{number}" for number in range(REDIS_CALLERS)]
        with grpc.insecure_channel(gateway.target) as channel:
            stub = speech_pb2_grpc.SpeechStub(channel)
            for number, body in enumerate(bodies):
                request = speech_pb2.SynthesizeRequest(input={"text": f"How can I help you {number}?"})
                body.write_bytes(grpc_body(request.SerializeToString()))
                stub.Synthesize(request)
            time.sleep(1.0)  # what is written behind the responses
            response = stub.Synthesize(request)
        answer = Path(folder) / "answer"
        answer.write_bytes(response.SerializeToString())
        with Redis.from_url(gateway.redis_url) as client:
            key = next(client.scan_iter("refrain:v:*")).decode()
            value_bytes = client.strlen(key)
        before = answered(gateway, Status.HIT_EXACT, "redis")
        each = max(1, sizes.requests // 4 // REDIS_CALLERS)
        with bare_server(answer, method, "--redis", gateway.redis_url, "--key", key) as bare:
            beside = in_turn(gateway.port, bare, method, bodies, sizes.rounds, each, connections=1, streams=1)
        hits = answered(gateway, Status.HIT_EXACT, "redis") - before
    share = hits / (REDIS_CALLERS * (sizes.rounds * each + max(1, each // 4)))
    if share < LEAST_SHARE:
        raise RuntimeError(f"only {share:.0%} of the answers under load came from Redis")
    cost = statistics.median(1 / rate for rate in beside.rates)
    figures.add(Figure("L2 hit over bare grpc.aio and a GET, time a request", cost, "ratio", 1.0, 1.5))
    figures.context["redis"] = {"value_bytes": value_bytes, "share_from_redis": share, **beside.context()}


def miss(figures: Figures, sizes: Sizes, voice: Voice) -> None:
    """Inputs that nobody has asked for, through the gateway and by the same engines in this process."""
    rng = np.random.default_rng(6)
    config = "[engines]\nworkers = 1\n"
    with gateway_with(config) as gateway, ThreadPoolExecutor(1) as pool, tempfile.TemporaryDirectory() as folder:
        served = load_engines(None, ("auto",), 1, pool).by_task
        engines = {task: next(iter(known.values())) for task, known in served.items()}
        for task, inputs in distinct_inputs(sizes.misses, voice, rng).items():
            method, (first, *rest) = f"{SERVICE}/{inputs[0][0]}", inputs
            with grpc.insecure_channel(gateway.target) as channel:
                answer = Path(folder) / task
                answer.write_bytes(channel.unary_unary(method, None, None)(first[1]))
            with bare_server(answer, method) as bare:
                direct, through, call = misses_in_turn(gateway, bare, task, engines[task], rest)
            more = statistics.median(theirs - own for own, theirs in zip(direct, through, strict=True))
            base, plain = statistics.median(direct), statistics.median(call)
            allowed = max(1.0, 0.03 * base)
            figures.add(Figure(f"miss over the engine alone, {task}", more, "ms", base, allowed))
            figures.add(Figure(f"of that a bare grpc.aio call, {task}", plain, "ms"))
            beside = f"miss over the engine and a bare call, {task}"
            figures.add(Figure(beside, more - plain, "ms", base + plain, allowed))
            figures.context[f"miss {task}"] = {"direct_ms": direct, "through_ms": through, "bare_call_ms": call}


def streams(figures: Figures, sizes: Sizes, voice: Voice) -> None:
    """Open streams of recognition, which all get their answer in the end."""
    config = "[listen]\nstream_patience = '20min'\n"
    with gateway_with(config) as gateway, tempfile.TemporaryDirectory() as folder:
        request = to_hear(voice.recording(SAYINGS[3]))
        with grpc.insecure_channel(gateway.target) as channel:
            speech_pb2_grpc.SpeechStub(channel).Recognize(request)
        file = Path(folder) / "request"
        file.write_bytes(request.SerializeToString())
        held = hold(gateway, file, sizes.connections, sizes.streams)
        burst = hold(gateway, file, sizes.connections, sizes.streams, burst=True)
    opened = sizes.connections * sizes.streams
    what = f"errors on {sizes.connections} connections with {opened} open streams"
    figures.add(Figure(what, held.errors, "errors", None, 0))
    figures.add(Figure("streams answered", held.answered, "streams", opened, opened, "higher"))
    figures.add(Figure("errors where they are opened in one moment", burst.errors, "errors", None, 0))
    figures.add(Figure("streams of these answered", burst.answered, "streams", opened, opened, "higher"))
    figures.add(Figure("memory a connection", held.connection_bytes / 1e3, "kB"))
    figures.add(Figure("memory an open stream", held.stream_bytes / 1e3, "kB"))
    seconds = {"seconds": held.seconds, "seconds_in_one_moment": burst.seconds}
    figures.context["streams"] = {"request_bytes": held.request_bytes, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--only", choices=("recognize", "fuzzy", "redis", "miss", "streams"), action="append")
    parser.add_argument("--rounds", type=whole(1), default=9)
    parser.add_argument("--requests", type=whole(1), default=8_000, help="a round of exact hits")
    parser.add_argument("--copies", type=whole(1), default=320, help="noisy ones, for the fuzzy hits")
    parser.add_argument("--misses", type=whole(1), default=60, help="of each task")
    parser.add_argument("--connections", type=whole(1), default=1_000)
    parser.add_argument("--streams", type=whole(1), default=10, help="on each connection")
    args = parser.parse_args()
    require_h2load()
    sizes = Sizes(args.rounds, args.requests, args.copies, args.misses, args.connections, args.streams)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "not said")
    figures, voice = Figures({"sizes": asdict(sizes), "openblas_num_threads": threads}), Voice()
    parts: dict[str, Callable[[], None]] = {
        "recognize": lambda: recognize(figures, sizes, voice),
        "fuzzy": lambda: fuzzy(figures, sizes, voice),
        "redis": lambda: redis(figures, sizes),
        "miss": lambda: miss(figures, sizes, voice),
        "streams": lambda: streams(figures, sizes, voice),
    }
    for name, part in parts.items():
        if not args.only or name in args.only:
            part()
    figures.write(args.json)


if __name__ == "__main__":
    main()

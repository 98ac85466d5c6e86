"""How near the hit path is to bare gRPC, and what it costs: rate and p99, coalescing, memory, start.

    python -m bench.throughput --json OUT

The same native load generator (h2load.py) drives Refrain and a bare grpc.aio server that returns the same bytes, in
turn, several rounds; the figure is the median of the rounds' ratios. `bench.latency` measures the other paths.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
from tqdm import tqdm

from bench.bare import bare_server
from bench.figures import Figure, Figures
from bench.h2load import grpc_body, in_turn, require_h2load
from bench.processes import Gateway, start_gateway
from gateway.arguments import new_file, whole
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

METHOD = "/refrain.v1.Speech/Synthesize"
Status = speech_pb2.CacheInfo.Status


def one_second_request(stub: speech_pb2_grpc.SpeechStub) -> tuple[speech_pb2.SynthesizeRequest, bytes]:
    """A request whose answer is about one second of LINEAR16 speech, warmed into L1, and that answer."""
    request = speech_pb2.SynthesizeRequest(input={"text": "How can I help you?"})
    request.audio_config.audio_encoding = speech_pb2.LINEAR16
    for _ in range(2):
        response = stub.Synthesize(request)
    if response.cache_info.status != Status.HIT_EXACT or response.cache_info.tier != "device":
        raise RuntimeError(f"not an L1 hit: {response.cache_info}")
    return request, response.SerializeToString()


def hits(gateway: Gateway) -> int:
    """Exact hits the gateway itself counts, so that failures hidden in trailers can't pass for answers."""
    with grpc.insecure_channel(gateway.target) as channel:
        stats = cache_pb2_grpc.CacheAdminStub(channel).GetStats(cache_pb2.GetStatsRequest())
    return sum(row.requests for row in stats.outcomes if row.status == Status.HIT_EXACT)


def hit_rate(gateway: Gateway, figures: Figures, rounds: int, requests: int) -> None:
    """Exact L1 hits against the bare server."""
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(gateway.target) as channel:
        request, response = one_second_request(speech_pb2_grpc.SpeechStub(channel))
        body, answer = Path(folder) / "body", Path(folder) / "answer"
        body.write_bytes(grpc_body(request.SerializeToString()))
        answer.write_bytes(response)
        before = hits(gateway)
        with bare_server(answer, METHOD) as bare:
            beside = in_turn(gateway.port, bare, METHOD, [body], rounds, requests)
        if hits(gateway) - before != rounds * requests + max(1, requests // 4):
            raise RuntimeError("some answers under load were not exact hits")
    figures.context |= {"response_bytes": len(response), "rounds": rounds, "exact L1 hits": beside.context()}
    base, ours = (statistics.median(load.rate for load in loads) for loads in (beside.bare, beside.ours))
    rate, p99 = statistics.median(beside.rates), statistics.median(beside.p99s)
    figures.add(Figure("exact L1 hit rate over bare grpc.aio", rate, "ratio", 1.0, 0.7, "higher"))
    figures.add(Figure("exact L1 hit p99 over bare grpc.aio", p99, "ratio", 1.0, 1.5))
    figures.add(Figure("exact L1 hits", ours, "requests/s", base))


def coalescing(gateway: Gateway, figures: Figures) -> None:
    """32 equal requests at once, never seen before."""
    request = speech_pb2.SynthesizeRequest(input={"text": "Thirty two callers are asking for this very sentence."})
    with grpc.insecure_channel(gateway.target) as channel, ThreadPoolExecutor(32) as callers:
        stub = speech_pb2_grpc.SpeechStub(channel)
        answers = list(callers.map(lambda _: stub.Synthesize(request), range(32)))
    runs = sum(answer.cache_info.status == Status.MISS for answer in answers)
    same = len({answer.audio_content for answer in answers})
    figures.add(Figure("engine runs for 32 identical requests at once", runs, "runs", 32, 1))
    figures.add(Figure("distinct answers among them", same, "answers", None, 1))


def memory(gateway: Gateway, figures: Figures, entries: int, tier_bytes: int) -> None:
    """Resident memory after many distinct one-second answers."""
    rng = np.random.default_rng(7)
    frames = 87  # one second of the shared mel
    with grpc.insecure_channel(gateway.target) as channel:
        stub = speech_pb2_grpc.SpeechStub(channel)
        base = rng.normal(-6.0, 1.5, (80, frames)).astype("<f4").clip(-11.5, 2.0)
        for index in tqdm(range(entries), desc="distinct entries", unit="entry"):
            mel = base.copy()
            mel[:, index % frames] -= 0.001 * (1 + index // frames)
            request = speech_pb2.VocodeRequest(mel={"data": np.maximum(mel, -11.5).tobytes(), "bands": 80})
            stub.Vocode(request)
    process = psutil.Process(gateway.process.pid)
    own = process.memory_info().rss
    everything = own + sum(child.memory_info().rss for child in process.children(recursive=True))
    figures.context |= {"distinct_entries": entries, "device_and_redis_bytes": tier_bytes}
    figures.add(Figure("resident memory over tier sizes", (everything - tier_bytes) / 1e6, "MB", None, 400))
    figures.add(Figure("gateway process resident memory", own / 1e6, "MB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--rounds", type=whole(1), default=7)
    parser.add_argument("--requests", type=whole(1), default=20_000, help="a round")
    parser.add_argument(
        "--entries", type=whole(), default=10_000, help="distinct entries of the memory figure; 0 skips it"
    )
    args = parser.parse_args()
    require_h2load()
    figures = Figures()
    device_bytes, redis_bytes = 128 << 20, 256 << 20
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "refrain.toml"
        config.write_text(f"[device]\nsize = {device_bytes}\n[redis]\nmaxmemory = {redis_bytes}\n")
        data_dir = Path(folder) / "data"
        start_gateway(data_dir, "--config", str(config)).stop()
        gateway = start_gateway(data_dir, "--config", str(config))
        try:
            figures.add(Figure("second start to SERVING, empty cache", gateway.start_s, "s", None, 3.0))
            hit_rate(gateway, figures, args.rounds, args.requests)
            coalescing(gateway, figures)
            if args.entries:
                memory(gateway, figures, args.entries, device_bytes + redis_bytes)
        finally:
            gateway.stop()
    figures.write(args.json)


if __name__ == "__main__":
    main()

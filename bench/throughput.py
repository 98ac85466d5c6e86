"""How near the hit path is to bare gRPC, and what it costs: request rate, coalescing, memory, start.

    python -m bench.throughput --json OUT

The same native load generator (h2load, Debian's nghttp2-client) drives Refrain and a bare grpc.aio server that returns
the same bytes, in turn, several rounds; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
from tqdm import tqdm

from bench.figures import Figure, Figures
from bench.processes import Gateway, free_port, running, start_gateway
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

METHOD = "/refrain.v1.Speech/Synthesize"
STREAMS = 16
Status = speech_pb2.CacheInfo.Status


def load(port: int, method: str, body: Path, requests: int) -> float:
    """Requests a second that h2load reaches. Raises `RuntimeError` unless every request succeeded."""
    command = ["h2load", "-n", str(requests), "-c", "4", "-m", str(STREAMS // 4), "-t", "1", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{method}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    if rate is None or done is None or int(done[1]) != requests:
        raise RuntimeError(f"h2load did not finish cleanly:\n{text}")
    return float(rate[1])


def grpc_body(message: bytes) -> bytes:
    """One gRPC frame: no compression, big-endian length, message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


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
        bare_port = free_port()
        command = [sys.executable, "-m", "bench.bare", "--port", str(bare_port), "--response", str(answer)]
        with running([*command, "--method", METHOD]):
            ours: list[float] = []
            bare: list[float] = []
            load(bare_port, METHOD, body, requests // 4)
            load(gateway.port, METHOD, body, requests // 4)
            before = hits(gateway)
            for _ in tqdm(range(rounds), desc="rounds", unit="round"):
                bare.append(load(bare_port, METHOD, body, requests))
                ours.append(load(gateway.port, METHOD, body, requests))
            if hits(gateway) - before != rounds * requests:
                raise RuntimeError("some answers under load were not exact hits")
    ratios = [mine / base for mine, base in zip(ours, bare, strict=True)]
    figures.context |= {"response_bytes": len(response), "rounds": rounds, "ratios": ratios}
    base = statistics.median(bare)
    figures.add(Figure("exact L1 hit rate over bare grpc.aio", statistics.median(ratios), "ratio", 1.0, 0.6, "higher"))
    figures.add(Figure("exact L1 hits", statistics.median(ours), "requests/s", base))


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
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20_000, help="a round")
    parser.add_argument("--entries", type=int, default=10_000, help="distinct entries of the memory figure; 0 skips it")
    args = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: apt-get install nghttp2-client")
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

"""The native load generator of the speed figures: h2load (Debian's nghttp2-client), its rates and its latencies.

h2load sends one body, so several bodies are several of it at once. It looks at HTTP statuses alone: that the answers
are what they should be, callers see from what the server has counted.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

CONNECTIONS = 4
STREAMS = 4
"""Requests under way at a time on each connection."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load."""

    rate: float
    """Requests a second."""
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Beside:
    """A server and its baseline, in turn."""

    ours: list[Load]
    bare: list[Load]

    @property
    def rates(self) -> list[float]:
        """Ours over the baseline's, round by round."""
        return [mine.rate / base.rate for mine, base in zip(self.ours, self.bare, strict=True)]

    @property
    def p99s(self) -> list[float]:
        return [mine.p99_ms / base.p99_ms for mine, base in zip(self.ours, self.bare, strict=True)]

    def context(self) -> dict[str, list[float]]:
        """What a reader of the figures may want to know of the rounds."""
        return {
            "rate_ratios": self.rates,
            "p99_ratios": self.p99s,
            "bare_requests_a_second": [load.rate for load in self.bare],
            "requests_a_second": [load.rate for load in self.ours],
            "bare_p99_ms": [load.p99_ms for load in self.bare],
            "p99_ms": [load.p99_ms for load in self.ours],
        }


def require_h2load() -> None:
    """Ends the program with what to install where there is none."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: apt-get install nghttp2-client")


def grpc_body(message: bytes) -> bytes:
    """One gRPC frame: no compression, big-endian length, message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def load(
    port: int,
    method: str,
    bodies: Sequence[Path],
    requests: int,
    *,
    connections: int = CONNECTIONS,
    streams: int = STREAMS,
) -> Load:
    """`requests` of each of `bodies`, files that hold a gRPC frame; `connections` and `streams` are of each, too.

    Raises `RuntimeError` unless every request succeeded.
    """
    logs = [body.with_suffix(".log") for body in bodies]
    for log in logs:
        log.unlink(missing_ok=True)  # h2load appends
    command = ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams), "-t", "1"]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{method}"]
    began = time.perf_counter()
    running = [
        subprocess.Popen([*command, "-d", str(body), f"--log-file={log}"], stdout=subprocess.PIPE, text=True)
        for body, log in zip(bodies, logs, strict=True)
    ]
    said = [process.communicate()[0] for process in running]
    seconds = time.perf_counter() - began
    for text in said:
        done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
        if done is None or int(done[1]) != requests:
            raise RuntimeError(f"h2load did not finish cleanly:\n{text}")
    told = re.search(r"finished in .*?, ([\d.]+) req/s", said[0])
    assert told is not None, "h2load tells its rate wherever it tells what succeeded"
    rate = float(told[1]) if len(bodies) == 1 else len(bodies) * requests / seconds
    # Columns: when it began, HTTP status, microseconds to the end of the answer.
    times_ms = np.concatenate([np.loadtxt(log, usecols=2, ndmin=1) for log in logs]) / 1e3
    return Load(rate, statistics.median(times_ms), float(np.quantile(times_ms, 0.99)))


def in_turn(
    ours: int, bare: int, method: str, bodies: Sequence[Path], rounds: int, requests: int, **how: int
) -> Beside:
    """`load` on the ports of both, once to warm up and then round by round; who is first changes with each round."""
    for port in (bare, ours):
        load(port, method, bodies, max(1, requests // 4), **how)
    beside = Beside([], [])
    for number in tqdm(range(rounds), desc=f"{method.rpartition('/')[2]} rounds", unit="round"):
        turns = [(bare, beside.bare), (ours, beside.ours)]
        for port, loads in turns if number % 2 else turns[::-1]:
            loads.append(load(port, method, bodies, requests, **how))
    return beside

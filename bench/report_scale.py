"""How long a report on ten million records takes, and how much memory.

    python -m bench.report_scale --json OUT [--records 10000000] [--keep FOLDER]

The trace is made here from a seed: keys by a power law with a tail that never comes again, times over a week, what a
gateway records. The report is then made as a user would, by the command, in a process of its own. Its processor time is
given beside the time by the clock, and how much of the latter it was ready to run and had no processor (Linux's
run_delay): on a machine with other work, that is where the clock goes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import trace_frames
from bench.figures import Figure, Figures
from bench.trace_frames import NAMES, PIECE, ROW, Rows
from gateway.arguments import new_file, whole
from gateway.stats import ABSENT, COALESCED, HIT_EXACT, HIT_FUZZY, MISS, SPARED, UNLIKE

KEYS = 2_000_000
TAIL = 0.12
"""Of requests: keys that come once."""
WEEK_US = 7 * 86_400 * 1_000_000


def records(total: int, seed: int) -> Iterator[Rows]:
    rng = np.random.default_rng(seed)
    shares = np.cumsum(1 / np.arange(1, KEYS + 1) ** 1.05)
    shares /= shares[-1]
    seen = np.zeros(KEYS, bool)
    weights = rng.lognormal(11, 0.6, KEYS).astype(np.uint32)
    for begin in range(0, total, PIECE):
        rows = np.zeros(min(PIECE, total - begin), ROW)
        size = len(rows)
        key = np.searchsorted(shares, rng.random(size)).astype(np.int64)
        once = rng.random(size) < TAIL
        number = np.where(once, KEYS + begin + np.arange(size), key).astype(np.uint64) + np.uint64(1)
        with np.errstate(over="ignore"):
            rows["digest"] = number * np.uint64(0x9E3779B97F4A7C15)
            rows["input"] = rows["digest"] * np.uint64(3)
        rows["time_us"] = 1_767_225_600_000_000 + (begin + np.arange(size)) * (WEEK_US // total)
        known = seen[key] & ~once
        gone = rng.random(size) < 0.05
        device = rng.random(size) < 0.6
        luck = rng.random(size)
        miss = ~known | gone
        rows["status"] = np.where(miss, MISS, HIT_EXACT)
        rows["status"][miss & (luck < 0.02)] = COALESCED
        rows["status"][miss & (luck > 0.95)] = HIT_FUZZY
        seen[key[~once]] = True
        rows["tier"] = np.where(rows["status"] == HIT_EXACT, np.where(device, 1, 2), 0)
        rows["cause"] = np.where(rows["status"] == MISS, rng.choice([SPARED, ABSENT, UNLIKE], size), 0)
        rows["task"] = np.where(key % 3 == 0, NAMES["task"]["recognize"], NAMES["task"]["synthesize"])
        rows["similarity"] = np.where(rows["status"] == HIT_FUZZY, 0.8 + 0.2 * luck, 0)
        rows["bytes_in"], rows["bytes_out"] = 60, weights[key]
        rows["cost_ms"] = weights[key] / 1000.0
        rows["latency_ms"] = np.where(rows["status"] == MISS, rows["cost_ms"] + 5, rng.lognormal(0, 0.4, size))
        rows["lookup_ms"] = rng.lognormal(-1, 0.4, size)
        rows["voice"], rows["engine"], rows["language"] = key % 12 + 1, key % 2 + 1, key % 3 + 1
        rows["input"][(rows["status"] == HIT_EXACT) | (rows["status"] == HIT_FUZZY)] = 0
        yield rows


def watched(pid: int) -> tuple[int, resource.struct_rusage, float]:
    """Waits for a process to end: its status, what it used, and the seconds it waited for a processor, within 0.2."""
    queued_ns = 0
    while True:
        with contextlib.suppress(OSError):  # Linux alone tells, of a process that runs
            queued_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, used, queued_ns / 1e9
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=whole(1), default=10_000_000)
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the trace and the report; else thrown away")
    parser.add_argument("--json", type=new_file, metavar="OUT")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trace = folder / "long.rft.gz"
        if not trace.exists():
            trace_frames.write(records(arguments.records, arguments.seed), trace)
        command = [sys.executable, "-m", "gateway.cli", "report", "--trace", str(trace)]
        command += ["--html", str(folder / "long.html"), "--json", str(folder / "long.json")]
        begun = time.monotonic()
        process = subprocess.Popen(command)
        status, used, queued_s = watched(process.pid)
        wall = time.monotonic() - begun
        if status:
            raise SystemExit(f"the report ended with status {os.waitstatus_to_exitcode(status)}")
        figures = Figures({"records": arguments.records, "trace_bytes": trace.stat().st_size})
        figures.add(Figure("time by the clock", wall, "s", target=60))
        figures.add(Figure("processor time", used.ru_utime + used.ru_stime, "s", target=60))
        figures.add(Figure("ready to run, without a processor", queued_s, "s"))
        figures.add(Figure("most memory", used.ru_maxrss * 1024 / 1e9, "GB", target=2))
    figures.write(arguments.json)


if __name__ == "__main__":
    main()

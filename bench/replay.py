"""`refrain replay`: sends what a trace recorded to a gateway, and says what came of it.

    refrain replay TRACE --target HOST:PORT --rate 500 [--json OUT]

Requests are real (replay_inputs), sent when they are due whatever became of others (replay_plan, replay_load). The
report is written even if the replay is cut short. Reports of parts of a trace, sent from several machines, add up:
`--part 1/4` of the requests here, `--part 2/4` there, then `refrain replay --merge A.json B.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import grpc
import rich
from rich.live import Live
from rich.progress import track
from rich.table import Table

from bench import trace_frames
from bench.machine import machine
from bench.replay_control import control
from bench.replay_inputs import METHODS, Inputs
from bench.replay_load import Glance, Result, Share, Worker, histogram, start
from bench.replay_plan import FIELDS, Pace, Plan, parse_ramp, plan_of
from bench.replay_report import as_tables, merged, report_of
from gateway.cli import CommandError
from gateway.trace import TraceError


def register(parser: argparse.ArgumentParser) -> None:
    """Sends what a trace recorded to a gateway, and says what came of it."""
    parser.add_argument("trace", type=Path, help="see `refrain trace`; with --merge: reports", nargs="+")
    parser.add_argument("--target", default="127.0.0.1:50051", metavar="HOST:PORT", help="default %(default)s")
    parser.add_argument("--token", default=os.environ.get("REFRAIN_TOKEN", ""), help="better given as REFRAIN_TOKEN")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="R", help="requests a second, Poisson; default 50")
    pace.add_argument("--speed", type=float, metavar="X", help="times as fast as recorded")
    pace.add_argument("--ramp", metavar="FROM:TO:SECONDS", help="from a rate to a rate")
    parser.add_argument("--requests", type=int, metavar="N", help="the first N of the trace")
    parser.add_argument("--warmup", type=float, default=0.0, metavar="S", help="seconds that are not counted")
    parser.add_argument("--task", choices=tuple(METHODS), default="synthesize", help="of records that name none")
    parser.add_argument("--phrases", type=Path, metavar="FILE", help="texts, one a line, the commonest first")
    parser.add_argument("--connections", type=int, default=4, metavar="N", help="of each process; default 4")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="default 1")
    parser.add_argument("--deadline", type=float, default=60.0, metavar="S", help="of each request; default 60")
    parser.add_argument(
        "--control", type=int, default=0, metavar="N", help="ask for N of the things past the cache too"
    )
    parser.add_argument("--part", default="1/1", metavar="I/N", help="this machine's part of the requests")
    parser.add_argument("--inputs", type=Path, default=Path.home() / ".cache" / "refrain" / "replay", metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--merge", action="store_true", help="add up reports instead of sending anything")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replays and reports. Raises `CommandError`."""
    report = _merge(arguments.trace) if arguments.merge else _replay(arguments)
    for part in as_tables(report):
        rich.print(part)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["requests"] > report["errors"] else 1


def _merge(paths: Sequence[Path]) -> dict[str, Any]:
    try:
        return merged([json.loads(path.read_text()) for path in paths])
    except (OSError, KeyError, ValueError) as error:
        raise CommandError(f"--merge: {error}") from None


def _replay(arguments: argparse.Namespace) -> dict[str, Any]:
    if len(arguments.trace) != 1:
        raise CommandError(f"{len(arguments.trace)} traces: one can be replayed at a time")
    at, of = _part(arguments.part)
    inputs = Inputs(arguments.inputs)
    plan, digest = _plan(arguments, inputs)
    requests = [inputs.request(item) for item in track(plan.items, "preparing inputs", transient=True)]
    shares = list(_shares(arguments, plan, requests, at, of))
    about = {
        "trace": {
            "name": arguments.trace[0].name,
            "blake2b": digest,
            "requests": len(plan.asks),
            "items": len(plan.items),
        },
        "target": arguments.target,
        "pace": {"rate": arguments.rate, "speed": arguments.speed, "ramp": arguments.ramp},
        "seed": arguments.seed,
        "part": arguments.part,
        "warmup_s": arguments.warmup,
        "connections": arguments.connections,
        "processes": arguments.processes,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
    }
    try:
        workers = start(shares)
    except (TimeoutError, grpc.RpcError, OSError) as error:
        raise CommandError(f"--target {arguments.target}: can't be reached ({error or type(error).__name__})") from None
    about["interrupted"] = _watch(workers, sum(len(share.asks) for share in shares))
    results = [worker.result for worker in workers if worker.result is not None]
    counted = sum(int((share.due_s >= arguments.warmup).sum()) for share in shares)
    offered = counted / max(plan.span_s - arguments.warmup, 1e-9)
    report = report_of(about, results, offered)
    if arguments.control and not about["interrupted"]:
        some = slice(None, None, max(1, len(requests) // arguments.control))
        asked = plan.items[some][: arguments.control], requests[some][: arguments.control]
        try:
            report["control"] = control(arguments.target, arguments.token, *asked)
        except grpc.RpcError as error:
            raise CommandError(f"--control: {error}") from None
    return report


def _part(text: str) -> tuple[int, int]:
    at, _, of = text.partition("/")
    if not (at.isdecimal() and of.isdecimal() and 1 <= int(at) <= int(of)):
        raise CommandError(f"--part {text}: allowed is I/N with I from 1 to N")
    return int(at), int(of)


def _plan(arguments: argparse.Namespace, inputs: Inputs) -> tuple[Plan, str]:
    """What to send when, and a digest of what was in the trace."""
    for name in ("rate", "speed"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise CommandError(f"--{name} {value:g}: it must be above 0")
    try:
        rows = trace_frames.load(arguments.trace[0], FIELDS)[: arguments.requests]
        phrases = arguments.phrases.read_text("utf-8").splitlines() if arguments.phrases else []
        ramp = parse_ramp(arguments.ramp) if arguments.ramp else (0.0, 0.0, 0.0)
        rate = 0.0 if arguments.speed or arguments.ramp else arguments.rate or 50.0
        pace = Pace(rate, arguments.speed or 0.0, ramp)
        plan = plan_of(rows, pace, arguments.task, inputs.voices(), phrases, arguments.seed)
    except (TraceError, OSError, ValueError) as error:
        raise CommandError(str(error)) from None
    if not len(plan.asks):
        raise CommandError(f"{arguments.trace[0]}: holds no requests")
    return plan, hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()


def _shares(arguments: argparse.Namespace, plan: Plan, requests: Sequence[bytes], at: int, of: int) -> Iterable[Share]:
    """Every N-th request of this machine's part for each process."""
    step = of * arguments.processes
    for process in range(arguments.processes):
        own = slice((at - 1) + of * process, None, step)
        yield Share(
            target=arguments.target,
            token=arguments.token,
            due_s=plan.due_s[own],
            asks=plan.asks[own],
            tasks=[item.task for item in plan.items],
            requests=requests,
            connections=arguments.connections,
            warmup_s=arguments.warmup,
            deadline_s=arguments.deadline,
        )


def _watch(workers: Sequence[Worker], total: int) -> bool:
    """Tells them all to begin, shows how it goes, and takes their results. True when the user cut it short."""
    begin = time.monotonic() + 0.25
    for worker in workers:
        worker.pipe.send(begin)
    interrupted = False
    latest: list[Any] = []
    with Live(refresh_per_second=4, transient=True) as live:
        while waiting := [worker for worker in workers if worker.result is None]:
            try:
                for pipe in wait([worker.pipe for worker in waiting], timeout=1.0):
                    worker = next(worker for worker in waiting if worker.pipe is pipe)
                    told = worker.told()
                    if isinstance(told, Result):
                        worker.result = told
                    else:
                        worker.glance = told
                        latest = [*latest[1 - len(workers) :], told.latency]
                live.update(_line([worker.glance for worker in workers], latest, total, time.monotonic() - begin))
            except KeyboardInterrupt:
                interrupted = True
                for worker in waiting:
                    worker.pipe.send("stop")
            except EOFError:
                raise CommandError("a sending process ended before its time") from None
    return interrupted


def _line(glances: Sequence[Glance], latest: Sequence[str], total: int, elapsed: float) -> Table:
    lately = histogram()
    for text in latest:
        lately.add(type(lately).decode(text))
    answered = sum(glance.answered for glance in glances)
    hits, errors = sum(glance.hits for glance in glances), sum(glance.errors for glance in glances)
    sent = sum(glance.sent for glance in glances)
    line = Table.grid(padding=(0, 3))
    line.add_row(
        f"{sent:,} of {total:,} sent",
        f"{sent / elapsed:,.0f} a second" if elapsed > 0 else "",
        f"{hits / max(1, answered - errors):.1%} from memory",
        f"p99 {lately.get_value_at_percentile(99) / 1e3:,.1f} ms" if lately.get_total_count() else "",
        f"{errors:,} errors",
    )
    return line

"""`refrain replay`: sends what a trace recorded to a gateway, and says what came of it.

    refrain replay TRACE --target HOST:PORT --rate 500 [--json OUT]

Requests are real (replay_inputs), sent when they are due whatever became of others (replay_plan, replay_load). The
report is written even if the replay is cut short. Reports of parts of a trace, sent from several machines, add up:
`--part 1/4` of the requests here, `--part 2/4` there, then `refrain replay --merge A.json B.json`; bench.replay_locust
does so from many.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from bench.replay_control import Rounds, Schedule, scheduled
from bench.replay_inputs import METHODS, Inputs
from bench.replay_judge import Kin
from bench.replay_load import Glance, Result, Share, Worker, histogram, start
from bench.replay_plan import Pace, Plan, parse_ramp, plan_of
from bench.replay_recorded import add_options, with_recorded
from bench.replay_report import Sent, as_tables, merged, report_of
from bench.replay_things import COPY, FIELDS, Cast, remade
from bench.trace_synth import read_phrases
from gateway.arguments import new_file, real, server, whole
from gateway.cli import CommandError
from gateway.trace import TraceError, read_header, trace_files


def register(parser: argparse.ArgumentParser) -> None:
    """Sends what a trace recorded to a gateway, and says what came of it."""
    parser.add_argument("trace", type=Path, help="see `refrain trace`; with --merge: reports", nargs="+")
    parser.add_argument(
        "--target", type=server, default="127.0.0.1:50051", metavar="HOST:PORT", help="default %(default)s"
    )
    parser.add_argument("--token", default=os.environ.get("REFRAIN_TOKEN", ""), help="better given as REFRAIN_TOKEN")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="R", help="requests a second, Poisson; default 50")
    pace.add_argument("--speed", type=float, metavar="X", help="times as fast as recorded")
    pace.add_argument("--ramp", metavar="FROM:TO:SECONDS", help="from a rate to a rate")
    parser.add_argument("--requests", type=whole(1), metavar="N", help="the first N of the trace")
    parser.add_argument("--warmup", type=real(), default=0.0, metavar="S", help="seconds that are not counted")
    parser.add_argument("--task", choices=tuple(METHODS), default="synthesize", help="of records that name none")
    parser.add_argument(
        "--phrases", type=Path, metavar="FILE", help="texts, the commonest first: lines, or CSV with text and count"
    )
    parser.add_argument(
        "--match",
        choices=("trace", "exact", "fuzzy"),
        default="trace",
        help="which recordings ask for fuzzy answers: those that did when the trace was made, none, all",
    )
    parser.add_argument("--snr", type=float, default=20.0, metavar="DB", help="of noisy copies; default %(default)g")
    parser.add_argument("--connections", type=whole(1), default=4, metavar="N", help="of each process; default 4")
    parser.add_argument("--processes", type=whole(1), default=1, metavar="P", help="default 1")
    parser.add_argument(
        "--deadline", type=real(above=True), default=60.0, metavar="S", help="of each request; default 60"
    )
    parser.add_argument(
        "--control",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the load, 0 to 1, that is sent past the cache too, in rounds in turn with it",
    )
    parser.add_argument(
        "--round", type=float, default=10.0, metavar="S", help="of load or control; default %(default)g"
    )
    parser.add_argument(
        "--start-at",
        metavar="TIME",
        help="seconds since 1970; 'told': to be read from its input once it has said ready",
    )
    parser.add_argument("--part", default="1/1", metavar="I/N", help="this machine's part of the requests")
    spoken = Path.home() / ".cache" / "refrain" / "replay"
    parser.add_argument("--spoken", type=Path, default=spoken, metavar="DIR", help="keeps what is spoken to be sent")
    add_options(parser)
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--merge", action="store_true", help="add up reports instead of sending anything")
    parser.add_argument("--json", type=new_file, metavar="OUT", help="write the report")
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
    reports = []
    for path in paths:
        try:
            reports.append(json.loads(path.read_text()))
        except ValueError:
            raise CommandError(f"--merge {path}: not JSON, so no report of `refrain replay`") from None
    try:
        return merged(reports)
    except KeyError as error:
        raise CommandError(f"--merge: a report without {error}") from None
    except ValueError as error:
        raise CommandError(f"--merge {' '.join(map(str, paths))}: {error}") from None


def _replay(arguments: argparse.Namespace) -> dict[str, Any]:
    if len(arguments.trace) != 1:
        raise CommandError(f"{len(arguments.trace)} traces: one can be replayed at a time")
    at, of = _part(arguments.part)
    rounds = _rounds(arguments)
    inputs = Inputs(arguments.spoken)
    plan, digest = _plan(arguments, inputs)
    things, recorded, counts = with_recorded(arguments, plan.things)
    plan = replace(plan, things=things)
    if counts:
        print(f"recorded: {counts['recorded']:,} of {counts['of']:,} things asked for; the rest is made up", flush=True)
    numbered = enumerate(track(things.items, "preparing inputs", transient=True))
    requests = [recorded.get(number) or inputs.request(item) for number, item in numbered]
    schedule = scheduled(plan.due_s, rounds, arguments.seed)
    shares = list(_shares(arguments, plan, schedule, requests, at, of))
    about = {
        "trace": {
            "name": arguments.trace[0].name,
            "blake2b": digest,
            "requests": len(plan.due_s),
            "items": len(things.items),
        },
        "inputs": counts,
        "target": arguments.target,
        "pace": {"rate": arguments.rate, "speed": arguments.speed, "ramp": arguments.ramp},
        "seed": arguments.seed,
        "match": arguments.match,
        "snr_db": arguments.snr,
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
        why = str(error) or "nothing answers"
        raise CommandError(f"--target {arguments.target}: can't be reached: {why}") from None
    total = sum(len(share.asks) for share in shares)
    try:
        begin = _begin(arguments)
    except BaseException:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
        raise
    about["interrupted"] = _watch(workers, total, begin)
    results = [worker.result for worker in workers if worker.result is not None]
    counted = sum(int(((share.due_s >= arguments.warmup) & ~share.pairing.past).sum()) for share in shares)
    offered = counted / max(plan.span_s - arguments.warmup, 1e-9)
    return report_of(about, results, Sent(things, requests, rounds, offered))


def _begin(arguments: argparse.Namespace) -> float:
    """When to begin, by time.monotonic(): soon, or when `--start-at` says."""
    wanted = arguments.start_at
    if wanted is None:
        return time.monotonic() + 0.25
    if wanted == "told":
        print("ready", flush=True)
        wanted = sys.stdin.readline()
    if not re.fullmatch(r"\d+(\.\d*)?", wanted.strip()):
        raise CommandError(f"--start-at {wanted.strip()!r}: allowed are seconds since 1970, or told")
    left = float(wanted) - time.time()
    if left < 0:
        raise CommandError(f"--start-at {wanted.strip()}: that was {-left:.1f} s ago, before all was ready")
    return time.monotonic() + left


def _rounds(arguments: argparse.Namespace) -> Rounds:
    if not 0 <= arguments.control <= 1:
        raise CommandError(f"--control {arguments.control:g}: allowed is a share of the load, 0 to 1")
    if not 0 < arguments.round < float("inf"):
        raise CommandError(f"--round {arguments.round:g}: it must be above 0")
    return Rounds(arguments.control, arguments.round, arguments.warmup)


def _part(text: str) -> tuple[int, int]:
    at, _, of = text.partition("/")
    if not (at.isdecimal() and of.isdecimal() and 1 <= int(at) <= int(of)):
        raise CommandError(f"--part {text}: allowed is I/N with I from 1 to N")
    return int(at), int(of)


def _plan(arguments: argparse.Namespace, inputs: Inputs) -> tuple[Plan, str]:
    """What to send when, and a digest of what was in the trace."""
    if not -20 <= arguments.snr <= 80:
        raise CommandError(f"--snr {arguments.snr:g}: allowed is -20 to 80 dB")
    for name in ("rate", "speed"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise CommandError(f"--{name} {value:g}: it must be above 0")
    try:
        rows = trace_frames.load(arguments.trace[0], FIELDS)[: arguments.requests]
        phrases = read_phrases(arguments.phrases) if arguments.phrases else []
        known = remade(_header(arguments.trace[0]), rows, phrases)
        cast = Cast(inputs.voices(), inputs.moods(), phrases, arguments.task, arguments.snr, arguments.match)
        ramp = parse_ramp(arguments.ramp) if arguments.ramp else (0.0, 0.0, 0.0)
        rate = 0.0 if arguments.speed or arguments.ramp else arguments.rate or 50.0
        pace = Pace(rate, arguments.speed or 0.0, ramp)
        plan = plan_of(rows, pace, cast, arguments.seed, known)
    except (TraceError, OSError, ValueError) as error:
        raise CommandError(str(error)) from None
    if not len(plan.due_s):
        raise CommandError(f"{arguments.trace[0]}: holds no requests")
    return plan, hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()


def _header(path: Path) -> dict[str, Any]:
    """Of a trace in Refrain's form, empty of others."""
    files = trace_files(path) if path.is_dir() else [path] if path.name.endswith(".rft.gz") else []
    return read_header(files[0]) if files else {}


def _shares(
    arguments: argparse.Namespace, plan: Plan, schedule: Schedule, requests: Sequence[bytes], at: int, of: int
) -> Iterable[Share]:
    """Every N-th request of this machine's part for each process, with its control."""
    things = plan.things
    for process in range(arguments.processes):
        own = schedule.of((at - 1) + of * process, of * arguments.processes)
        yield Share(
            target=arguments.target,
            token=arguments.token,
            due_s=own.due_s,
            asks=things.asks[own.request],
            tasks=[item.task for item in things.items],
            requests=requests,
            connections=arguments.connections,
            warmup_s=arguments.warmup,
            deadline_s=arguments.deadline,
            kin=Kin(things.lead, [kind == COPY for kind in things.kinds]),
            pairing=own.pairing,
        )


def _watch(workers: Sequence[Worker], total: int, begin: float) -> bool:
    """Tells them all when to begin, shows how it goes, and takes their results. True when the user cut it short."""
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

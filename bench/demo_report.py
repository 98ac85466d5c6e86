"""How the demo ends: the report on its gateway's trace and counters, and what only the demo knows: right answers."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich
from rich.table import Table

from bench import report, trace_frames
from bench.machine import machine
from bench.miss_ratio import SAMPLE
from bench.report_document import Wanted
from bench.report_text import as_terminal
from bench.simulation import DEFAULT
from gateway.client import Info
from gateway.stats import human_seconds

if TYPE_CHECKING:
    from bench.demo import Log, Row

SHOWN: Final = ("What to do next", "Where answers came from", "What it saved")
"""Sections of the report that are printed; all are in the files."""
WANTED: Final = Wanted(DEFAULT, 0.05, 30 * 86_400.0, report.PRICE, SAMPLE)
FLUSHED_S: Final = 10.0


def report_on(trace: Path, target: str, requests: int, out: Path) -> dict[str, Any]:
    """Writes `refrain report`'s document on a gateway that runs into `out`, and prints the head of it. `requests`: how
    many its trace will hold."""
    _wait_for(trace, requests)
    told = report.made(WANTED, trace, target)
    report.show(told, out / "report.html", out / "report.json", out / "report.md")
    title, about, tiles, sections = report.parts(told)
    for part in as_terminal(title, about, tiles, [section for section in sections if section.title in SHOWN]):
        rich.print(part)
    return told


def _wait_for(trace: Path, requests: int) -> None:
    """The gateway writes its trace once a second."""
    until = time.monotonic() + FLUSHED_S
    while len(trace_frames.load(trace, ["status"])) < requests and time.monotonic() < until:
        time.sleep(0.1)


def tell_copies(log: Log) -> None:
    """What became of distorted copies, whose right answers only the demo knows."""
    table = Table(title="Copies of known recordings, asked for with --fuzzy", title_justify="left")
    for column in ("copy", "recalled", "of"):
        table.add_column(column, justify="left" if column == "copy" else "right")
    steps: Counter[str] = Counter(row.step for row in log.rows if "copy" in row.step or "restart:" in row.step)
    for step, count in steps.items():
        hits = sum(row.step == step and row.info.status == "HIT_FUZZY" for row in log.rows)
        table.add_row(step.removeprefix("copy: "), str(hits), str(count))
    rich.print(table)
    rich.print(
        f"Fuzzy answers that told what the original told: {log.right} of {log.right + log.wrong}. They were served from"
        " the first, and audited, because this demo sets require_proof = false; by default they begin by themselves"
        " once audits have shown that at most 0.5 % of them are wrong."
    )
    starts = f"first {log.notes['first_start_s']} s, second {log.notes['second_start_s']} s"
    rich.print(f"Start to SERVING: {starts}. The demo took {human_seconds(log.notes['seconds'])}.")


def by_source(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Info]]:
    """Task, status and tier to what came from there."""
    groups: dict[tuple[str, str, str], list[Info]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.info.status, row.info.tier].append(row.info)
    return dict(sorted(groups.items()))


def summary(log: Log, told: dict[str, Any]) -> dict[str, Any]:
    """The measured numbers, in the form of all benchmarks."""
    figures: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, target: float | None = None, holds: bool | None = None) -> None:
        figures.append({"name": name, "value": value, "unit": unit, "baseline": None, "target": target, "holds": holds})

    hits = sum(row.info.status.startswith("HIT") for row in log.rows)
    add("requests", len(log.rows), "requests")
    add("hit rate", hits / len(log.rows), "share")
    add("compute saved", sum(row.info.saved_ms for row in log.rows) / 1e3, "s")
    add("fuzzy answers", log.right + log.wrong, "answers")
    add("wrong fuzzy answers", log.wrong, "answers", 0, log.wrong == 0)
    restarted = [row for row in log.rows if row.step == "after restart"]
    kept = sum(row.info.status == "HIT_EXACT" for row in restarted)
    add("sentences remembered over a restart", kept / len(restarted), "share", 1.0, kept == len(restarted))
    unequal = sum(not row["equal"] for row in told["checks"])
    add("sums of the report that do not add up", unequal, "sums", 0, unequal == 0)
    add("duration", log.notes["seconds"], "s", 120.0, log.notes["seconds"] <= 120)
    for (task, status, tier), infos in by_source(log.rows).items():
        name = " ".join(part for part in (task, status, tier) if part)
        add(f"{name}: median latency", statistics.median(info.elapsed_s for info in infos) * 1e3, "ms")
        add(f"{name}: requests", len(infos), "requests")
    return {"figures": figures, "context": {**machine(), **log.notes}}

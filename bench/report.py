"""`refrain report`: what a gateway was worth, as one document that people send round.

    refrain report --trace FILE [--target HOST:PORT] [--replay JSON] [--html OUT] [--json OUT] [--markdown OUT]

The computing is apart from the showing: report_counts, _keys, _misses, _time, miss_ratio and _advice find the figures,
report_document puts them into one JSON document, report_sections into words, and report_html and report_text show
those. docs/report.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Final

import rich

from bench.machine import machine
from bench.miss_ratio import SAMPLE
from bench.replay_report import VERSION as REPLAY_VERSION
from bench.report_document import Wanted, document
from bench.report_html import as_html
from bench.report_parts import Section, Tile, utc
from bench.report_sections import sections, tiles
from bench.report_text import as_markdown, as_terminal
from bench.simulation import DEFAULT, POLICIES
from gateway.arguments import new_file, real, server, whole
from gateway.cli import CommandError
from gateway.client import RefrainCallError, RefrainClient
from gateway.trace import TraceError

TITLE: Final = "Refrain: what was answered from memory"
PRICE: Final = 2.0
"""Of a GPU hour, where none is given; said in every report."""
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def register(parser: argparse.ArgumentParser) -> None:
    """Says what a gateway was worth: hits, why not more, what it saved, what more memory would bring."""
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="see `refrain trace`; a folder of a gateway's will do"
    )
    parser.add_argument("--target", type=server, metavar="HOST:PORT", help="a gateway whose counters and audits to add")
    parser.add_argument("--replay", type=Path, metavar="JSON", help="a report of `refrain replay` to add")
    parser.add_argument("--token", default=os.environ.get("REFRAIN_TOKEN", ""), help="better given as REFRAIN_TOKEN")
    parser.add_argument("--html", type=new_file, metavar="OUT", help="one file, without scripts")
    parser.add_argument("--json", type=new_file, metavar="OUT")
    parser.add_argument("--markdown", type=new_file, metavar="OUT")
    parser.add_argument("--price", type=real(), default=PRICE, metavar="P", help="of a GPU hour; default %(default)s")
    parser.add_argument(
        "--first-tier", default="5%", metavar="SIZE",
        help="of memory to reckon with, as 256MiB or as a share of all answers; that of --target if given, else 5%%",
    )  # fmt: skip
    parser.add_argument(
        "--policy", choices=tuple(POLICIES), default=DEFAULT, help="of the first tier; default %(default)s"
    )
    parser.add_argument("--ttl-days", type=float, default=30.0, metavar="D", help="how long answers live; default 30")
    parser.add_argument(
        "--sample",
        type=whole(),
        default=SAMPLE,
        metavar="N",
        help="requests to simulate; default %(default)s, 0 for all",
    )
    parser.add_argument("--seed", type=whole(), default=0, help="of the sample; default %(default)s")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises `CommandError`."""
    if not (arguments.trace or arguments.target or arguments.replay):
        raise CommandError("nothing to report on: give --trace, --target or --replay, or several of them")
    wanted = Wanted(
        arguments.policy, _size(arguments.first_tier), _positive("--ttl-days", arguments.ttl_days) * 86_400,
        arguments.price, arguments.sample or 1 << 62, arguments.seed,
    )  # fmt: skip
    replay = _replay(arguments.replay) if arguments.replay else None
    told = made(wanted, arguments.trace, arguments.target, arguments.token, replay)
    show(told, arguments.html, arguments.json, arguments.markdown)
    return 0


def made(
    wanted: Wanted, trace: Path | None, target: str = "", token: str = "", replay: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The document, with what only a command knows: when and where it was made. Raises `CommandError`."""
    told_by_gateway = _asked(target, token) if target else {}
    try:
        told = document(wanted, trace=trace, replay=replay, **told_by_gateway)
    except (TraceError, OSError) as error:
        raise CommandError(str(error)) from None
    return told | {"made": utc(time.time()), "machine": machine() | {"processor": _processor()}}


def parts(told: dict[str, Any]) -> tuple[str, str, list[Tile], list[Section]]:
    """Title, what it is about, the figures on top and the sections: what HTML, Markdown and the terminal show."""
    trace = told.get("trace")
    about = f"Made {told['made']} UTC."
    if trace:
        made = "Synthesized: nobody's requests. " if trace.get("synthesized") else ""
        span = f"{utc(trace['first_us'] / 1e6)} to {utc(trace['last_us'] / 1e6)} UTC"
        about = f"Of the requests in {trace['name']}, {span}. {made}{about}"
    return TITLE, about, tiles(told), sections(told)


def show(told: dict[str, Any], html: Path | None, out: Path | None, markdown: Path | None) -> None:
    """Writes a report where asked to, and to the terminal where nothing was asked for."""
    shown = parts(told)
    try:
        for path, text in (
            (html, lambda: as_html(*shown)),
            (out, lambda: json.dumps(told, indent=1) + "\n"),
            (markdown, lambda: as_markdown(*shown)),
        ):
            if path:
                path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise CommandError(str(error)) from None
    if not (html or out or markdown):
        for part in as_terminal(*shown):
            rich.print(part)


def _asked(target: str, token: str) -> dict[str, Any]:
    """What it has counted, when it began to (seconds since 1970, or a little before), its engines and judged pairs."""
    try:
        with RefrainClient(target, token=token) as client:
            now = time.time()
            stats = client.stats()
            return {
                "stats": stats,
                "started_s": now - stats.uptime_s,
                "engines": client.list_models(),
                "pairs": client.audited_pairs(),
            }
    except RefrainCallError as error:
        raise CommandError(f"--target {target}: {error}") from None


def _replay(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CommandError(f"--replay {path}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"--replay {path}: not JSON, so no report of `refrain replay`") from None
    if not isinstance(found, dict) or (found.get("kind"), found.get("version")) != ("refrain replay", REPLAY_VERSION):
        raise CommandError(f"--replay {path}: not a report of `refrain replay`, version {REPLAY_VERSION}")
    return found


def _size(text: str) -> float:
    """Bytes, or a share up to 1."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        share = float(found[1]) / 100
        if 0 < share <= 1:
            return share
    elif (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?((?:[KMGT]iB)?)", text)) and float(found[1]) >= 1:
        return float(found[1]) * _UNITS[found[2]]
    raise CommandError(f"--first-tier {text}: allowed are sizes such as 256MiB or 1000000, and shares such as 5%")


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise CommandError(f"{name} {value:g}: it must be above 0")
    return value


def _processor() -> str:
    """What the machine says its processor is; empty where it does not."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""

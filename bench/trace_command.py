"""`refrain trace`: what is in a trace of requests, its first records, and the same trace in another form."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich
from rich.progress import Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text as RichText

from bench import trace_frames, trace_synth
from bench.trace_facts import Facts, facts
from gateway.cli import CommandError
from gateway.input_files import input_files
from gateway.stats import human_bytes, human_seconds
from gateway.trace import TraceError


def register(parser: argparse.ArgumentParser) -> None:
    """Looks into a trace of requests, or converts it."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    forms = "a folder of *.rft.gz, or a file *.rft.gz, *.parquet, *.csv, *.oracleGeneral or *.keys.txt[.gz]"

    info = commands.add_parser("info", help="how much repeats, how heavy the head is, what was answered whence")
    info.add_argument("trace", type=Path, help=forms)
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=lambda arguments: _info(arguments.trace, as_json=arguments.json))

    head = commands.add_parser("head", help="the first records")
    head.add_argument("trace", type=Path, help=forms)
    head.add_argument("-n", dest="count", type=int, default=10, metavar="RECORDS", help="default %(default)s")
    head.set_defaults(run=lambda arguments: _head(arguments.trace, arguments.count))

    convert = commands.add_parser("convert", help="the same trace in another form")
    convert.add_argument("trace", type=Path, help=forms)
    convert.add_argument("out", type=Path, help="*.rft.gz, *.parquet, *.csv or *.oracleGeneral")
    convert.set_defaults(run=lambda arguments: _convert(arguments.trace, arguments.out))

    made = commands.add_parser("synth", help="a trace that nobody recorded: speech-like requests, simulated answers")
    trace_synth.add_options(made)
    made.set_defaults(run=_synth)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (TraceError, OSError) as error:
        raise CommandError(str(error)) from None


def _info(path: Path, *, as_json: bool) -> int:
    with _readable():
        found = facts(path)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        for table in _tables(found):
            rich.print(table)
        _tell_inputs(path)
    return 0


def _tell_inputs(path: Path) -> None:
    """Of a gateway's own folder, whether inputs were recorded beside it."""
    folder = path.absolute().parent / "inputs"
    if path.is_dir() and (files := input_files(folder)):
        size = sum(file.stat().st_size for file in files)
        print(f"recorded inputs, {human_bytes(size)} of them: refrain replay {path} --inputs {folder}")


def _tables(found: Facts) -> Iterator[Table]:
    about = Table(show_header=False, box=None)
    about.add_column(justify="right")
    for name, value in (
        (f"{found.requests:,}", f"requests, {found.distinct:,} distinct, of {found.tenants} tenants"),
        (human_seconds(found.span_s), "from the first to the last"),
        (human_bytes(found.bytes_in), "asked"),
        (human_bytes(found.bytes_out), "answered"),
        (f"{found.repeats:.1%}", "of requests had come before: what an endless cache could have answered"),
        (f"{found.once:.1%}", "of the distinct came once"),
        (f"{found.head_10:.1%}", "of requests were for the ten commonest"),
        (f"{found.head_100:.1%}", "for the hundred commonest"),
        (f"{found.zipf:.2f}" if found.zipf else "-", "exponent of the power law of the head"),
    ):
        about.add_row(name, value)
    yield about
    answers = Table("task", "outcome", "tier", "requests", "compute")
    for column in answers.columns[3:]:
        column.justify = "right"
    for task, status, tier, requests, seconds in found.rows:
        answers.add_row(
            task, "" if status == "STATUS_UNSPECIFIED" else status, tier, f"{requests:,}", human_seconds(seconds)
        )
    yield answers


def _head(path: Path, count: int) -> int:
    if count < 1:
        raise CommandError(f"-n {count}: at least 1 record can be shown")
    lines = [["time", "task", "outcome", "tier", "cause", "digest", "tenant", "in", "out", "compute", "latency"]]
    with _readable():
        rows = itertools.chain.from_iterable(trace_frames.read(path))
        lines += [_cells(row) for row in itertools.islice(rows, count)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:  # plain text, however wide: it is for looking at and for other programs
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _cells(row: Any) -> list[str]:
    seconds, micros = divmod(int(row["time_us"]), 1_000_000)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}"
    names = [trace_frames.name_of(field, int(row[field])) for field in ("task", "status", "tier", "cause")]
    names = [name if name not in ("", "STATUS_UNSPECIFIED") else "-" for name in names]
    digests = [f"{int(row['digest']):016x}", f"{int(row['tenant']):08x}"]
    sizes = [human_bytes(int(row[field])) for field in ("bytes_in", "bytes_out")]
    return [at, *names, *digests, *sizes, *(human_seconds(row[field] / 1e3) for field in ("cost_ms", "latency_ms"))]


class _Rate(ProgressColumn):
    """Records a second; nothing before the first ones."""

    def render(self, task: Task) -> RichText:
        return RichText(f"{task.speed:,.0f} a second" if task.speed else "")


def _convert(path: Path, out: Path) -> int:
    if out.resolve() == path.resolve():
        raise CommandError(f"{out}: is the trace itself; name another file")
    columns = (TextColumn("{task.completed:>13,.0f} records"), _Rate(), TimeElapsedColumn())
    with _readable(), Progress(*columns) as progress:
        task = progress.add_task("")

        def counted() -> Iterator[trace_frames.Rows]:
            for piece in trace_frames.read(path):
                yield piece
                progress.advance(task, len(piece))

        count = trace_frames.write(counted(), out)
    print(f"{out}: {count:,} records, {human_bytes(out.stat().st_size)}")
    return 0


def _synth(arguments: argparse.Namespace) -> int:
    shape = trace_synth.shape_of(arguments)
    phrases = trace_synth.read_phrases(arguments.phrases) if arguments.phrases else []
    facts = {"seed": arguments.seed, **dataclasses.asdict(shape)}
    with _readable():
        rows = trace_synth.synth(shape, arguments.seed, phrases)
        count = trace_frames.write(trace_synth.pieces(rows), arguments.out, synthesized=facts)
    print(f"{arguments.out}: {count:,} records, {human_bytes(arguments.out.stat().st_size)}")
    return 0

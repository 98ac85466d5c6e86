"""Traces of requests: what was asked for, how large its answer is and what that answer costs to make.

Two forms of file, each plain or gzip: NAME.keys.txt with one key a line (all of size and cost 1), and CSV with a header
that names `key` and, where known, `size` (bytes) and `cost_ms`. A key that is no number is numbered by first
appearance; so are all, which makes results independent of how keys are named.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from dataclasses import dataclass, replace
from pathlib import Path

UNIT_COST = 1.0


class TraceError(ValueError):
    """A file that is no trace. Its text names the file, the line and what is allowed."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, as three columns."""

    name: str
    keys: list[int]
    sizes: list[int]
    costs: list[float]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def of_one_size(self) -> bool:
        return len(set(self.sizes)) == 1

    @property
    def of_one_cost(self) -> bool:
        return len(set(self.costs)) == 1

    def of_equal_sizes(self) -> Trace:
        return replace(self, sizes=[1] * len(self))

    def even(self) -> Trace:
        """The same requests with answers of one size and one cost."""
        return of_keys(self.name, self.keys)

    @property
    def size_of_all(self) -> int:
        """Bytes of all distinct keys together, each at its first size."""
        return sum(dict(zip(reversed(self.keys), reversed(self.sizes), strict=True)).values())


def of_keys(name: str, keys: list[int]) -> Trace:
    return Trace(name, keys, [1] * len(keys), [UNIT_COST] * len(keys))


def read_trace(path: Path) -> Trace:
    """Raises `TraceError`, and OSError where there is no such file."""
    name = path.name
    data = path.read_bytes()
    if name.endswith(".gz"):
        name = name[:-3]
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise TraceError(f"{path}: not gzip: {error}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: not UTF-8 text: {error}") from None
    if name.endswith(".csv"):
        trace = _read_csv(path, name[:-4], text)
    elif name.endswith(".keys.txt"):
        numbers: dict[str, int] = {}
        trace = of_keys(name[:-9], [numbers.setdefault(key, len(numbers)) for key in text.split()])
    else:
        raise TraceError(f"{path}: a trace is NAME.keys.txt or NAME.csv, or either with .gz")
    if not len(trace):
        raise TraceError(f"{path}: no requests in it")
    return trace


def _read_csv(path: Path, name: str, text: str) -> Trace:
    rows = csv.DictReader(io.StringIO(text))
    if "key" not in (rows.fieldnames or ()):
        raise TraceError(f"{path}: the first line is {rows.fieldnames}; it must name key, and may size and cost_ms")
    numbers: dict[str, int] = {}
    keys, sizes, costs = [], [], []
    for line, row in enumerate(rows, 2):
        try:
            size, cost = int(row.get("size") or 1), float(row.get("cost_ms") or UNIT_COST)
        except ValueError as error:
            raise TraceError(f"{path}, line {line}: {error}; size is whole bytes, cost_ms a number") from None
        if size < 1 or not 0 <= cost < float("inf"):
            raise TraceError(
                f"{path}, line {line}: size {size}, cost_ms {cost}: size is at least 1, cost_ms at least 0"
            )
        keys.append(numbers.setdefault(row["key"], len(numbers)))
        sizes.append(size)
        costs.append(cost)
    return Trace(name, keys, sizes, costs)


def of_counts(path: Path, seed: int) -> Trace:
    """Recordings of phrases in a random order, from a CSV whose column `count` says how often each was recorded."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if "count" not in (rows.fieldnames or ()):
            raise TraceError(f"{path}: the first line is {rows.fieldnames}; it must name count")
        keys: list[int] = []
        for number, row in enumerate(rows):
            if not (row["count"] or "").isdigit():
                raise TraceError(f"{path}, line {number + 2}: count {row['count']!r}; allowed are whole numbers")
            keys += [number] * int(row["count"])
    if not keys:
        raise TraceError(f"{path}: no recordings in it")
    random.Random(seed).shuffle(keys)
    return of_keys(path.stem, keys)


def renamed(trace: Trace, seed: int) -> Trace:
    """The same requests under other names: what depends on the hash of a key comes out otherwise."""
    chance = random.Random(seed)
    names: dict[int, int] = {}
    keys = [names[key] if key in names else names.setdefault(key, chance.getrandbits(60)) for key in trace.keys]
    return replace(trace, keys=keys)


def write_trace(path: Path, trace: Trace) -> None:
    """As CSV, compressed where the name ends in .gz, the same bytes for the same trace."""
    lines = ["key,size,cost_ms"]
    lines += [f"{key},{size},{cost:.4g}" for key, size, cost in zip(trace.keys, trace.sizes, trace.costs, strict=True)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

"""Traces as arrays, in every form they come in, read and written in pieces of bounded size.

| form | name | what it holds |
|---|---|---|
| Refrain's | a folder, or *.rft.gz | all fields; gateway/trace.py |
| Parquet, CSV | *.parquet, *.csv, *.csv.gz | all fields; `digest` or `key` is enough; `size` is bytes_out |
| libCacheSim's oracleGeneral | *.oracleGeneral | second, digest, bytes of the answer, index of the next access |
| keys | *.keys.txt, *.keys.txt.gz | one key a line, in order of arrival |

What a form does not hold is zero. The oracleGeneral record is that of libCacheSim's oracleGeneral.h: packed,
little-endian u32 second, u64 object, u32 size, i64 index of the next access (-1: none); 24 bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from gateway.stats import CAUSES, STATUSES
from gateway.trace import OTHER, TASK_CODES, TIER_CODES, TraceError, header, read_pieces, trace_files

ROW: Final = np.dtype(
    [(name, "<u8") for name in ("time_us", "digest", "input")]
    + [(name, "<u4") for name in ("tenant", "voice", "emotion", "engine", "language", "bytes_in", "bytes_out")]
    + [(name, "<f4") for name in ("cost_ms", "latency_ms", "first_ms", "lookup_ms", "similarity")]
    + [(name, "u1") for name in ("task", "status", "tier", "streaming", "cause")]
    + [("padding", "V3")]
)
"""gateway.trace.RECORD; a digest or a name's hash is the number that its bytes are, 0 where there is none."""
Rows = npt.NDArray[np.void]
"""One dimension, of ROW."""
FIELDS: Final = tuple(name for name in ROW.names or () if name != "padding")
NAMES: Final[dict[str, dict[str, int]]] = {
    "task": {"": 0, **TASK_CODES, "other": OTHER},
    "status": {name: code for code, name in enumerate(STATUSES)},
    "tier": {**TIER_CODES, "other": OTHER},
    "cause": {name: code for code, name in enumerate(CAUSES)},
}
"""The codes of a field."""
PIECE: Final = 1 << 17
"""Rows that are in memory at once when a trace is gone through: 10 MB."""
_ORACLE: Final = np.dtype([("second", "<u4"), ("digest", "<u8"), ("bytes_out", "<u4"), ("next", "<i8")])
_ALIASES: Final = {"key": "digest", "size": "bytes_out"}


def read(path: Path) -> Iterator[Rows]:
    """The trace in order, in pieces of some PIECE rows. Raises `TraceError`, `OSError`."""
    name = path.name
    if not path.exists():
        raise TraceError(f"{path}: no such file or folder")
    if path.is_dir() and not trace_files(path):
        raise TraceError(f"{path}: a folder without a trace; a gateway's is `trace` in its data folder")
    if path.is_dir() or name.endswith(".rft.gz"):
        return (_recoded(about, np.frombuffer(data, ROW)) for about, data in read_pieces(path))
    if name.endswith(".parquet"):
        return _of_parquet(path)
    if name.endswith((".csv", ".csv.gz")):
        return _of_csv(path)
    if name.endswith(".oracleGeneral"):
        return _of_oracle(path)
    if name.endswith((".keys.txt", ".keys.txt.gz")):
        return _of_keys(path)
    forms = "a folder, *.rft.gz, *.parquet, *.csv, *.csv.gz, *.oracleGeneral, *.keys.txt, *.keys.txt.gz"
    raise TraceError(f"{path}: its name is not that of a trace; known are {forms}")


def load(path: Path, fields: Sequence[str]) -> Rows:
    """Some fields of all rows, in memory."""
    wanted = np.dtype([(name, ROW[name]) for name in fields])
    return np.concatenate([np.empty(0, wanted), *(piece[list(fields)].astype(wanted) for piece in read(path))])


def write(pieces: Iterable[Rows], path: Path, **facts: Any) -> int:
    """Writes rows in the form that the name asks for; returns how many. Raises `TraceError`, `OSError`.

    `facts` about the trace go into its header, in the form that has one: Refrain's.
    """
    forms: dict[str, Callable[[Iterable[Rows], Path], int]] = {
        ".rft.gz": partial(_write_refrain, **facts),
        ".parquet": _write_parquet,
        ".csv": _write_csv,
        ".oracleGeneral": _write_oracle,
    }
    for suffix, written in forms.items():
        if path.name.endswith(suffix):
            return written(pieces, path)
    allowed = ", ".join(f"*{form}" for form in forms)
    raise TraceError(f"{path}: its name does not say what to write; allowed are {allowed}")


def of_names(field: str, values: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The codes of names; unknown ones are OTHER, or 0 where a field has no "other"."""
    codes = NAMES[field]
    return np.array([codes.get(value, codes.get("other", 0)) for value in values], "u1")


def name_of(field: str, code: int) -> str:
    """What a code of the field stands for."""
    return next((name for name, known in NAMES[field].items() if known == code), "other")


def _recoded(about: dict[str, Any], rows: Rows) -> Rows:
    """Rows with today's codes, where the gateway that wrote them had others."""
    theirs: dict[str, dict[str, int]] = {"task": about["tasks"], "tier": about["tiers"]}
    for field, names in (("status", about["statuses"]), ("cause", about["causes"])):
        theirs[field] = {name: code for code, name in enumerate(names)}
    for field, codes in theirs.items():
        table = np.arange(256, dtype="u1")
        for name, code in codes.items():
            table[code] = NAMES[field].get(name, OTHER)
        if (table[list(codes.values())] != list(codes.values())).any():
            rows = rows.copy()
            rows[field] = table[rows[field]]
    return rows


def _of_parquet(path: Path) -> Iterator[Rows]:
    try:
        yield from _of_arrow(pa.parquet.ParquetFile(path).iter_batches(PIECE), path)
    except pa.ArrowInvalid as error:
        raise TraceError(f"{path}: {error}") from None


def _of_arrow(batches: Iterable[pa.RecordBatch], path: Path) -> Iterator[Rows]:
    for batch in batches:
        rows = np.zeros(batch.num_rows, ROW)
        columns = {_ALIASES.get(name, name): batch.column(name) for name in batch.schema.names}
        if "digest" not in columns:
            raise TraceError(f"{path}: no column `digest` or `key`; it has {', '.join(batch.schema.names)}")
        for name in FIELDS:
            if name in columns:
                rows[name] = _column(name, columns[name], path)
        yield rows


def _column(name: str, column: Any, path: Path) -> npt.NDArray[Any]:
    """One column as numbers: names by their codes, and where text stands for a number, the text's digest."""
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if name not in NAMES:
            try:
                numbers: npt.NDArray[Any] = np.asarray(pyarrow.compute.cast(column, pa.uint64()))
                return numbers
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # not all of them are numbers
                pass
        column = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        values = [value or "" for value in column.dictionary.to_pylist()]
        coded: npt.NDArray[Any] = (
            of_names(name, values) if name in NAMES else np.array([_digest(value) for value in values], "<u8")
        )
        spread: npt.NDArray[Any] = coded[np.asarray(column.indices)]
        return spread
    try:
        wanted = pa.bool_() if name == "streaming" else pa.from_numpy_dtype(ROW[name])
        cast: npt.NDArray[Any] = np.asarray(pyarrow.compute.cast(column, wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TraceError(f"{path}: column {name}: {error}") from None
    return cast


def _of_csv(path: Path) -> Iterator[Rows]:
    try:
        texts = ("digest", "key", "input", *NAMES)  # what Arrow took for a number might not be all of it
        plain = [name for name in FIELDS if name not in (*texts, "streaming")]
        types = {name: pa.from_numpy_dtype(ROW[name]) for name in plain} | dict.fromkeys(texts, pa.string())
        options = pa.csv.ConvertOptions(column_types=types)
        yield from _of_arrow(pa.csv.open_csv(path, convert_options=options), path)
    except pa.ArrowInvalid as error:
        raise TraceError(f"{path}: {error}") from None


def _of_oracle(path: Path) -> Iterator[Rows]:
    with path.open("rb") as file:
        for data in iter(lambda: file.read(PIECE * _ORACLE.itemsize), b""):
            if len(data) % _ORACLE.itemsize:
                raise TraceError(f"{path}: ends within a record of {_ORACLE.itemsize} bytes")
            found = np.frombuffer(data, _ORACLE)
            rows = np.zeros(len(found), ROW)
            rows["digest"], rows["bytes_out"] = found["digest"], found["bytes_out"]
            rows["time_us"] = found["second"].astype(np.uint64) * 1_000_000
            yield rows


def _of_keys(path: Path) -> Iterator[Rows]:
    known: dict[str, int] = {}
    with gzip.open(path, "rt") if path.name.endswith(".gz") else path.open() as lines:
        while digests := [known.setdefault(line, _digest(line)) for line in map(str.strip, _some(lines)) if line]:
            rows = np.zeros(len(digests), ROW)
            rows["digest"] = digests
            yield rows


def _some(lines: Iterator[str]) -> Iterator[str]:
    return (line for _, line in zip(range(PIECE), lines, strict=False))


def _digest(text: str) -> int:
    """A number as it is; of other text a digest."""
    if text.isdecimal() and len(text) < 20:
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _write_refrain(pieces: Iterable[Rows], path: Path, **facts: Any) -> int:
    count = 0
    zipped = zlib.compressobj(level=1, wbits=31)
    with path.open("wb") as file:
        file.write(zipped.compress(header(key_id="", converted=True, **facts)))
        for piece in pieces:
            count += len(piece)
            file.write(zipped.compress(piece.tobytes()))
        file.write(zipped.flush())
    return count


def _arrow(rows: Rows) -> pa.RecordBatch:
    columns = {}
    for name in FIELDS:
        values = np.ascontiguousarray(rows[name])
        if name in NAMES:
            names = np.full(256, "other", object)
            for text, code in NAMES[name].items():
                names[code] = text
            columns[name] = pa.array(names[values], pa.string())
        else:
            columns[name] = pa.array(values.astype(bool) if name == "streaming" else values)
    return pa.RecordBatch.from_pydict(columns)


def _write_parquet(pieces: Iterable[Rows], path: Path) -> int:
    schema, count = _arrow(np.zeros(0, ROW)).schema, 0
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for piece in pieces:
            writer.write_batch(_arrow(piece))
            count += len(piece)
    return count


def _write_csv(pieces: Iterable[Rows], path: Path) -> int:
    count = 0
    with pa.csv.CSVWriter(path, _arrow(np.zeros(0, ROW)).schema) as writer:
        for piece in pieces:
            writer.write_batch(_arrow(piece))
            count += len(piece)
    return count


def _write_oracle(pieces: Iterable[Rows], path: Path) -> int:
    """Twice over the trace would be needed to know the next access of each; the rows it needs are kept instead."""
    kept = [piece[["time_us", "digest", "bytes_out"]] for piece in pieces]
    rows = np.concatenate(kept) if kept else np.empty(0, ROW)[["time_us", "digest", "bytes_out"]]
    out = np.zeros(len(rows), _ORACLE)
    out["second"], out["digest"], out["bytes_out"] = rows["time_us"] // 1_000_000, rows["digest"], rows["bytes_out"]
    out["next"] = next_access(rows["digest"])
    out.tofile(path)
    return len(rows)


def next_access(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """For each position that of the next equal key, -1 where there is none."""
    order = np.argsort(keys, kind="stable")
    found = np.full(len(keys), -1, np.int64)
    same = keys[order[1:]] == keys[order[:-1]]
    found[order[:-1][same]] = order[1:][same]
    return found

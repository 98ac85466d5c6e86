"""Traces in every form they come in: what one form holds, another gives back."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench import trace_frames as frames
from gateway.observe import Outcome
from gateway.stats import HIT_EXACT, MISS, SPARED
from gateway.trace import RECORD, AccessTrace, TraceError

ALL = list(frames.FIELDS)


def rows(count: int, seed: int = 1) -> frames.Rows:
    rng = np.random.default_rng(seed)
    made = np.zeros(count, frames.ROW)
    made["time_us"] = 1_700_000_000_000_000 + np.arange(count) * 1_000_000
    for name in ("digest", "input"):
        made[name] = rng.integers(1, 2**64, count, np.uint64)
    for name in ("tenant", "voice", "bytes_in", "bytes_out"):
        made[name] = rng.integers(0, 2**32, count, np.uint32)
    made["cost_ms"] = rng.lognormal(3, 1, count)
    made["task"], made["status"] = rng.integers(1, 5, count), rng.integers(1, 6, count)
    made["tier"], made["cause"] = rng.integers(0, 3, count), rng.integers(0, 8, count)
    made["streaming"] = rng.integers(0, 2, count)
    return made


def test_a_row_is_a_record_of_the_gateways_trace() -> None:
    assert frames.ROW.itemsize == RECORD.size


@pytest.mark.parametrize("form", ["t.rft.gz", "t.parquet", "t.csv"])
def test_forms_that_hold_everything_give_everything_back(tmp_path: Path, form: str) -> None:
    made = rows(1000)
    assert frames.write([made[:300], made[300:]], tmp_path / form) == 1000
    assert frames.load(tmp_path / form, ALL).tolist() == made[ALL].tolist()
    assert frames.load(tmp_path / form, ["digest", "task"]).tolist() == made[["digest", "task"]].tolist()


def test_a_trace_of_a_gateway_is_read(tmp_path: Path) -> None:
    trace = AccessTrace(tmp_path / "trace", bytes(range(32)), wall=lambda: 1_700_000_000.0)
    outcome = Outcome("recognize", "acme", MISS, bytes_in=32_000, compute_ms=70.0, digest=b"d" * 32, cause=SPARED)
    for status in (MISS, HIT_EXACT):
        outcome.status = status
        trace.add(outcome)
    trace.close()
    found = frames.load(tmp_path / "trace", ALL)
    assert found["digest"][0] == found["digest"][1] != 0
    assert [frames.name_of("status", code) for code in found["status"]] == ["MISS", "HIT_EXACT"]
    assert frames.name_of("task", found["task"][0]) == "recognize"
    assert frames.name_of("cause", found["cause"][0]) == "spared"
    assert found["cost_ms"].tolist() == [70.0, 70.0]


def test_oracle_general_keeps_what_it_has_room_for(tmp_path: Path) -> None:
    made = rows(5)
    made["digest"] = [7, 9, 7, 7, 3]
    path = tmp_path / "t.oracleGeneral"
    frames.write([made[:2], made[2:]], path)
    assert path.stat().st_size == 5 * 24
    assert np.fromfile(path, "<i8", offset=16, count=1)[0] == 2, "packed; the next access of the first"
    found = frames.load(path, ["time_us", "digest", "bytes_out"])
    assert found.tolist() == made[["time_us", "digest", "bytes_out"]].tolist()
    assert frames.next_access(made["digest"]).tolist() == [2, -1, 3, -1, -1]


def test_keys_in_lines(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.keys.txt.gz", "wt") as file:
        file.write("12\nturn it on\n12\n\nturn it off\n")
    digests = frames.load(tmp_path / "t.keys.txt.gz", ["digest"])["digest"].tolist()
    assert digests[0] == digests[2] == 12
    assert len(set(digests)) == 3


def test_a_csv_of_others_is_read_by_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,size,cost_ms\nhello,100,7.5\nhello,100,7.5\ngoodbye,50,2\n")
    found = frames.load(tmp_path / "t.csv", ["digest", "bytes_out", "cost_ms"])
    assert found["bytes_out"].tolist() == [100, 100, 50]
    assert found["cost_ms"].tolist() == [7.5, 7.5, 2.0]
    assert found["digest"][0] == found["digest"][1] != found["digest"][2]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.doc", b"", "not that of a trace"),
        ("t.csv", b"a,b\n1,2\n", "no column `digest` or `key`; it has a, b"),
        ("t.csv", b"digest,bytes_in\n1,many\n", "many"),
        ("t.oracleGeneral", b"x" * 25, "ends within a record"),
        ("t.rft.gz", gzip.compress(b"something else"), "not a Refrain trace"),
    ],
)
def test_what_is_no_trace_is_refused_by_name(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError, match=why):
        frames.load(tmp_path / name, ["digest"])


def test_only_known_forms_are_written(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"allowed are \*\.rft\.gz"):
        frames.write([], tmp_path / "t.keys.txt")

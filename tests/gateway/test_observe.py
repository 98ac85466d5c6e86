"""Outcomes add up wherever they are read; the trace holds them all, nothing in clear, and fails no call."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe import BOUNDS, Observer, Outcome, configure_logging, quantile
from gateway.stats import BYPASS, COALESCED, HIT_EXACT, HIT_FUZZY, MISS, SPARED, STATUSES, TASKS, Tally
from gateway.trace import RECORD, AccessTrace, TraceError, read_header, read_trace, trace_files
from protos.refrain.v1 import speech_pb2

KEY = bytes(range(32))


def hit(**changes: object) -> Outcome:
    outcome = Outcome("recognize", "default", HIT_EXACT, "device", 0.001, 0.0005, 32_000, 400, 0.0, 143.0, 0.05, 1.0)
    outcome.digest, outcome.voice, outcome.emotion, outcome.engine = b"d" * 32, "amy", "calm", "e1"
    outcome.language = "en-US"
    for name, value in changes.items():
        setattr(outcome, name, value)
    return outcome


def test_status_names_are_those_of_the_proto() -> None:
    assert {name: number for number, name in enumerate(STATUSES)} == dict(speech_pb2.CacheInfo.Status.items())


@given(
    st.lists(
        st.tuples(st.sampled_from(TASKS), st.integers(HIT_EXACT, BYPASS), st.sampled_from(["", "device", "redis"]))
    )
)
def test_hits_misses_coalesced_and_bypassed_make_up_the_requests(seen: list[tuple[str, int, str]]) -> None:
    observer = Observer()
    for task, status, tier in seen:
        observer.record(Outcome(task, "default", status, tier))
        observer.failed(task, "INTERNAL")
    total = Tally.of(observer.snapshot("default"))
    assert total.requests == len(seen) == observer.failures("default")
    assert total.hits + total.misses + total.coalesced + total.bypassed == total.requests


def test_tenants_see_their_own() -> None:
    observer = Observer()
    observer.record(hit(tenant="acme"))
    observer.record(hit(tenant="beta", status=MISS, tier="", compute_ms=150.0, saved_ms=0.0))
    observer.failed("recognize", "INTERNAL", "acme")
    (row,) = observer.snapshot("acme")
    assert (row.task, row.status, row.tier, row.requests, row.bytes) == ("recognize", HIT_EXACT, "device", 1, 32_400)
    assert (row.compute_s, row.saved_s) == (0.0, 0.143)
    assert (observer.failures("acme"), observer.failures("beta")) == (1, 0)


def test_a_status_that_is_none_is_a_bug_of_the_caller() -> None:
    for status in (0, 6):
        with pytest.raises(ValueError, match="outcome status"):
            Observer().record(hit(status=status))


def test_only_known_numbers_are_watched() -> None:
    with pytest.raises(ValueError, match="known are flights"):
        Observer().watch("flihgts", lambda: 0)


@given(st.lists(st.floats(2e-5, 99.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_quantiles_are_within_a_bucket(times: list[float], share: float) -> None:
    observer = Observer()
    for latency_s in times:
        observer.record(hit(latency_s=latency_s))
    (row,) = observer.snapshot("default")
    true = sorted(times)[math.ceil(share * len(times)) - 1]
    assert (row.p50_s if share == 0.5 else row.p99_s) == pytest.approx(true, rel=0.15)


def test_quantiles_at_the_edges() -> None:
    assert quantile([0] * (len(BOUNDS) + 1), 0.5) == 0.0
    assert quantile([0] * len(BOUNDS) + [3], 0.5) == 100.0
    assert 0 < quantile([5] + [0] * len(BOUNDS), 0.5) <= 1e-5
    assert list(BOUNDS) == sorted(set(BOUNDS))


# The access trace.


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[AccessTrace]:
    opened = AccessTrace(tmp_path / "trace", KEY, wall=lambda: 1_700_000_000.25, clock=lambda: 0.0)
    yield opened
    opened.close()


def test_the_trace_gives_back_what_was_observed(trace: AccessTrace, tmp_path: Path) -> None:
    observer = Observer(trace)
    observer.record(hit())
    miss = {"status": MISS, "tier": "", "compute_ms": 150.0, "saved_ms": 0.0, "input": b"i" * 32, "cause": SPARED}
    observer.record(hit(**miss, streaming=True, voice="", task="sing"))
    trace.close()
    first, second = read_trace(tmp_path / "trace")
    assert (first.input, first.cause, second.cause) == ("", "", "spared")
    assert len(second.input) == 16
    assert first.lookup_ms == pytest.approx(0.05)
    assert first.time_us == 1_700_000_000_250_000
    assert (first.task, first.status, first.tier, first.streaming) == ("recognize", "HIT_EXACT", "device", False)
    assert (first.bytes_in, first.bytes_out, first.cost_ms, first.similarity) == (32_000, 400, 143.0, 1.0)
    assert first.latency_ms == pytest.approx(1.0)
    assert first.first_ms == pytest.approx(0.5)
    assert (second.task, second.status, second.tier, second.streaming) == ("other", "MISS", "", True)
    assert second.cost_ms == 150.0
    assert second.voice == ""
    assert (first.digest, first.emotion, first.tenant) == (second.digest, second.emotion, second.tenant)


def test_the_trace_holds_neither_keys_nor_names(trace: AccessTrace, tmp_path: Path) -> None:
    trace.add(hit(input=b"i" * 32))
    trace.close()
    (record,) = read_trace(tmp_path / "trace")
    other = AccessTrace(tmp_path / "other", b"another key of thirty-two bytes!")
    other.add(hit(input=b"i" * 32))
    other.close()
    (elsewhere,) = read_trace(tmp_path / "other")
    for name in ("digest", "input", "voice", "emotion", "engine", "language", "tenant"):
        assert getattr(record, name) not in ("", getattr(elsewhere, name))
    assert bytes.fromhex(record.digest) not in b"d" * 32
    keys = [read_header(trace_files(tmp_path / place)[0])["key_id"] for place in ("trace", "other")]
    assert keys[0] != keys[1]
    assert KEY.hex() not in keys[0]


def test_the_trace_rotates_and_keeps_the_newest(tmp_path: Path) -> None:
    trace = AccessTrace(tmp_path, KEY, rotate_bytes=1, keep=3, wall=lambda: 1_700_000_000.0)
    for number in range(5):
        trace.add(hit(bytes_in=number))
        trace.flush()
    trace.close()
    assert len(trace_files(tmp_path)) == 3
    assert [record.bytes_in for record in read_trace(tmp_path)] == [2, 3, 4]
    assert (trace.records, trace.dropped) == (5, 0)


def test_two_runs_within_a_second_keep_both_traces(tmp_path: Path) -> None:
    for number in range(2):
        trace = AccessTrace(tmp_path, KEY, wall=lambda: 1_700_000_000.0)
        trace.add(hit(bytes_in=number))
        trace.close()
    assert [record.bytes_in for record in read_trace(tmp_path)] == [0, 1]


def test_a_trace_cut_by_a_crash_reads_to_the_last_batch(trace: AccessTrace, tmp_path: Path) -> None:
    trace.add(hit())
    trace.flush()
    (file,) = trace_files(tmp_path / "trace")
    assert len(list(read_trace(file))) == 1
    whole = file.read_bytes()
    trace.add(hit(digest=b"e" * 32, voice="zed", bytes_in=77))
    trace.flush()
    file.write_bytes(file.read_bytes()[: len(whole) + 5])
    assert len(list(read_trace(file))) == 1


def test_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    trace = AccessTrace(tmp_path, KEY, pending_records=3)
    for _ in range(5):
        trace.add(hit())
    trace.close()
    assert (trace.records, trace.dropped, len(list(read_trace(tmp_path)))) == (3, 2, 3)


def test_a_disk_that_refuses_costs_records_and_no_request(tmp_path: Path) -> None:
    now = [0.0]
    place = tmp_path / "trace"
    place.write_text("a file where the folder should be")
    trace = AccessTrace(place, KEY, clock=lambda: now[0])
    observer = Observer(trace)
    observer.record(hit())
    trace.flush()
    assert trace.dropped == 1
    place.unlink()
    observer.record(hit())
    trace.flush()
    assert trace.dropped == 2, "a failing disk is left alone for a while"
    now[0] = 31.0
    observer.record(hit())
    trace.close()
    assert (trace.dropped, len(list(read_trace(place)))) == (2, 1)


def test_a_disk_that_fills_up_keeps_what_was_whole(trace: AccessTrace, tmp_path: Path) -> None:
    class Full(io.RawIOBase):
        def __init__(self, path: Path) -> None:
            self.file = path.open("r+b", buffering=0)
            self.file.seek(0, 2)

        def write(self, data: object) -> int:
            if len(memoryview(data)) <= 5:  # type: ignore[arg-type]
                raise OSError(28, "No space left on device")
            return self.file.write(memoryview(data)[:5])  # type: ignore[arg-type]

        def truncate(self, size: int | None = None) -> int:
            return self.file.truncate(size)

        def close(self) -> None:
            self.file.close()

    trace.add(hit())
    trace.flush()
    (file,) = trace_files(tmp_path / "trace")
    whole = file.read_bytes()
    assert trace._file is not None
    trace._file._raw.close()
    trace._file._raw = Full(file)  # type: ignore[assignment]
    trace.add(hit())
    trace.flush()
    assert (trace.dropped, file.read_bytes()) == (1, whole)


def test_the_thread_writes_by_itself_and_ends(tmp_path: Path) -> None:
    trace = AccessTrace(tmp_path, KEY, flush_s=0.001)
    trace.start()
    trace.add(hit())
    trace.close()
    assert len(list(read_trace(tmp_path))) == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b\x08"])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(TraceError, match="not a Refrain trace"):
        list(read_trace(path))


def test_records_are_of_the_documented_size() -> None:
    assert RECORD.size == 80
    with pytest.raises(ValueError, match="16 to 64"):
        AccessTrace(Path("x"), b"short")


# The log.


@pytest.fixture
def root_restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("root_restored")
def test_log_lines_are_one_json_object_each() -> None:
    out = io.StringIO()
    configure_logging("info", json=True, stream=out)
    configure_logging("info", json=True, stream=out)  # a second call replaces the first
    log = logging.getLogger("refrain.test")
    log.debug("unseen")
    log.info("serving", extra={"fields": {"port": 50051}})
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("broke")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["level"], first["event"], first["fields"]) == ("INFO", "serving", {"port": 50051})
    assert first["time"].endswith("Z")
    assert "KeyError" in second["exception"]


@pytest.mark.usefixtures("root_restored")
def test_log_lines_for_people() -> None:
    out = io.StringIO()
    configure_logging(stream=out)
    logging.getLogger("refrain.test").info("serving", extra={"fields": {"port": 50051}})
    assert out.getvalue().rstrip().endswith("INFO    refrain.test: serving port=50051")


def test_coalesced_and_fuzzy_are_told_apart() -> None:
    observer = Observer()
    for status in (HIT_FUZZY, COALESCED, COALESCED):
        observer.record(hit(status=status))
    total = Tally.of(observer.snapshot("default"))
    assert (total.hits_fuzzy, total.coalesced, total.hits) == (1, 2, 1)

"""The report's sums, and what its figures say of traces whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import trace_frames as frames
from bench import trace_synth
from bench.demo import tell_page
from bench.demo_report import report_on
from bench.processes import Gateway, start_gateway
from bench.report_counts import count, quantiles_of
from bench.report_document import Wanted, document
from bench.report_html import as_html
from bench.report_keys import by_key
from bench.report_misses import REASONS, reasons
from bench.report_sections import sections, tiles
from bench.report_text import as_markdown
from bench.simulation import DEFAULT
from gateway.cli import main
from gateway.client import RefrainClient
from gateway.stats import (
    ABSENT,
    BYPASS,
    COALESCED,
    HIT_EXACT,
    HIT_FUZZY,
    MISS,
    NOT_LOOKED,
    SPARED,
    TOO_OLD,
    UNAVAILABLE,
    UNLIKE,
    WITHHELD,
    AuditedPair,
    LanguageAudits,
    OutcomeCount,
    Stats,
    VoiceAudits,
)
from gateway.trace import trace_files
from tests.bench.waiting import until

WANTED = Wanted(DEFAULT, 0.05, 1000.0, 2.0)

RECORDS = st.lists(
    st.tuples(
        st.integers(1, 6),  # digest
        st.integers(0, 5),  # status
        st.integers(0, 7),  # cause
        st.integers(0, 2),  # tier
        st.integers(0, 4),  # task
        st.integers(0, 2000),  # second
        st.integers(0, 3),  # input
        st.integers(0, 2),  # engine
        st.integers(0, 2**32 - 1),  # bytes
        st.floats(0, 1e4, width=32),  # cost and latency
    ),
    max_size=60,
)


def rows_of(records: list[tuple[float, ...]]) -> frames.Rows:
    rows = np.zeros(len(records), frames.ROW)
    names = ("digest", "status", "cause", "tier", "task", "time_us", "input", "engine", "bytes_out", "cost_ms")
    for name, values in zip(names, zip(*records, strict=True), strict=False):
        rows[name] = values
    rows["time_us"] = np.sort(rows["time_us"]) * 1_000_000 + 1_700_000_000_000_000
    rows["latency_ms"] = rows["cost_ms"]
    rows["voice"] = rows["digest"] % 3
    return rows


def written(rows: frames.Rows, folder: Path) -> Path:
    path = folder / "t.rft.gz"
    frames.write([rows[: len(rows) // 2], rows[len(rows) // 2 :]], path)
    return path


@given(RECORDS)
@settings(deadline=None, max_examples=60)
def test_every_sum_adds_up_whatever_the_records_say(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[float, ...]]
) -> None:
    rows = rows_of(records)
    told = document(WANTED, trace=written(rows, tmp_path_factory.mktemp("t")))
    total = told["total"]
    assert all(check["equal"] for check in told["checks"])
    assert total["requests"] == len(rows) == sum(row["requests"] for row in told["sources"])
    for status, name in ((HIT_EXACT, "hits_exact"), (HIT_FUZZY, "hits_fuzzy"), (MISS, "misses"),
                         (COALESCED, "coalesced"), (BYPASS, "bypassed")):  # fmt: skip
        assert total[name] == (rows["status"] == status).sum()
    assert sum(tally["requests"] for tally in told["tasks"].values()) == len(rows)
    if told.get("misses") is not None:
        assert sum(row["requests"] for row in told["misses"]) == total["misses"]
        warmth = told["cold_and_warm"]
        assert warmth["cold"]["requests"] + warmth["warm"]["requests"] == len(rows)
        assert warmth["cold"]["hits"] + warmth["warm"]["hits"] == total["hits"]
    if told["hours"]["rows"]:
        assert sum(row["requests"] for row in told["hours"]["rows"]) == len(rows)
    assert sum(row["requests"] for row in told["voices"]) == (len(rows) if told["voices"] else 0)
    assert total["saved_s"] + total["compute_s"] == pytest.approx(rows["cost_ms"].sum(dtype=float) / 1e3)
    json.dumps(told, allow_nan=False)
    shown = "title", "about", tiles(told), sections(told)
    assert as_html(*shown)
    assert as_markdown(*shown)


# Why answers were not in memory.


def reason_of(*records: dict[str, int]) -> list[str]:
    """Reasons of records that are misses of digest 1 at second 0 unless they say otherwise; "" for no miss."""
    rows = np.zeros(len(records), frames.ROW)
    rows["status"], rows["digest"] = MISS, 1
    for row, record in zip(rows, records, strict=True):
        for name, value in record.items():
            row[name] = value * 1_000_000 if name == "time_us" else value
    names = [*REASONS]
    by = by_key(count([rows]).kept)
    return [names[number] if number != 255 else "" for number in reasons(by, ttl_s=100.0).tolist()]


def test_new_and_gone_keys() -> None:
    assert reason_of({}, {}) == ["first seen", "evicted"]
    assert reason_of({}, {"time_us": 101}) == ["first seen", "expired"]
    assert reason_of({}, {"status": HIT_EXACT, "time_us": 99}, {"time_us": 101}) == ["first seen", "", "expired"]
    assert reason_of({}, {"cause": SPARED}) == ["first seen", "filter"]
    assert reason_of({}, {"cause": ABSENT}, {"digest": 2}) == ["first seen", "evicted", "first seen"]
    assert reason_of({"status": HIT_EXACT}, {"time_us": 900}) == ["", "evicted"], "when it was stored is not known"


def test_what_stored_nothing_is_not_evicted() -> None:
    assert reason_of({"status": BYPASS}, {}) == ["", "not stored"]
    assert reason_of({"status": HIT_FUZZY}, {}) == ["", "not stored"]
    assert reason_of({"status": COALESCED}, {}) == ["", "first seen"], "who followed may have ended first"
    assert reason_of({}, {"status": COALESCED}, {}) == ["first seen", "", "evicted"]


def test_another_model_or_form_of_the_same_input() -> None:
    first = {"input": 7, "engine": 1}
    assert reason_of(first, {"digest": 2, "input": 7, "engine": 2}) == ["first seen", "new model"]
    assert reason_of(first, {"digest": 2, "input": 7, "engine": 1}) == ["first seen", "new form"]
    assert reason_of(first, {"digest": 2, "input": 8, "engine": 1}) == ["first seen", "first seen"]
    assert reason_of({}, {"digest": 2, "engine": 2}) == ["first seen", "first seen"], "inputs are not recorded"


def test_what_the_gateway_says_itself() -> None:
    assert reason_of({"cause": UNLIKE}, {"cause": UNLIKE}) == ["not alike enough", "evicted"]
    causes = {NOT_LOOKED: "not looked", TOO_OLD: "too old", UNAVAILABLE: "unavailable", WITHHELD: "withheld"}
    for cause, name in causes.items():
        assert reason_of({}, {"cause": cause}) == ["first seen", name]


def test_every_miss_has_one_reason_on_a_speech_like_trace() -> None:
    rows = trace_synth.synth(trace_synth.Shape(requests=3000, days=3, new_model_day=1.5), seed=3)
    found = reasons(by_key(count([rows]).kept), 30 * 86_400)
    assert ((found == 255) == (rows["status"] != MISS)).all()
    told = {[*REASONS][number] for number in np.unique(found[found != 255])}
    assert {"first seen", "new model", "new form", "not alike enough", "evicted"} <= told


# Latencies.


@given(st.lists(st.floats(0.125, 1e6, width=32), min_size=1, max_size=200))
@settings(deadline=None)
def test_quantiles_are_those_of_the_sorted_latencies(latencies: list[float]) -> None:
    rows = np.zeros(len(latencies), frames.ROW)
    rows["latency_ms"], rows["status"], rows["task"] = latencies, MISS, 1
    (source,) = count([rows]).sources.values()
    found = quantiles_of(source)
    for share in (50, 95, 99):
        exact = np.quantile(rows["latency_ms"], share / 100, method="inverted_cdf")
        assert found[f"p{share}_ms"] == pytest.approx(exact, rel=0.004)
    assert found["max_ms"] == rows["latency_ms"].max()


def test_the_digest_is_of_the_records_not_of_the_form(tmp_path: Path) -> None:
    rows = trace_synth.synth(trace_synth.Shape(requests=500, days=1), seed=1)
    assert (rows == trace_synth.synth(trace_synth.Shape(requests=500, days=1), seed=1)).all()
    digests = set()
    for name in ("t.rft.gz", "t.parquet"):
        frames.write([rows], tmp_path / name)
        digests.add(count(frames.read(tmp_path / name)).blake2b)
    assert len(digests) == 1


def test_a_trace_without_outcomes_tells_what_a_cache_could_do(tmp_path: Path) -> None:
    (tmp_path / "t.keys.txt").write_text("".join(f"{key}\n" for key in [1, 2, 1, 3, 1, 2] * 5))
    told = document(WANTED, trace=tmp_path / "t.keys.txt")
    assert told["total"]["unrecorded"] == 30
    assert told["curve"]["ceiling"]["requests"] == pytest.approx(27 / 30)
    assert "misses" not in told


# A gateway of flesh and blood.


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    started = start_gateway(tmp_path_factory.mktemp("data"))
    yield started
    started.stop()


def test_the_report_counts_what_the_gateway_counts(gateway: Gateway, tmp_path: Path) -> None:
    with RefrainClient(gateway.target) as client:
        (voice, *_) = client.list_voices()
        for text in ("Hello.", "Goodbye.", "Hello.", "Hello."):
            speech = client.synthesize(text, voice.name, encoding="LINEAR16", rate=16_000)
            client.recognize(speech.samples(), rate=16_000)
        client.synthesize("Hello.", voice.name, mode="BYPASS")
        counted = client.stats().total
    folder = gateway.data_dir / "trace"
    until(lambda: trace_files(folder) and sum(map(len, frames.read(folder))) == counted.requests)
    out, html = tmp_path / "out.json", tmp_path / "out.html"
    words = ["report", "--trace", str(folder), "--target", gateway.target, "--json", str(out), "--html", str(html)]
    assert main(words) == 0
    told = json.loads(out.read_text())
    assert len(told["checks"]) > 4, "row by row"
    assert all(check["equal"] for check in told["checks"])
    assert told["total"]["requests"] == counted.requests == told["gateway"]["counted"]["requests"]
    for name in ("saved_s", "compute_s", "compute_hit_rate"):
        assert told["total"][name] == pytest.approx(told["gateway"]["counted"][name], rel=1e-3)
    assert told["engines"]
    alone = tmp_path / "alone.json"
    assert main(["report", "--target", gateway.target, "--json", str(alone)]) == 0
    assert json.loads(alone.read_text())["total"]["hits"] == told["total"]["hits"] == counted.hits


def test_the_demo_ends_with_the_report_and_says_where_the_page_is(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RefrainClient(gateway.target) as client:
        client.synthesize("Hello again.")
        answered = client.stats().total.requests
    told = report_on(gateway.data_dir / "trace", gateway.target, answered, tmp_path)
    tell_page(gateway, stay=False)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "report.md"}
    assert told["total"]["requests"] == answered
    assert all(check["equal"] for check in told["checks"])
    shown = capsys.readouterr().out
    assert "Where answers came from" in shown
    assert "Where this comes from" not in shown, "that is in the files"
    assert f"http://127.0.0.1:{gateway.http_port}/" in shown


def test_what_audits_judged_is_told_by_pair_language_and_voice() -> None:
    wrong = AuditedPair(
        "voice and mood", "wrong", 0.875, "n" + 80 * "0", "", 32 * "a", 32 * "b", "", "anna", 1_767_225_600.0
    )
    reported = replace(wrong, kind="recording", similarity=0.0, voice="", language="en-US")
    stats = Stats(
        [OutcomeCount("recognize", HIT_FUZZY, "device", requests=9)],
        audits_by_language=[LanguageAudits("en-US", 7, 1, 0, 0.4)],
        audits_by_voice=[VoiceAudits("anna", 5, 1, 0, 0.6)],
    )
    told = document(WANTED, stats=stats, pairs=[wrong, reported])
    text = as_markdown("title", "about", tiles(told), sections(told))
    assert "| en-US | 7 | 1 | 0 | 40.00 % |" in text
    assert "| anna | 5 | 1 | 0 | 60.00 % |" in text
    assert "| wrong | voice and mood, anna | aaaaaaaaaaaa | bbbbbbbbbbbb | 0.875 | 2026-01-01 00:00:00 |" in text
    assert "| wrong | recording, en-US | aaaaaaaaaaaa | bbbbbbbbbbbb | not known |" in text
    assert json.loads(json.dumps(told))["audited_pairs"][0]["entry_id"] == wrong.entry_id
    assert "of fuzzy hits wrong" not in text, "a bound of 1 says nothing"


def test_a_replay_alone_reports(tmp_path: Path) -> None:
    source = {"task": "synthesize", "tier": "", "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0}
    sources = [
        {**source, "status": status, "requests": n} for status, n in (("HIT_EXACT", 3), ("MISS", 2), ("ERROR", 1))
    ]
    report = {
        "kind": "refrain replay", "version": 2, "sources": sources, "late": {"p50_ms": 0.1, "p99_ms": 0.2},
        "gaps": {"p50_ms": 0.1, "p99_ms": 0.3}, "kinds": [], "voices": [], "moods": [],
        "requests": 6, "errors": 1, "span_s": 2.0, "offered_per_s": 3.0, "achieved_per_s": 3.0, "seed": 1,
        "trace": {"name": "x", "blake2b": "00"}, "sender_is_the_limit": "",
    }  # fmt: skip
    told = document(WANTED, replay=report)
    assert (told["total"]["requests"], told["total"]["hits"], told["total"]["misses"]) == (5, 3, 2)
    text = as_markdown("title", "about", tiles(told), sections(told))
    assert "offered 3.0 a second" in text
    assert "| synthesize miss | 2 | 40.0 % |" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "give --trace"),
        (["--trace", "none.rft.gz"], "none.rft.gz"),
        (["--trace", "none.doc"], "none.doc: no such file"),
        (["--trace", "some.doc"], "not that of a trace"),
        (["--trace", "some.parquet"], "some.parquet: "),
        (["--trace", "."], "a folder without a trace"),
        (["--replay", "none.json"], "--replay none.json"),
        (["--target", "127.0.0.1:1"], "--target 127.0.0.1:1"),
        (["--trace", "x.rft.gz", "--first-tier", "some"], "--first-tier some: allowed are sizes"),
        (["--trace", "x.rft.gz", "--first-tier", "120%"], "--first-tier 120%"),
        (["--trace", "x.rft.gz", "--ttl-days", "0"], "--ttl-days 0: it must be above 0"),
    ],
)
def test_what_can_not_be_reported_is_said(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("some.doc", "some.parquet"):
        (tmp_path / name).write_bytes(b"nothing that is a trace")
    assert main(["report", *words]) != 0
    assert why in capsys.readouterr().err

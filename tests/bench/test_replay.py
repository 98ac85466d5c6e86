"""Replaying a trace: when what is sent, what came of it, and that the sums of it all are sums."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import replay, trace_frames
from bench.processes import Gateway, start_gateway
from bench.programs import interruptible
from bench.replay_control import Rounds
from bench.replay_inputs import Item, sentence
from bench.replay_load import Result, histogram
from bench.replay_plan import Pace, parse_ramp, plan_of
from bench.replay_report import Sent, merged, report_of
from bench.replay_things import COPY, FIELDS, RECORDING, TAKE, TEXT, Cast, Things
from gateway.cli import CommandError, main
from gateway.stats import STATUSES
from tests.bench.waiting import counted, until

MICROS = st.lists(st.integers(1, 10**7), min_size=1, max_size=50)
ABOUT = {"trace": {"blake2b": "x"}, "seed": 1, "part": "1/1", "interrupted": False}
THINGS = Things(np.zeros(0, np.int32), (Item("synthesize", "Hello."),), (TEXT,), (7,), (0,))
SENT = Sent(THINGS, [b""], Rounds(0.0, 10.0, 0.0), 1.0)


def rows(digests: list[int], task: int = 2) -> trace_frames.Rows:
    made = np.zeros(len(digests), trace_frames.ROW)[list(FIELDS)]
    made["digest"], made["task"] = digests, task
    made["time_us"] = np.arange(len(digests)) * 500_000
    return made


# What is sent when.


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_sentences_are_stable_and_their_own(one: int, other: int) -> None:
    assert sentence(one) == sentence(one)
    assert (sentence(one) == sentence(other)) == (one == other)


def test_speed_is_that_of_the_trace() -> None:
    plan = plan_of(rows([1, 2, 3]), Pace(speed=2.0), Cast([], []), seed=1)
    assert plan.due_s.tolist() == [0.0, 0.25, 0.5]


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 30))
@settings(deadline=None)
def test_a_ramp_rises_from_its_first_rate_to_its_last(first: float, last: float, seconds: float) -> None:
    many = rows([1] * 4000)
    due = plan_of(many, Pace(ramp=(first, last, seconds)), Cast([], []), seed=3).due_s
    assert (np.diff(due) >= 0).all()
    assert np.isfinite(due).all()
    climbed = (first + last) / 2 * seconds  # requests that the ramp itself holds, in the mean
    if climbed < 4000:
        assert (due < seconds).sum() == pytest.approx(climbed, abs=6 * climbed**0.5 + 2)


@pytest.mark.parametrize("text", ["", "1:2", "5:0:1", "1:5:0", "a:b:c", "1:2:3:4"])
def test_a_ramp_says_what_it_wants(text: str) -> None:
    with pytest.raises(ValueError, match="FROM:TO:SECONDS"):
        parse_ramp(text)


# What came of it.


def result(times: list[int], status: str = "HIT_EXACT", answers: dict[int, bytes] | None = None) -> Result:
    latency, late = histogram(), histogram()
    for micros in times:
        latency.record_value(micros)
        late.record_value(1)
    made = Result(sent=len(times), latency={("synthesize", status, ""): latency.encode().decode()})
    made.late = made.gaps = late.encode().decode()
    made.first_s, made.last_s, made.answers = 1.0, 3.0, answers or {}
    return made


@given(
    st.lists(st.integers(1, 10**7), min_size=1, max_size=50), st.lists(st.integers(1, 10**7), min_size=1, max_size=50)
)
@settings(deadline=None, max_examples=25)
def test_processes_and_machines_add_up_exactly(one: list[int], other: list[int]) -> None:
    together = report_of(ABOUT, [result(one + other)], SENT)
    processes = report_of(ABOUT, [result(one), result(other)], SENT)
    parts = [report_of({**ABOUT, "part": f"{at}/2"}, [result(times)], SENT) for at, times in enumerate((one, other), 1)]
    machines = merged(parts)
    for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms", "requests"):
        assert together["sources"][0][name] == processes["sources"][0][name] == machines["sources"][0][name]


def test_hits_misses_coalesced_and_bypassed_are_the_answers() -> None:
    results = [result([1000] * count, status) for count, status in enumerate(STATUSES[1:], 1)]
    failed = result([1000] * 4, "ERROR")
    report = report_of(ABOUT, [*results, failed], SENT)
    sums = report["hits"] + report["misses"] + report["coalesced"] + report["bypassed"]
    assert sums == report["answered"] == report["requests"] - report["errors"] == 15
    assert report["hit_rate"] == pytest.approx(3 / 15)


def test_one_request_answered_in_two_ways_is_told() -> None:
    processes = [result([1], answers={0: b"a", 1: b"b"}), result([1], answers={0: b"c", 1: b"b"})]
    report = report_of(ABOUT, processes, SENT)
    assert (report["items_answered_differently"], report["answers_that_differ"]) == (1, 1)


@pytest.mark.parametrize(
    ("late_us", "offered", "said"), [(9_000, 99.0, ""), (20_000, 1.0, "kept the rate"), (20_000, 99.0, "was the limit")]
)
def test_a_sender_that_is_the_limit_says_so(late_us: int, offered: float, said: str) -> None:
    one, late = result([1000] * 20), histogram()
    late.record_value(late_us)
    one.late = late.encode().decode()
    report = report_of(ABOUT, [one], dataclasses.replace(SENT, offered_per_s=offered))
    assert said in report["sender_is_the_limit"]
    assert bool(said) == bool(report["sender_is_the_limit"])


def test_only_parts_of_one_trace_are_added_up() -> None:
    one = report_of({**ABOUT, "part": "1/2"}, [result([1])], SENT)
    with pytest.raises(ValueError, match="same part"):
        merged([one, one])
    with pytest.raises(ValueError, match="different traces"):
        merged([one, {**one, "trace": {"blake2b": "y"}}])
    other = {**one, "part": "2/2"}
    with pytest.raises(ValueError, match="differ in seed: 2, 1"):
        merged([one, {**other, "seed": 2}])
    with pytest.raises(ValueError, match="differ in their controls"):
        merged([one, {**other, "control": {"share": 0.5}}])
    with pytest.raises(ValueError, match="not a replay report"):
        merged([{"kind": "something"}])


# A gateway, and the command.


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    fuzzy = {"REFRAIN_TENANTS": '{"default": {"require_proof": false}}'}
    started = start_gateway(tmp_path_factory.mktemp("data"), environment=fuzzy)
    yield started
    started.stop()


def test_a_replay_counts_what_the_gateway_counts(gateway: Gateway, tmp_path: Path) -> None:
    trace, out = tmp_path / "t.keys.txt", tmp_path / "out.json"
    trace.write_text("".join(f"{key}\n" for key in [1, 2, 1, 3, 1, 2] * 5))
    before = counted(gateway)
    common = [
        "--control",
        "0.5",
        "--round",
        "0.4",
        "--target",
        gateway.target,
        "--spoken",
        str(tmp_path / "inputs"),
        "--json",
        str(out),
    ]
    words = ["replay", str(trace), *common, "--rate", "60", "--processes", "2", "--task", "vocode"]
    assert main(words) == 0
    report = json.loads(out.read_text())
    assert report["requests"] == report["answered"] == 30
    assert report["misses"] == 3
    assert report["answers_that_differ"] == 0
    control = report["control"]
    pairs = sum(row["pairs"] for row in control["pairs"])
    assert pairs == control["requests"] == sum(row["equal"] for row in control["pairs"]) > 0
    assert not control["unpaired"]
    assert counted(gateway) - before == report["answered"] + control["requests"]
    assert {row["status"] for row in control["sources"]} == {"BYPASS"}
    assert report["late"]["requests"] == report["requests"] + control["requests"]
    assert report["gaps"]["requests"] == report["late"]["requests"] - 2, "of each of two processes the first has no gap"
    page = tmp_path / "report.md"
    assert main(["report", "--replay", str(out), "--markdown", str(page), "--json", str(tmp_path / "report.json")]) == 0
    text = page.read_text()
    assert "Past the cache, in rounds in turn with the load, 50% of it was sent again" in text
    assert "The same requests with the cache and past it" in text
    assert "histogram" not in (tmp_path / "report.json").read_text().replace("histogram of", "")


def test_recordings_are_spoken_once_and_recognized(gateway: Gateway, tmp_path: Path) -> None:
    trace, inputs = tmp_path / "t.keys.txt", tmp_path / "inputs"
    trace.write_text("7\n7\n7\n")
    words = ["replay", str(trace), "--target", gateway.target, "--spoken", str(inputs), "--rate", "5"]
    assert main([*words, "--task", "recognize", "--json", str(tmp_path / "out.json")]) == 0
    assert len(list(inputs.glob("*.wav"))) == 1
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["answered"], report["items"]) == (3, 1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--part", "3/2"], "allowed is I/N"),
        (["--rate", "-1"], "must be above 0"),
        (["--speed", "2"], "holds no times"),
        (["--ramp", "1:2"], "FROM:TO:SECONDS"),
        (["--control", "1.5"], "0 to 1"),
        (["--round", "0"], "must be above 0"),
        (["--snr", "nan"], "-20 to 80 dB"),
    ],
)
def test_what_can_not_be_replayed_is_said(tmp_path: Path, words: list[str], why: str) -> None:
    trace = tmp_path / "t.keys.txt"
    trace.write_text("1\n2\n")
    parser = argparse.ArgumentParser()
    replay.register(parser)
    with pytest.raises(CommandError, match=why):
        replay.run(parser.parse_args([str(trace), "--spoken", str(tmp_path), *words]))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--requests", "-2"], "--requests: '-2': allowed are whole numbers from 1"),
        (["--connections", "0"], "--connections: '0': allowed"), (["--processes", "0"], "--processes: '0': allowed"),
        (["--deadline", "0"], "--deadline: '0': allowed"), (["--warmup", "-1"], "--warmup: '-1': allowed"),
        (["--json", "/nowhere/out.json"], "there is no folder '/nowhere'"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_before_anything_is_sent(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    replay.register(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["t.keys.txt", *words])
    assert why in capsys.readouterr().err


def test_reports_that_can_not_be_added_up_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("no JSON")
    assert main(["replay", "--merge", str(tmp_path / "a.json")]) == 1
    assert f"--merge {tmp_path / 'a.json'}: not JSON" in capsys.readouterr().err
    assert main(["replay", "--merge", str(tmp_path / "none.json")]) == 1
    assert f"{tmp_path / 'none.json'}: No such file" in capsys.readouterr().err


def test_copies_takes_voices_and_moods_are_sent_and_counted(gateway: Gateway, tmp_path: Path) -> None:
    phrases, trace, out = tmp_path / "phrases.csv", tmp_path / "t.rft.gz", tmp_path / "out.json"
    phrases.write_text("text,count\nGood morning to all of you.,3\nWhere is the station?,2\nYour taxi is here.,2\n")
    shape = [
        "--requests",
        "24",
        "--days",
        "1",
        "--noisy",
        "0.6",
        "--same",
        "0.2",
        "--new-model-day",
        "0",
        "--seed",
        "2",
    ]
    assert main(["trace", "synth", str(trace), "--phrases", str(phrases), *shape, "--seed", "7"]) == 0
    common = ["--target", gateway.target, "--spoken", str(tmp_path / "spoken"), "--json", str(out), "--rate", "4"]
    assert main(["replay", str(trace), "--phrases", str(phrases), *common]) == 0
    report = json.loads(out.read_text())
    kinds = {row["kind"]: row for row in report["kinds"]}
    assert {COPY, TAKE, RECORDING, TEXT} <= set(kinds)
    for trait in ("kinds", "voices", "moods"):
        for name in ("requests", "hits_exact", "hits_fuzzy", "misses", "coalesced"):
            total = sum(row[name] for row in report[trait])
            assert total == sum(row[name] for row in kinds.values())
        assert sum(row["requests"] for row in report[trait]) == report["answered"] == 24
    for row in kinds.values():
        assert row["fuzzy_judged"] == row["hits_fuzzy"], "what they were lent was made in this replay"
        assert not row["fuzzy_wrong"]
    assert len(report["voices"]) > 1
    assert len(report["moods"]) > 1


def test_an_interrupted_replay_reports_what_was_sent(gateway: Gateway, tmp_path: Path) -> None:
    trace, out = tmp_path / "t.keys.txt", tmp_path / "out.json"
    trace.write_text("1\n" * 2000)
    before = counted(gateway)
    words = ["replay", str(trace), "--target", gateway.target, "--spoken", str(tmp_path / "inputs"), "--rate", "20"]
    command = [*interruptible("gateway.cli"), *words, "--json", str(out), "--start-at", "told"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "ready" in map(str.strip, process.stdout)
        process.stdin.write(f"{time.time() + 0.5}\n")
        process.stdin.flush()
        until(lambda: counted(gateway) - before >= 3)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "cut short" in told
    report = json.loads(out.read_text())
    assert report["interrupted"]
    assert 3 <= report["answered"] < 2000
    assert report["answered"] == report["hits"] + report["misses"] + report["coalesced"] == counted(gateway) - before
    again = tmp_path / "again.json"
    assert main(["replay", "--merge", str(out), "--json", str(again)]) == 0
    assert json.loads(again.read_text()) == report


@pytest.mark.parametrize(
    ("moment", "why"), [("noon\n", "seconds since 1970, or told"), ("1000\n", "before all was ready")]
)
def test_a_moment_that_can_not_be_kept_is_said(
    moment: str, why: str, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "t.keys.txt"
    trace.write_text("1\n")
    parser = argparse.ArgumentParser()
    replay.register(parser)
    monkeypatch.setattr(sys, "stdin", io.StringIO(moment))
    words = [str(trace), "--target", gateway.target, "--spoken", str(tmp_path / "inputs"), "--start-at", "told"]
    with pytest.raises(CommandError, match=why):
        replay.run(parser.parse_args(words))

"""Replaying a trace: when what is sent, what came of it, and that the sums of it all are sums."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import replay, trace_frames
from bench.processes import Gateway, start_gateway
from bench.replay_control import compare
from bench.replay_inputs import sentence
from bench.replay_load import Result, histogram
from bench.replay_plan import FIELDS, Pace, parse_ramp, plan_of
from bench.replay_report import merged, report_of
from gateway.cli import CommandError, main
from gateway.stats import STATUSES
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc

MICROS = st.lists(st.integers(1, 10**7), min_size=1, max_size=50)
ABOUT = {"trace": {"blake2b": "x"}, "part": "1/1", "interrupted": False}


def rows(digests: list[int], task: int = 2) -> trace_frames.Rows:
    made = np.zeros(len(digests), trace_frames.ROW)[list(FIELDS)]
    made["digest"], made["task"] = digests, task
    made["time_us"] = np.arange(len(digests)) * 500_000
    return made


# What is sent when.


def test_the_commonest_digest_gets_the_first_phrase_and_the_rest_their_own_sentences() -> None:
    plan = plan_of(rows([5, 9, 9, 7]), Pace(rate=10.0), "vocode", ["amy"], ["Hello.", "Goodbye."], seed=1)
    texts = [plan.items[ask].text for ask in plan.asks]
    assert texts[1] == texts[2] == "Hello."
    assert "Goodbye." in texts
    assert len(plan.items) == 3
    assert {item.task for item in plan.items} == {"synthesize"}


def test_a_record_that_names_no_task_gets_the_one_asked_for() -> None:
    plan = plan_of(rows([1], task=0), Pace(rate=1.0), "recognize", [], [], seed=1)
    assert [item.task for item in plan.items] == ["recognize"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_sentences_are_stable_and_their_own(one: int, other: int) -> None:
    assert sentence(one) == sentence(one)
    assert (sentence(one) == sentence(other)) == (one == other)


def test_speed_is_that_of_the_trace() -> None:
    plan = plan_of(rows([1, 2, 3]), Pace(speed=2.0), "vocode", [], [], seed=1)
    assert plan.due_s.tolist() == [0.0, 0.25, 0.5]


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 30))
@settings(deadline=None)
def test_a_ramp_rises_from_its_first_rate_to_its_last(first: float, last: float, seconds: float) -> None:
    many = rows([1] * 4000)
    due = plan_of(many, Pace(ramp=(first, last, seconds)), "vocode", [], [], seed=3).due_s
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
    made.late, made.first_s, made.last_s, made.answers = late.encode().decode(), 1.0, 3.0, answers or {}
    return made


@given(
    st.lists(st.integers(1, 10**7), min_size=1, max_size=50), st.lists(st.integers(1, 10**7), min_size=1, max_size=50)
)
@settings(deadline=None, max_examples=25)
def test_processes_and_machines_add_up_exactly(one: list[int], other: list[int]) -> None:
    together = report_of(ABOUT, [result(one + other)], 1.0)
    processes = report_of(ABOUT, [result(one), result(other)], 1.0)
    parts = [report_of({**ABOUT, "part": f"{at}/2"}, [result(times)], 1.0) for at, times in enumerate((one, other), 1)]
    machines = merged(parts)
    for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms", "requests"):
        assert together["sources"][0][name] == processes["sources"][0][name] == machines["sources"][0][name]


def test_hits_misses_coalesced_and_bypassed_are_the_answers() -> None:
    results = [result([1000] * count, status) for count, status in enumerate(STATUSES[1:], 1)]
    failed = result([1000] * 4, "ERROR")
    report = report_of(ABOUT, [*results, failed], 1.0)
    sums = report["hits"] + report["misses"] + report["coalesced"] + report["bypassed"]
    assert sums == report["answered"] == report["requests"] - report["errors"] == 15
    assert report["hit_rate"] == pytest.approx(3 / 15)


def test_one_request_answered_in_two_ways_is_told() -> None:
    report = report_of(ABOUT, [result([1], answers={0: b"a", 1: b"b"}), result([1], answers={0: b"c", 1: b"b"})], 1.0)
    assert (report["items_answered_differently"], report["answers_that_differ"]) == (1, 1)


def test_only_parts_of_one_trace_are_added_up() -> None:
    one = report_of({**ABOUT, "part": "1/2"}, [result([1])], 1.0)
    with pytest.raises(ValueError, match="same part"):
        merged([one, one])
    with pytest.raises(ValueError, match="different traces"):
        merged([one, {**one, "trace": {"blake2b": "y"}}])
    with pytest.raises(ValueError, match="not a replay report"):
        merged([{"kind": "something"}])


def test_sounds_are_equal_near_or_different() -> None:
    rng = np.random.default_rng(1)
    tone = (8000 * np.sin(np.arange(22050) * 0.2)).astype("<i2")
    loud = np.clip(tone * 1.02, -32768, 32767).astype("<i2")
    other = rng.integers(-8000, 8000, 22050).astype("<i2")
    assert compare("synthesize", tone.tobytes(), tone.tobytes()) == "equal"
    assert compare("synthesize", tone.tobytes(), loud.tobytes()) == "near"
    assert compare("synthesize", tone.tobytes(), other.tobytes()) == "different"
    assert compare("synthesize", tone.tobytes(), tone[:9000].tobytes()) == "different"
    assert compare("recognize", b"yes", b"no") == "different"


# A gateway, and the command.


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    started = start_gateway(tmp_path_factory.mktemp("data"))
    yield started
    started.stop()


def counted(gateway: Gateway) -> int:
    with grpc.insecure_channel(gateway.target) as channel:
        stats = cache_pb2_grpc.CacheAdminStub(channel).GetStats(cache_pb2.GetStatsRequest())
    return sum(row.requests for row in stats.outcomes)


def test_a_replay_counts_what_the_gateway_counts(gateway: Gateway, tmp_path: Path) -> None:
    trace, out = tmp_path / "t.keys.txt", tmp_path / "out.json"
    trace.write_text("".join(f"{key}\n" for key in [1, 2, 1, 3, 1, 2] * 5))
    before = counted(gateway)
    common = ["--target", gateway.target, "--inputs", str(tmp_path / "inputs"), "--json", str(out)]
    words = ["replay", str(trace), *common, "--rate", "60", "--processes", "2", "--control", "2", "--task", "vocode"]
    assert main(words) == 0
    report = json.loads(out.read_text())
    assert report["requests"] == report["answered"] == 30
    assert report["misses"] == 3
    assert report["answers_that_differ"] == 0
    assert report["control"]["equal"] == 2
    assert counted(gateway) - before == report["answered"] + 2 * report["control"]["asked"]


def test_recordings_are_spoken_once_and_recognized(gateway: Gateway, tmp_path: Path) -> None:
    trace, inputs = tmp_path / "t.keys.txt", tmp_path / "inputs"
    trace.write_text("7\n7\n7\n")
    words = ["replay", str(trace), "--target", gateway.target, "--inputs", str(inputs), "--rate", "5"]
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
        (["--requests", "0"], "holds no requests"),
    ],
)
def test_what_can_not_be_replayed_is_said(tmp_path: Path, words: list[str], why: str) -> None:
    trace = tmp_path / "t.keys.txt"
    trace.write_text("1\n2\n")
    parser = argparse.ArgumentParser()
    replay.register(parser)
    with pytest.raises(CommandError, match=why):
        replay.run(parser.parse_args([str(trace), "--inputs", str(tmp_path), *words]))

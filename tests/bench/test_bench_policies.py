"""Traces, streams, rivals and bounds of bench.policies; and one small run of the program."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import policies, speech_streams
from bench.policies import POLICIES, interval, ratios, simulate
from bench.policy_rivals import S3Fifo, Sieve, belady, pfoo_bound
from bench.policy_traces import Trace, TraceError, of_counts, of_keys, read_trace, renamed, write_trace
from bench.speech_streams import Stream, stream
from bench.trace_frames import next_access


def popular(count: int = 20_000) -> Trace:
    chance = random.Random(5)
    return of_keys("popular", chance.choices(range(3000), [1 / rank for rank in range(1, 3001)], k=count))


def hits(policy: Any, trace: Trace) -> int:
    return sum(simulate(policy, trace))


# Traces.


def test_a_trace_of_keys_is_read_plain_and_compressed(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.keys.txt", tmp_path / "a.keys.txt.gz"
    plain.write_text("7\nyes\n7\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        trace = read_trace(path)
        assert (trace.name, trace.keys, trace.sizes, trace.costs) == ("a", [0, 1, 0], [1, 1, 1], [1.0, 1.0, 1.0])
        assert trace.of_one_size
        assert trace.of_one_cost


def test_a_written_trace_reads_as_it_was(tmp_path: Path) -> None:
    trace = stream(3, Stream(requests=500))
    for name in ("s.csv", "s.csv.gz"):
        write_trace(tmp_path / name, trace)
        read = read_trace(tmp_path / name)
        assert read.sizes == trace.sizes
        assert [read.keys[0] == key for key in read.keys] == [trace.keys[0] == key for key in trace.keys]
        assert read.costs == pytest.approx(trace.costs, rel=1e-3)
    assert (tmp_path / "s.csv").read_text().startswith("key,size,cost_ms\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "name,size\nx,1\n", "must name key"),
        ("a.csv", "key,size\nx,many\n", "line 2"),
        ("a.csv", "key,size\nx,0\n", "size is at least 1"),
        ("a.csv", "key,cost_ms\nx,-1\n", "cost_ms at least 0"),
        ("a.csv", "key,cost_ms\nx,nan\n", "cost_ms at least 0"),
        ("a.csv", "key\n", "no requests"),
        ("a.log", "x\n", "a trace is"),
        ("a.csv.gz", "key\nx\n", "not gzip"),
    ],
)
def test_what_is_no_trace_is_refused_by_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TraceError, match=said) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_counts_become_recordings_in_the_order_of_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "phrases.csv"
    path.write_text("text,count\nyes,3\nno,1\n")
    orders = [of_counts(path, seed).keys for seed in range(20)]
    assert all(sorted(keys) == [0, 0, 0, 1] for keys in orders)
    assert len({tuple(keys) for keys in orders}) > 1
    assert orders[4] == of_counts(path, 4).keys
    path.write_text("text,count\nyes,often\n")
    with pytest.raises(TraceError, match="line 2: count 'often'"):
        of_counts(path, 0)
    path.write_text("text\nyes\n")
    with pytest.raises(TraceError, match="must name count"):
        of_counts(path, 0)


def test_renaming_changes_names_alone() -> None:
    trace = of_keys("a", [1, 2, 1, 3])
    other = renamed(trace, 1)
    assert other.keys[0] == other.keys[2]
    assert len(set(other.keys)) == 3
    assert renamed(trace, 1).keys == other.keys != renamed(trace, 2).keys


# Streams.


def test_a_stream_is_the_same_for_the_same_seed_and_shape() -> None:
    shape = Stream(requests=2000)
    assert stream(4, shape).keys == stream(4, shape).keys != stream(5, shape).keys
    assert stream(4, shape).costs == stream(4, shape).costs


def test_a_stream_repeats_as_spoken_dialogues_do() -> None:
    trace = stream(1, Stream(requests=22_000, life=0))
    counts = [count for _, count in Counter(trace.keys).most_common()]
    assert 0.75 < 1 - len(counts) / len(trace) < 0.82
    assert 0.28 < sum(counts[:10]) / len(trace) < 0.36
    assert 0.55 < sum(counts[:100]) / len(trace) < 0.64


def test_drift_replaces_phrases() -> None:
    def shared(life: int) -> float:
        keys = stream(1, Stream(requests=20_000, life=life)).keys
        return len(set(keys[:5000]) & set(keys[-5000:])) / len(set(keys[:5000]))

    assert shared(2000) < 0.1 * shared(0)


def test_the_tide_lifts_topics_at_their_hours() -> None:
    shape = Stream(requests=20_000, topics=2, day=20_000, tide=1.0, common=0.0, fresh=0.0, again=0.0, life=0, turns=2)
    keys = stream(1, shape).keys
    noon, night = set(keys[9000:11_000]), {*keys[:1000], *keys[-1000:]}
    flat = stream(1, Stream(**{**{name: getattr(shape, name) for name in shape.__slots__}, "tide": 0.0})).keys
    calm_noon, calm_night = set(flat[9000:11_000]), {*flat[:1000], *flat[-1000:]}
    assert len(noon & night) < 0.6 * len(calm_noon & calm_night)


def test_the_program_writes_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s.csv.gz"
    monkeypatch.setattr(sys, "argv", ["x", "--seed", "2", "--requests", "300", "--life", "50", "--out", str(out)])
    speech_streams.main()
    assert read_trace(out).sizes == stream(2, Stream(requests=300, life=50)).sizes


# Rivals and bounds.


@pytest.mark.parametrize(
    ("kind", "capacity", "counted"),
    [
        *(
            (Sieve, *one)
            for one in ((20, 7815), (50, 9705), (100, 11_380), (200, 12_767), (300, 13_686), (1000, 16_262))
        ),
        *(
            (S3Fifo, *one)
            for one in ((20, 7841), (50, 9882), (100, 11_422), (200, 12_909), (300, 13_758), (1000, 16_234))
        ),
    ],
)
def test_rivals_hit_as_libcachesim_counts(kind: Callable[[int], Any], capacity: int, counted: int) -> None:
    """Hits that libCacheSim 0.3.5 counts on the same requests."""
    assert hits(kind(capacity), popular()) == counted


@pytest.mark.parametrize("kind", [Sieve, S3Fifo])
def test_rivals_keep_within_their_capacity_for_any_sizes(kind: Callable[[int], Any]) -> None:
    trace = stream(2, Stream(requests=3000))
    rival = kind(trace.size_of_all // 50)
    kept: dict[int, int] = dict(zip(trace.keys, trace.sizes, strict=True))
    for _ in simulate(rival, trace):
        pass
    weight = sum(size for key, size in kept.items() if key in rival)
    assert 0 < weight <= trace.size_of_all // 50


def test_next_access() -> None:
    assert next_access(np.array([1, 2, 1])).tolist() == [2, -1, -1]


def best_of_all(trace: Trace, capacity: int) -> int:
    """The most hits there can be, by trying every way to keep and to drop."""
    kept: dict[frozenset[int], int] = {frozenset(): 0}
    for key in trace.keys:
        following: dict[frozenset[int], int] = {}
        for held, hit in kept.items():
            after = hit + (key in held)
            for size in range(capacity + 1):
                for keep in itertools.combinations(held | {key}, size):
                    one = frozenset(keep)
                    following[one] = max(following.get(one, 0), after)
        kept = following
    return max(kept.values())


def test_belady_is_the_best_there_is_and_pfoo_is_above_it() -> None:
    chance = random.Random(1)
    for _ in range(40):
        trace = of_keys("t", [chance.randrange(6) for _ in range(14)])
        for capacity in (1, 2, 3):
            best = best_of_all(trace, capacity)
            assert sum(belady(trace, capacity)) == best
            assert pfoo_bound(trace, capacity)["requests"] * len(trace) >= best - 1e-9


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "theine"])
def test_no_policy_passes_the_bounds(name: str) -> None:
    trace = stream(6, Stream(requests=4000))
    capacity = trace.size_of_all // 20
    found, bound = ratios(simulate(POLICIES[name](capacity), trace), trace), pfoo_bound(trace, capacity)
    assert all(0 < found[ratio] < bound[ratio] for ratio in bound)
    even = trace.even()
    assert hits(POLICIES[name](50), even) < sum(belady(even, 50))


def test_theine_runs_as_its_users_have_it() -> None:
    pytest.importorskip("theine")
    theine = POLICIES["theine"](100)
    assert 0.3 < hits(theine, popular()) / 20_000 < 0.7
    theine.close()


# The program.


def test_an_interval_is_student_s() -> None:
    assert interval([1.0]) == (1.0, 0.0)
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, out = tmp_path / "phrases.csv", tmp_path / "out.json"
    counts.write_text("count\n" + "".join(f"{max(1, 60 // rank)}\n" for rank in range(1, 120)))
    web = tmp_path / "web.keys.txt"
    web.write_text("\n".join(str(n // 3 % 97) for n in range(600)))
    arguments = ["x", "--web", str(web), "--counts", str(counts), "--requests", "800", "--seeds", "2"]
    arguments += ["--json", str(out), "--plot", str(tmp_path / "p.svg"), "--table", str(tmp_path / "t.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(policies, "speed", lambda figures: None)
    policies.main()
    written = json.loads(out.read_text())
    names = [figure["name"] for figure in written["figures"]]
    assert "phrases, 1.0% of the keys: requests, worth" in names
    assert "streams, costs differ, 5.0% of the keys: compute, worth" in names
    assert sum(figure["target"] == 0 for figure in written["figures"]) == 6 + 4 * 3 + 1
    assert {row["policy"] for row in written["context"]["ratios"]} >= {"lru", "lfu", "tinylfu", "worth", "belady"}
    assert "| worth |" in (tmp_path / "t.md").read_text()
    assert (tmp_path / "p.svg").stat().st_size > 10_000

"""`python -m bench.replayed` on the smallest sizes: every figure is there, and compares what it says it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bench import replayed, trace_frames
from bench.replay_inputs import Item
from bench.replayed_load import Asked, counted, restaurant
from bench.replayed_tiers import (
    HEAT_EVERY_S,
    WRAPPING,
    behind,
    bounds,
    by_trace_alone,
    costs_past,
    numbers_of,
    recorded,
    saved_share,
)
from bench.trace_frames import NAMES, Rows
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.policy.worth import WorthPolicy
from gateway.app import _device_policy
from gateway.settings import Settings
from gateway.stats import BYPASS, COALESCED, HIT_EXACT, MISS

PHRASES = ("yes", "no", "stop", "go on", "left", "right", "one", "two", "three", "tea", "louder", "what time is it")
SMALL = ["--requests", "30", "--rounds", "2", "--round", "6", "--sample", "4", "--seconds", "1"]


def phrase_file(folder: Path) -> Path:
    path = folder / "phrases.csv"
    lines = [f"{text},{20 - place}" for place, text in enumerate(PHRASES)]
    path.write_text("\n".join(["text,count", *lines]) + "\n")
    return path


def trace_of(keys: list[int], size: int = 1000, every_s: float = 0.1) -> Rows:
    """As a gateway with endless memory records it."""
    rows = np.zeros(len(keys), trace_frames.ROW)
    rows["digest"] = np.array(keys) + 1
    rows["time_us"] = np.arange(len(keys)) * every_s * 1e6
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    rows["status"] = np.where(first, MISS, HIT_EXACT)
    rows["tier"] = np.where(first, 0, NAMES["tier"]["device"])
    rows["bytes_out"] = np.where(first, size, size + 90)  # a hit tells its age
    rows["cost_ms"] = 30.0
    return rows


# Traces of requests.


def test_recordings_of_phrases_are_spoken_and_a_stream_is_heard_too(tmp_path: Path) -> None:
    path = phrase_file(tmp_path)
    counts = counted(path, 50, 1)
    assert len(counts.order) == 50
    assert [item.text for item in counts.items] == list(PHRASES)
    assert {item.task for item in counts.items} == {"synthesize"}
    asked = restaurant(path, 400, 1)
    assert {item.task for item in asked.items} == {"recognize", "synthesize", "vocode"}
    assert {item.text for item in asked.items} > set(PHRASES), "more things than phrases: sentences for the others"
    assert len({item.text for item in asked.items}) == len(asked.items)
    assert asked == restaurant(path, 400, 1)
    few = restaurant(path, 14, 1)
    assert len(few.items) <= len(PHRASES)
    assert {item.text for item in few.items} <= set(PHRASES)


def test_a_trace_is_cut_and_told_in_order_of_appearance() -> None:
    asked = Asked("some", (Item("synthesize", "a"),) * 4, (3, 1, 3, 0))
    assert asked.seen == [3, 1, 0]
    assert asked.cut(1, 3).order == (1, 3)


# Two tiers.


def test_weights_are_those_of_the_device_tier() -> None:
    trace = recorded(trace_of([5, 7, 5]))
    assert trace.keys.tolist() == [0, 1, 0]
    assert trace.weights == [Entry((bytes(1000),), 1.0, 0.0).weight] * 2 == [1000 + WRAPPING] * 2
    assert trace.hits("device") == pytest.approx(1 / 3)
    assert trace.hits("redis") == 0


def test_what_was_never_computed_has_no_weight() -> None:
    with pytest.raises(ValueError, match="1 of 2 keys were answered but never computed"):
        recorded(trace_of([5, 7, 5, 7])[1:3])


def test_a_tier_that_holds_all_lacks_first_requests_alone() -> None:
    keys = np.random.default_rng(1).zipf(1.5, 300) % 40
    trace = recorded(trace_of(keys.tolist()))
    first = len(set(keys.tolist()))
    for missed in by_trace_alone(trace, trace.weight_of_all, 2):
        assert missed.sum() == first
    assert bounds(trace, trace.weight_of_all) == (pytest.approx(1 - first / 300), pytest.approx(1 - first / 300))


def test_the_second_tier_sees_what_the_first_lacks_and_hears_of_what_is_hot() -> None:
    room = 2 * (1000 + WRAPPING)
    keys = [1, 2, 3, 1]
    everything = np.ones(4, bool)
    assert behind(recorded(trace_of(keys)), everything, room).tolist() == [True] * 4, "3 took the place of 1"
    # Key 1 is hit in the first tier, which is told the second before 3 comes: so 2 has to go, and 1 stays.
    keys, missed = [1, 2, 1, 3, 1], np.array([True, True, False, True, True])
    assert behind(recorded(trace_of(keys)), missed, room).tolist() == [True, True, False, True, True]
    late = recorded(trace_of(keys, every_s=HEAT_EVERY_S))
    assert behind(late, missed, room).tolist() == [True, True, False, True, False]


def test_compute_is_saved_by_hits_and_by_following() -> None:
    rows = trace_of([1, 2, 3, 4])
    rows["cost_ms"], rows["status"] = [10, 20, 30, 40], BYPASS
    cost_of = costs_past(np.concatenate([rows, rows]))
    assert cost_of == {2: 10.0, 3: 20.0, 4: 30.0, 5: 40.0}
    rows["status"] = [HIT_EXACT, MISS, COALESCED, MISS]
    assert saved_share(rows, cost_of) == pytest.approx(0.4)


def test_the_simulation_knows_keys_by_the_gateways_own_numbers() -> None:
    digest = bytes(range(32))
    policy = cast(WorthPolicy[CacheKey], _device_policy(Settings(), 1000))
    assert numbers_of(["e" + digest.hex()]) == [policy._number(CacheKey("one", digest))]


# The program.


@pytest.mark.timeout(900)
def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    words = ["--phrases", str(phrase_file(tmp_path)), "--json", str(out), "--plot", str(picture), *SMALL]
    monkeypatch.setattr(sys, "argv", ["replayed", *words, "--inputs", str(tmp_path / "inputs")])
    monkeypatch.setattr(replayed, "RATE", 30.0)
    monkeypatch.setattr(replayed, "DEVICE_SHARE", 0.25)  # of so few answers, at least one
    replayed.main()
    told = json.loads(out.read_text())
    values = {figure["name"]: figure["value"] for figure in told["figures"]}
    for name in replayed.TRACES:
        assert values[f"{name}: L1 hits, off the simulation told the keys too by"] == pytest.approx(0, abs=1e-9)
        assert 0 < values[f"{name}: L1 hits"] <= values[f"{name}: hits of all tiers"] < 1, values
        assert told["context"][name]["requests"] == 30
    assert all(value > 0 for name, value in values.items() if name.endswith(("a hit, median", "over a hit's")))
    assert 0 < values["mixed load: compute-weighted hit rate"] <= 1
    assert len(told["context"]["rounds"]) == 2
    for where in ("to the gateway", "to a bare server"):
        sent = told["context"][f"one replay process {where}"]
        assert sent["hits"] == sent["requests"] == 32
        assert sent["errors"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phrases", "nowhere.csv"], "nowhere.csv"),
        (["--phrases", "no.csv"], "it must name count"),
        (["--phrases", "no.csv", "--rounds", "0"], "argument --rounds: '0': allowed are whole numbers from 1"),
    ],
)
def test_what_can_not_be_replayed_is_said(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("no.csv").write_text("text\nyes\n")
    monkeypatch.setattr(sys, "argv", ["replayed", *words])
    with pytest.raises(SystemExit):
        replayed.main()
    assert said in capsys.readouterr().err

"""`python -m bench.latency` on the smallest sizes: every figure is there, every answer was what it should be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bench import latency
from bench.h2load import Beside, Load, grpc_body, load

SMALL = ["--rounds", "1", "--requests", "64", "--copies", "16", "--misses", "2", "--connections", "5", "--streams", "2"]
FIGURES = {
    "recognize": ["exact L1 hit of 3 s in, rate over bare grpc.aio", "exact L1 hit of 3 s in, p99 over bare grpc.aio"],
    "fuzzy": [f"fuzzy L1 hit of 3 s in, processor time{more}" for more in ("", ", 4 callers")],
    "redis": ["L2 hit over bare grpc.aio and a GET, time a request"],
    "miss": [
        f"{what}, {task}"
        for task in ("recognize", "synthesize", "vocode")
        for what in (
            "miss over the engine alone",
            "of that a bare grpc.aio call",
            "miss over the engine and a bare call",
        )
    ],
    "streams": [
        "errors on 5 connections with 10 open streams",
        "streams answered",
        "errors where they are opened in one moment",
        "streams of these answered",
        "memory a connection",
        "memory an open stream",
    ],
}
native = pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (Debian's nghttp2-client)")


@native
@pytest.mark.parametrize("part", FIGURES)
def test_every_figure_is_measured(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["latency", "--only", part, "--json", str(tmp_path / "out.json"), *SMALL])
    latency.main()
    told = json.loads((tmp_path / "out.json").read_text())
    values = {figure["name"]: figure["value"] for figure in told["figures"]}
    assert list(values) == FIGURES[part]
    if part == "streams":
        assert [values[name] for name in FIGURES[part][:4]] == [0, 10, 0, 10]
    elif part == "fuzzy":
        assert told["context"]["fuzzy"]["share_answered_fuzzily"] > 0.5
    elif part != "miss":  # which a busy machine may well answer sooner than the engine alone
        assert all(value > 0 for value in values.values())


def test_ratios_are_round_by_round() -> None:
    beside = Beside(ours=[Load(50.0, 1.0, 6.0), Load(90.0, 1.0, 4.0)], bare=[Load(100.0, 1.0, 3.0)] * 2)
    assert beside.rates == [0.5, 0.9]
    assert beside.p99s == [2.0, pytest.approx(4 / 3)]


@native
def test_a_load_that_nobody_answers_is_an_error(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(grpc_body(b""))
    with pytest.raises(RuntimeError, match="did not finish cleanly"):
        load(1, "/refrain.v1.Speech/Recognize", [body], 4)


def test_without_the_load_generator_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["latency"])
    with pytest.raises(SystemExit, match="nghttp2-client"):
        latency.main()

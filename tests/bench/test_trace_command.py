"""`refrain trace`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main


def test_a_trace_is_made_told_shown_and_converted_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, table, again = (tmp_path / name for name in ("made.rft.gz", "made.csv", "again.rft.gz"))
    assert main(["trace", "synth", str(trace), "--requests", "500", "--days", "1", "--seed", "3"]) == 0
    assert main(["trace", "info", str(trace)]) == 0
    assert main(["trace", "head", str(trace), "-n", "3"]) == 0
    assert main(["trace", "convert", str(trace), str(table)]) == 0
    assert main(["trace", "convert", str(table), str(again)]) == 0
    assert f"{table}: 500 records" in capsys.readouterr().out
    assert len(table.read_text().splitlines()) == 501


def test_a_trace_is_not_converted_into_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "made.rft.gz"
    assert main(["trace", "synth", str(trace), "--requests", "50", "--days", "1", "--seed", "3"]) == 0
    assert main(["trace", "convert", str(trace), str(trace)]) != 0
    assert "is the trace itself" in capsys.readouterr().err

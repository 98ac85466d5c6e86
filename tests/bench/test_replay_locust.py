"""A replay from several machines: a master and workers of Locust's, real ones, on loopback."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.processes import Gateway, free_port, start_gateway
from bench.programs import interruptible
from tests.bench.waiting import counted, until

pytestmark = pytest.mark.timeout(400)  # nine programs that each take long to load, on a machine that may be busy
PROGRAM = interruptible("bench.replay_locust")


@contextlib.contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def workers() -> Iterator[tuple[str, Sequence[subprocess.Popen[str]]]]:
    """The port at which they wait for a master, and two of them."""
    port = str(free_port())
    with started("worker", "--port", port) as one, started("worker", "--port", port) as other:
        yield port, (one, other)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    one = start_gateway(tmp_path_factory.mktemp("data"))
    yield one
    one.stop()


def test_two_workers_send_their_parts_and_the_master_adds_them_up(
    workers: tuple[str, Sequence[subprocess.Popen[str]]], gateway: Gateway, tmp_path: Path
) -> None:
    port, both = workers
    trace, out = tmp_path / "t.keys.txt", tmp_path / "out.json"
    trace.write_text("".join(f"{key}\n" for key in [1, 2, 1, 3, 1, 2, 1] * 3))
    told = ["--target", gateway.target, "--rate", "20", "--spoken", str(tmp_path / "spoken")]
    lead = ["master", "--workers", "2", "--port", port, "--json", str(out), "--", str(trace), *told]
    with started(*lead) as master:
        said, _ = master.communicate(timeout=240)
        assert master.returncode == 0, said
    assert [worker.wait(timeout=30) for worker in both] == [0, 0]
    report = json.loads(out.read_text())
    assert report["part"] == "1/2+2/2"
    assert report["requests"] == report["answered"] == 21 == counted(gateway)
    assert report["misses"] == 3
    assert report["late"]["requests"] == 21
    assert len(report["sender_cpu"]) == 2


def test_a_master_that_is_interrupted_has_a_report(
    workers: tuple[str, Sequence[subprocess.Popen[str]]], gateway: Gateway, tmp_path: Path
) -> None:
    port, both = workers
    trace, out = tmp_path / "t.keys.txt", tmp_path / "out.json"
    trace.write_text("1\n" * 4000)
    before = counted(gateway)
    told = ["--target", gateway.target, "--rate", "20", "--spoken", str(tmp_path / "spoken")]
    lead = ["master", "--workers", "2", "--port", port, "--json", str(out), "--", str(trace), *told]
    with started(*lead) as master:
        until(lambda: counted(gateway) - before >= 3, 240.0)
        master.send_signal(signal.SIGINT)
        said, _ = master.communicate(timeout=240)
        assert master.returncode == 0, said
    assert [worker.wait(timeout=30) for worker in both] == [0, 0]
    report = json.loads(out.read_text())
    assert report["interrupted"]
    assert 3 <= report["answered"] == counted(gateway) - before < 4000


def test_a_worker_that_can_not_replay_says_why_and_all_go_home(
    workers: tuple[str, Sequence[subprocess.Popen[str]]], tmp_path: Path
) -> None:
    port, both = workers
    out = tmp_path / "out.json"
    with started("master", "--workers", "2", "--port", port, "--json", str(out), "--", "none.keys.txt") as master:
        said, _ = master.communicate(timeout=240)
    assert master.returncode == 1
    assert "none.keys.txt" in said
    assert [worker.wait(timeout=30) for worker in both] == [1, 1]
    assert not out.exists()


def test_a_master_without_workers_does_not_wait_for_ever(tmp_path: Path) -> None:
    words = ["--port", str(free_port()), "--json", str(tmp_path / "out.json"), "--wait", "0.2"]
    with started("master", "--workers", "1", *words, "--", "x.keys.txt") as master:
        said, _ = master.communicate(timeout=60)
    assert master.returncode == 1
    assert "0 of 1 workers came" in said

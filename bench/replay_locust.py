"""`refrain replay` from many machines: Locust's master and workers carry the parts, and their reports add up exactly.

    python -m bench.replay_locust worker --master HOST                          # on each machine
    python -m bench.replay_locust master --workers 3 --json OUT -- TRACE --target HOST:PORT --rate 3000

Locust finds the workers, keeps watch over them and brings messages; it sends no load itself. Each worker is told its
part, runs `refrain replay --part K/N` as a process of its own (what Locust does to sockets and gRPC do not go
together), says when that is ready, and gets the moment at which all begin: so the machines' clocks must agree. The
trace, and what else options name, must lie on every machine; a token comes from its REFRAIN_TOKEN. Locust's messages
are neither sealed nor signed: whoever reaches the master's port can take part. Needs the extra `load`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gevent import spawn
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue
from locust.env import Environment  # makes what the standard library waits for gevent's

from bench.programs import interruptible
from gateway.arguments import new_file, real, whole

PORT: Final = 5557
LEAD_S: Final = 3.0
"""From when all are ready to when they begin: for the message to arrive everywhere."""
WATCH_S: Final = 1.0
"""How often it is looked whether a worker is lost."""


class Lost(RuntimeError):
    """A worker failed, or is gone."""


class Master:
    """Gives out the parts and gathers the reports."""

    def __init__(self, workers: int, bind: str, port: int) -> None:
        self._wanted = workers
        self._told: Queue[tuple[str, str, Any]] = Queue()
        self._runner: Any = Environment().create_master_runner(bind, port)
        for kind in ("ready", "done", "failed"):
            self._runner.register_message(f"replay.{kind}", self._heard)

    def _heard(self, environment: Any, msg: Any, **_: Any) -> None:
        self._told.put((msg.type.removeprefix("replay."), msg.node_id, msg.data))

    def run(self, words: Sequence[str], wait_s: float) -> list[str]:
        """The reports, as JSON. A KeyboardInterrupt ends the replay early and still brings them.

        Raises `Lost`, TimeoutError when not enough workers come within `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        while len(self._runner.clients.ready) < self._wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._runner.clients.ready)} of {self._wanted} workers came in {wait_s:g} s")
            time.sleep(0.1)
        nodes = sorted(node.id for node in self._runner.clients.ready)[: self._wanted]
        for at, node in enumerate(nodes, 1):
            part = {"part": f"{at}/{len(nodes)}", "words": list(words)}
            self._runner.send_message("replay.part", part, node)
        try:
            self._each("ready", nodes)
            at_s = time.time() + LEAD_S
            for node in nodes:
                self._runner.send_message("replay.begin", {"at": at_s}, node)
            return self._each("done", nodes)
        except KeyboardInterrupt:
            for node in nodes:
                self._runner.send_message("replay.stop", {}, node)
            return self._each("done", nodes)

    def _each(self, kind: str, nodes: Sequence[str]) -> list[str]:
        """What every worker says of this kind, in their order. Raises `Lost`."""
        found: dict[str, str] = {}
        while len(found) < len(nodes):
            try:
                heard, node, data = self._told.get(timeout=WATCH_S)
            except Empty:
                gone = {node.id for node in self._runner.clients.missing} & set(nodes)
                if gone - set(found):
                    raise Lost(f"{len(gone)} of {len(nodes)} workers are gone: {', '.join(sorted(gone))}") from None
                continue
            if heard == "failed":
                raise Lost(f"{node}: {data['why']}")
            if heard == kind and node in nodes:
                found[node] = data.get("report", "")
        return [found[node] for node in nodes]

    def close(self) -> None:
        """Sends the workers home."""
        self._runner.quit()


class Worker:
    """Runs one part, and stays until the master sends it home."""

    def __init__(self, master: str, port: int) -> None:
        self._runner: Any = Environment().create_worker_runner(master, port)
        self._part: AsyncResult[dict[str, Any]] = AsyncResult()
        self._begin: AsyncResult[float] = AsyncResult()
        self._process: subprocess.Popen[str] | None = None
        self._runner.register_message("replay.part", lambda environment, msg, **_: self._part.set(msg.data))
        self._runner.register_message("replay.begin", lambda environment, msg, **_: self._begin.set(msg.data["at"]))
        self._runner.register_message("replay.stop", lambda environment, msg, **_: self._stop())
        spawn(self._left_alone)

    def run(self) -> bool:
        """Waits for a part, and sends what came of it. Whether it was a report."""
        part = self._part.get()
        with tempfile.TemporaryDirectory() as folder:
            out, log = Path(folder) / "report.json", Path(folder) / "log"
            options = ["--part", part["part"], "--start-at", "told", "--json", str(out)]
            command = [*interruptible("gateway.cli"), "replay", *part["words"], *options]
            with log.open("w") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
                )
            try:
                self._follow(self._process)
            finally:
                self._stop()
                self._process.wait()
            if out.exists():
                self._runner.send_message("replay.done", {"report": out.read_text()})
                self._runner.greenlet.join()
                return True
            why = log.read_text(errors="replace").strip()[-2000:]
            self._runner.send_message("replay.failed", {"why": why or f"ended with {self._process.returncode}"})
            self._runner.greenlet.join()
            return False

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:  # until it ends
            if line.strip() == "ready":
                self._runner.send_message("replay.ready", {})
                process.stdin.write(f"{self._begin.get():.6f}\n")
                process.stdin.flush()

    def _stop(self) -> None:
        """As Ctrl-C does: it reports what was sent until then."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _left_alone(self) -> None:
        """Waits until the master ends, or has not been heard of for a minute; nothing is to be done then."""
        self._runner.greenlet.join()
        for told in (self._part, self._begin):
            if not told.ready():
                told.set_exception(Lost("the master has gone"))
        self._stop()

    def close(self) -> None:
        self._runner.quit()


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.replay_locust", description=(__doc__ or "").split("\n\n")[0])
    roles = parser.add_subparsers(dest="role", required=True)
    worker = roles.add_parser("worker", help="sends a part")
    worker.add_argument("--master", default="127.0.0.1", metavar="HOST", help="default %(default)s")
    master = roles.add_parser("master", help="gives out the parts, and adds up the reports")
    master.add_argument("--workers", type=whole(1), required=True, metavar="N", help="how many to wait for")
    master.add_argument("--bind", default="127.0.0.1", metavar="HOST", help="address to listen at; default %(default)s")
    master.add_argument(
        "--wait", type=real(above=True), default=60.0, metavar="S", help="for the workers; default %(default)g"
    )
    master.add_argument("--json", type=new_file, required=True, metavar="OUT", help="write the report")
    master.add_argument("replay", nargs="+", help="after --: what `refrain replay` is to be told")
    for one in (worker, master):
        one.add_argument("--port", type=whole(1, 65_535), default=PORT, help="of the master; default %(default)s")
    options = parser.parse_args(words)
    return _work(options) if options.role == "worker" else _lead(options)


def _work(options: argparse.Namespace) -> int:
    one = Worker(options.master, options.port)
    try:
        return 0 if one.run() else 1
    except Lost as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    finally:
        one.close()


def _lead(options: argparse.Namespace) -> int:
    if options.workers < 1:
        print(f"--workers {options.workers}: at least 1", file=sys.stderr)
        return 2
    one = Master(options.workers, options.bind, options.port)
    try:
        reports = one.run(options.replay, options.wait)
    except (Lost, TimeoutError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    finally:
        one.close()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{at}.json" for at in range(len(reports))]
        for path, text in zip(paths, reports, strict=True):
            path.write_text(text)
        merge = [
            sys.executable,
            "-m",
            "gateway.cli",
            "replay",
            "--merge",
            *map(str, paths),
            "--json",
            str(options.json),
        ]
        return subprocess.run(merge, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Starting and stopping the servers that benchmarks, the demo and tests measure: real processes, free ports, by pid."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Gateway:
    """A running `refrain serve`."""

    process: subprocess.Popen[bytes]
    port: int
    http_port: int
    start_s: float
    """From the start of the process to health SERVING."""
    data_dir: Path

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        """Of its private Redis."""
        return f"unix://{self.data_dir.absolute()}/redis/run/redis.sock"

    def stop(self) -> None:
        """SIGTERM, and waits for the drain."""
        self.process.terminate()
        self.process.wait(timeout=30)


def start_gateway(
    data_dir: Path,
    *extra: str,
    log: Path | None = None,
    timeout_s: float = 60.0,
    program: Sequence[str] = (sys.executable, "-m", "gateway.cli"),
    environment: Mapping[str, str] | None = None,
) -> Gateway:
    """Starts a gateway on loopback with its own data folder and waits until it is SERVING. `environment` is added.

    Raises `RuntimeError` with the end of its log when it ends early, `TimeoutError` when it does not come up.
    """
    port, http_port = free_port(), free_port()
    command = [*program, "serve"]
    command += ["--port", str(port), "--http-port", str(http_port), "--data-dir", str(data_dir), *extra]
    data_dir.mkdir(parents=True, exist_ok=True)
    log = log or data_dir / "gateway.log"
    begun = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    try:
        wait_until_serving(f"127.0.0.1:{port}", process, log, begun + timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Gateway(process, port, http_port, time.monotonic() - begun, data_dir)


def wait_until_serving(target: str, process: subprocess.Popen[bytes], log: Path, deadline: float) -> None:
    """Follows the health service until it says SERVING."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the gateway ended with status {process.returncode}:\n{tail}")
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.02)
    raise TimeoutError(f"no SERVING from {target}; see {log}")


@contextmanager
def running(command: Sequence[str], ready: str = "ready") -> Iterator[subprocess.Popen[bytes]]:
    """Runs a helper process that prints `ready` once it serves, and ends it afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line.strip() != ready.encode():
                raise RuntimeError(f"{command[0]} did not start: {line!r}")
            yield process
        finally:
            process.terminate()
            process.wait(timeout=10)

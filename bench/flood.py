"""More calls than a server takes, sent by a program that takes little of the processor: h2load, an open loop in C.

Where load and server share the cores, what the load takes is missing in what the server does: of a call that is refused
grpcio takes 0.8 ms, h2load 0.1. h2load sees no gRPC status; what became of its calls the server has counted.

Run as a program this is the baseline of a refusal: a grpc.aio server that refuses every call and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc

from bench.processes import free_port, running

STREAMS = 4096
"""Calls that may be open at a time; no fewer than the server keeps waiting, or the loop would close."""
WINDOW_BITS = 30
"""Of flow control: answers never wait for the load program."""


@contextlib.contextmanager
def flood(port: int, method: str, body: Path, rate: float, at_most_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """`rate` calls a second of `method` (/package.Service/Name) on loopback with `body`, a file that holds a gRPC
    frame, until the block ends, or for `at_most_s`. Whoever uses it asks `require_h2load` before."""
    command = ["h2load", "--duration", f"{at_most_s:.0f}", "--clients", "1", "--threads", "1", "--rps", f"{rate:.0f}"]
    command += ["--max-concurrent-streams", str(STREAMS), "--data", str(body)]
    command += ["--window-bits", str(WINDOW_BITS), "--connection-window-bits", str(WINDOW_BITS)]
    command += ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    with subprocess.Popen([*command, f"http://127.0.0.1:{port}{method}"], stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def refusing(method: str) -> Iterator[int]:
    """This program in a process of its own, and its port; it refuses `method`."""
    port = free_port()
    with running([sys.executable, "-m", "bench.flood", "--port", str(port), "--method", method]):
        yield port


async def refuse(port: int, method: str) -> None:
    """Serves `method` on loopback until it is ended."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
        raise AssertionError("abort raises")

    service, name = method.strip("/").split("/")
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--method", required=True, help="/package.Service/Name")
    args = parser.parse_args()
    asyncio.run(refuse(args.port, args.method))


if __name__ == "__main__":
    main()

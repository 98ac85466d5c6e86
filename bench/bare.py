"""The baseline of the speed figures: a grpc.aio server that returns one stored answer and does nothing else.

It has no serialisers, no interceptors and no look-up; whatever Refrain's hit path costs on top of this is Refrain's.
With `--redis` and `--key` it also asks Redis for one value in every call, as plainly as redis-py can, and drops it:
what an answer from the second tier cannot do without.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from redis.asyncio import Redis

from bench.processes import free_port, running


async def serve(port: int, response: bytes, method: str, redis: str, key: str) -> None:
    """Serves `method` (/package.Service/Name) on loopback until it is ended."""
    client = Redis.from_url(redis, protocol=2) if redis else None

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return response

    async def answer_with_get(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        assert client is not None
        if not await client.get(key):
            raise KeyError(key)
        return response

    service, name = method.strip("/").split("/")
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.unary_unary_rpc_method_handler(answer if client is None else answer_with_get)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


@contextmanager
def bare_server(response: Path, method: str, *more: str) -> Iterator[int]:
    """This program in a process of its own, and its port; `response` is a file."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", "--port", str(port), "--response", str(response)]
    with running([*command, "--method", method, *more]):
        yield port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--response", type=Path, required=True, help="file with the serialised response message")
    parser.add_argument("--method", required=True)
    parser.add_argument("--redis", default="", help="URL of a Redis server that is asked in every call")
    parser.add_argument("--key", default="", help="name of the value that it is asked for")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.response.read_bytes(), args.method, args.redis, args.key))


if __name__ == "__main__":
    main()

"""The baseline of the speed figures: a grpc.aio server that returns one stored answer and does nothing else.

It has no serialisers, no interceptors and no look-up; whatever Refrain's hit path costs on top of this is Refrain's.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import grpc


async def serve(port: int, response: bytes, method: str) -> None:
    """Serves `method` (/package.Service/Name) on loopback until it is ended."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return response

    service, name = method.strip("/").split("/")
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--response", type=Path, required=True, help="file with the serialised response message")
    parser.add_argument("--method", required=True)
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.response.read_bytes(), args.method))


if __name__ == "__main__":
    main()

"""h2load as an open loop, and the server that refuses: calls come whatever became of those before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.flood import flood, refusing
from bench.h2load import grpc_body


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (Debian's nghttp2-client)")
async def test_calls_come_though_none_is_answered_and_end_with_the_block(tmp_path: Path) -> None:
    came, enough, hold = list[bytes](), asyncio.Event(), asyncio.Event()

    async def take(data: bytes, context: Any) -> bytes:
        came.append(data)
        if len(came) == 20:
            enough.set()
        await hold.wait()
        return data

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(take)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    body = tmp_path / "body"
    body.write_bytes(grpc_body(b"said"))
    with flood(port, "/a.B/C", body, 50.0, 60.0) as load:
        async with asyncio.timeout(30):
            await enough.wait()
    assert load.returncode is not None
    assert set(came) == {b"said"}
    hold.set()
    await server.stop(None)


async def test_the_baseline_refuses_every_call() -> None:
    with refusing("/a.B/C") as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/a.B/C")(b"said", wait_for_ready=True, timeout=30)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

"""The grpc.aio server with health and reflection: no interceptors, messages as bytes."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICES = ("refrain.v1.Speech", "refrain.v1.CacheAdmin")
PENDING = 16_384
"""Calls that have arrived and that the event loop has not taken up. Of what is over its own limit of 1,000, gRPC
cancels some by chance, without a word; streams that thousands of callers begin in one moment are more."""
PENDING_S = 600
"""How long these may wait. After gRPC's own 30 s it cancels them, without a word; a caller who has no more time than
that says so by his deadline."""


class PortTaken(Exception):
    """The address can't be listened on."""


class GrpcServer:
    def __init__(
        self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]], max_receive_bytes: int, max_calls: int | None = None
    ) -> None:
        """gRPC itself refuses larger messages and more calls at once, both with RESOURCE_EXHAUSTED."""
        self.serving = False
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=max_calls,
            options=[
                ("grpc.max_receive_message_length", max_receive_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.server_max_unrequested_time_in_server", PENDING_S),
                ("grpc.server.max_pending_requests", PENDING),
                ("grpc.server.max_pending_requests_hard_limit", PENDING),
            ],
        )
        self._server.add_generic_rpc_handlers(tuple(handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listens, and says SERVING. Returns the port. Raises `PortTaken`."""
        _allow_connections()
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PortTaken(f"cannot listen on {host}:{port}; is another gateway running there?") from error
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self.serving = True
        return int(bound)

    async def stop(self, grace_s: float) -> None:
        """NOT_SERVING at once; calls in progress may end within the grace time."""
        self.serving = False
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def _allow_connections() -> None:
    """Each connection is an open file, of which many systems allow 1,024 to a process that does not ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

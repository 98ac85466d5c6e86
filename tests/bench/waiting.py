"""What tests of whole programs wait for, and the gateway's own count of what it answered."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from bench.processes import Gateway
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits for a condition by looking, bounded: another process meets it, and tells nobody."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)


def counted(gateway: Gateway) -> int:
    """How many requests the gateway says that it has answered."""
    with grpc.insecure_channel(gateway.target) as channel:
        stats = cache_pb2_grpc.CacheAdminStub(channel).GetStats(cache_pb2.GetStatsRequest())
    return sum(row.requests for row in stats.outcomes)

"""How a call fails: the gRPC status and the details that ride along, as one exception."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2

from gateway.client.convert import seconds_of


class RefrainCallError(Exception):
    """A call that failed: its gRPC status by name, the gateway's message, and the fields that were wrong."""

    def __init__(self, status: str, message: str, violations: Sequence[Violation] = (), retry_s: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message, self.violations, self.retry_s = status, message, tuple(violations), retry_s


class Violation(NamedTuple):
    """A field of the request that was wrong, and what is allowed."""

    field: str
    description: str


@contextmanager
def errors_of(target: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise call_error(error, target) from None


def code_of(error: Any) -> grpc.StatusCode:
    code = error.code()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def call_error(error: Any, target: str) -> RefrainCallError:
    """Reads the google.rpc.Status that rides in the trailing metadata, where there is one."""
    code, message = code_of(error), error.details() or ""
    violations: list[Violation] = []
    retry_s = 0.0
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status()
    if isinstance(data := trailing.get("grpc-status-details-bin"), bytes):
        status.MergeFromString(data)
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_s = seconds_of(retry.retry_delay)
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in message.lower():
        message = f"nothing answers at {target}; is `refrain serve` running there? ({message})"
    return RefrainCallError(code.name, message, violations, retry_s)

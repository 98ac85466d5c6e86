"""Every failure has its status, its message is small and ASCII, and its details are what gRPC libraries read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway import errors
from gateway.errors import (
    BadField,
    CallerGone,
    DeadlineExceeded,
    EngineFailed,
    EraseIncomplete,
    NotCached,
    NotFound,
    NotServed,
    Overloaded,
    PermissionDenied,
    RefrainError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    status_of,
)
from models.engine import EngineError

Code = grpc.StatusCode
CASES: list[tuple[BaseException, grpc.StatusCode]] = [
    (BadField("input.text", "", "1 to 5000 bytes"), Code.INVALID_ARGUMENT),
    (TooLarge("audio", "600 s"), Code.OUT_OF_RANGE),
    (Unauthenticated(), Code.UNAUTHENTICATED),
    (CallerGone(), Code.CANCELLED),
    (PermissionDenied("only operators"), Code.PERMISSION_DENIED),
    (NotCached(), Code.NOT_FOUND),
    (NotFound("no such entry"), Code.NOT_FOUND),
    (Overloaded(0.25), Code.RESOURCE_EXHAUSTED),
    (Unavailable("starting"), Code.UNAVAILABLE),
    (EraseIncomplete(["gw-2"]), Code.UNAVAILABLE),
    (NotServed("no voice encoder"), Code.UNIMPLEMENTED),
    (DeadlineExceeded(), Code.DEADLINE_EXCEEDED),
    (TimeoutError("redis://secret"), Code.DEADLINE_EXCEEDED),
    (EngineFailed(), Code.INTERNAL),
    (EngineError("/home/me/model.onnx"), Code.INTERNAL),
    (asyncio.CancelledError(), Code.CANCELLED),
    (ValueError("/etc/secret"), Code.INTERNAL),
]


def kinds(base: type[BaseException]) -> Iterator[type[BaseException]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize(("exc", "code"), CASES, ids=lambda case: getattr(case, "name", type(case).__name__))
def test_each_exception_has_its_status(exc: BaseException, code: grpc.StatusCode) -> None:
    assert status_of(exc).code is code


def test_the_table_leaves_no_error_of_ours_out() -> None:
    ours = {kind for kind in kinds(RefrainError) if kind.__module__ == errors.__name__}
    assert ours == {type(exc) for exc, _ in CASES} & ours


@pytest.mark.parametrize("exc", [ValueError("/etc/secret"), EngineError("secret"), TimeoutError("redis://secret")])
def test_foreign_exceptions_leak_nothing(exc: Exception) -> None:
    status = status_of(exc)
    assert "secret" not in status.message
    assert b"secret" not in b"".join(value for _, value in status.trailing_metadata)


def details(exc: BaseException) -> status_pb2.Status:
    ((key, value),) = status_of(exc).trailing_metadata
    assert key == "grpc-status-details-bin"
    return status_pb2.Status.FromString(value)


def test_a_bad_field_names_field_value_and_what_is_allowed() -> None:
    exc = BadField("audio_config.sample_rate_hertz", 7000, "8000 to 48000")
    status = details(exc)
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT.value[0], str(exc))
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    (violation,) = bad.field_violations
    assert violation.field == "audio_config.sample_rate_hertz"
    assert violation.description == "7000; allowed: 8000 to 48000"
    assert str(exc) == "audio_config.sample_rate_hertz is 7000; allowed: 8000 to 48000"


def test_overload_says_when_to_try_again() -> None:
    retry = error_details_pb2.RetryInfo()
    assert details(Overloaded(1.5)).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert details(Overloaded(2.5)).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert status_of(Overloaded(1.5, "too many streams")).message == "too many streams; try again in 1.5 s"


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, "\0\x1b[31m\n" * 100, "\N{GRINNING FACE}" * 5000, b"\xff" * 10_000_000, float("nan"), None],
    ids=["long", "control", "emoji", "bytes", "nan", "none"],
)
def test_values_are_shown_short_and_escaped(value: object) -> None:
    status = status_of(BadField("input.text", value, "text", "why not"))
    assert len(status.message) < 400
    assert status.message.isascii()
    assert status.message.isprintable()
    assert sum(len(data) for _, data in status.trailing_metadata) < 1500


def test_bytes_are_counted_and_not_told() -> None:
    message = str(BadField("content", b"my secret is safe with you", "sound"))
    assert "26 bytes" in message
    assert b"my secret is safe".hex(" ") not in message


def test_long_lists_of_names_are_cut() -> None:
    assert errors.listed(f"v{i:02}" for i in range(30)) == ", ".join(f"v{i:02}" for i in range(10)) + " and 20 more"
    assert errors.listed([]) == "none"

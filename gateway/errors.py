"""What can go wrong with a request, and the gRPC status each becomes: one table, and no other place decides a status.

    RefrainError
    ├── BadField          INVALID_ARGUMENT    a field of the request; BadRequest names it
    ├── TooLarge          OUT_OF_RANGE        a stream that ran past a limit
    ├── Unauthenticated   UNAUTHENTICATED     no token, or an unknown one
    ├── CallerGone        CANCELLED           nobody waits for the answer any more
    ├── PermissionDenied  PERMISSION_DENIED   a known token that may not do this
    ├── NotCached         NOT_FOUND           ONLY_IF_CACHED, and it is not
    ├── NotFound          NOT_FOUND           an entry, a subject or a key that is not there
    ├── Overloaded        RESOURCE_EXHAUSTED  try later; RetryInfo says when
    ├── Unavailable       UNAVAILABLE         starting or leaving
    │   └── EraseIncomplete                   some gateways have not yet acknowledged
    ├── NotServed         UNIMPLEMENTED       no model of the kind runs here
    ├── DeadlineExceeded  DEADLINE_EXCEEDED
    └── EngineFailed      INTERNAL            the models could not answer

Messages are ASCII, of at most about a kilobyte: they travel in HTTP/2 headers, which gRPC limits to 8 to 16 kB.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cache_tiers.flight import Stopped, TooSlow
from models.engine import EngineError

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata under which gRPC libraries of every language look for a google.rpc.Status."""
INTERNAL_MESSAGE: Final = "internal error; the server's log has the rest"
SHOWN_CHARACTERS: Final = 60
LISTED: Final = 10
MESSAGE_CHARACTERS: Final = 1000


def shown(value: object) -> str:
    """`value` for a message: escaped to ASCII and short, whatever a client sent.

    Bytes are counted and only their first eight shown: they are somebody's speech.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        head = bytes(value[:8]).hex(" ")
        return f"{len(value)} bytes ({head}{'...' if len(value) > 8 else ''})" if value else "empty"
    if isinstance(value, str):
        head = ascii(value[:SHOWN_CHARACTERS])
        if len(value) <= SHOWN_CHARACTERS and len(head) <= 2 * SHOWN_CHARACTERS:
            return head
        return f"{head[: 2 * SHOWN_CHARACTERS]}... ({len(value)} characters)"
    return ascii(value)[: 2 * SHOWN_CHARACTERS]


def listed(names: Iterable[str]) -> str:
    """The first ten of `names` in order, for the `allowed` of a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return (", ".join(shown(name)[1:-1] for name in ordered[:LISTED]) + more) or "none"


class RefrainError(Exception):
    """Base of everything the gateway tells a caller. Its text is for the caller's eyes."""

    def details(self) -> Sequence[Message]:
        """google.rpc messages that say the same to a program."""
        return ()


class BadField(RefrainError):
    """`field` (its path in the proto, e.g. `audio_config.sample_rate_hertz`) holds `value`, and only `allowed` will do.

    `why` says what is wrong where the value alone does not.
    """

    def __init__(self, field: str, value: object, allowed: str, why: str = "") -> None:
        self.field = field
        self.description = f"{shown(value)}{': ' if why else ''}{why}; allowed: {allowed}"
        super().__init__(f"{field} is {self.description}")

    def details(self) -> Sequence[Message]:
        violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.description)
        return (error_details_pb2.BadRequest(field_violations=[violation]),)


class TooLarge(RefrainError):
    """A stream whose `field` ran past `allowed`; what came before may have been answered."""

    def __init__(self, field: str, allowed: str) -> None:
        self.field = field
        super().__init__(f"the stream's {field} ran past its limit; allowed: {allowed}")

    def details(self) -> Sequence[Message]:
        violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=str(self))
        return (error_details_pb2.BadRequest(field_violations=[violation]),)


class Unauthenticated(RefrainError):
    """No credentials, or none that are known here."""

    def __init__(self, message: str = "send a known token as metadata 'authorization: Bearer TOKEN'") -> None:
        super().__init__(message)


class CallerGone(RefrainError):
    """The caller left, or its deadline passed, before its call was taken up; its address is gone with it."""

    def __init__(self, message: str = "the caller is gone") -> None:
        super().__init__(message)


class PermissionDenied(RefrainError):
    """The caller is known, and may not do this."""


class NotCached(RefrainError):
    """The request asked for a cached answer only, and there is none."""

    def __init__(self, message: str = "not in the cache, and cache_control.mode ONLY_IF_CACHED runs no model") -> None:
        super().__init__(message)


class NotFound(RefrainError):
    """What an admin call names does not exist."""


class Overloaded(RefrainError):
    """More work than this gateway takes; worth trying again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float, message: str = "too many requests are being computed") -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{message}; try again in {retry_after_s:g} s")

    def details(self) -> Sequence[Message]:
        return (_retry_info(self.retry_after_s),)


class Unavailable(RefrainError):
    """This gateway is starting or leaving; another, or a later try, will do."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)

    def details(self) -> Sequence[Message]:
        return (_retry_info(self.retry_after_s),)


class EraseIncomplete(Unavailable):
    """An erasure that `missing` (gateways or tiers) have not acknowledged; it is retried until they have."""

    def __init__(self, missing: Iterable[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(f"erased, but not yet acknowledged by: {listed(self.missing)}; it is being retried", 5.0)


class NotServed(RefrainError):
    """A call that needs a model of a kind this gateway runs without."""


class DeadlineExceeded(RefrainError):
    """The call's deadline passed before the answer was there."""

    def __init__(self, message: str = "the deadline of the call passed") -> None:
        super().__init__(message)


class EngineFailed(RefrainError):
    """The models could not answer. The caller is not at fault, and nothing is stored."""

    def __init__(self, message: str = "the model could not answer") -> None:
        super().__init__(message)


_CODES: Final[dict[type[BaseException], grpc.StatusCode]] = {
    BadField: grpc.StatusCode.INVALID_ARGUMENT,
    TooLarge: grpc.StatusCode.OUT_OF_RANGE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    CallerGone: grpc.StatusCode.CANCELLED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    NotCached: grpc.StatusCode.NOT_FOUND,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    NotServed: grpc.StatusCode.UNIMPLEMENTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    EngineFailed: grpc.StatusCode.INTERNAL,
}
_FOREIGN: Final[dict[type[BaseException], RefrainError]] = {
    EngineError: EngineFailed(),
    TimeoutError: DeadlineExceeded(),
    TooSlow: Overloaded(1.0, "the answer is large and this caller read it too slowly"),
    Stopped: Unavailable("the gateway is stopping"),
}
"""Exceptions of others that mean one of ours. Their own text stays here: it may name paths, hosts or speech."""


class Status(NamedTuple):
    """What `context.abort` takes."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def status_of(exc: BaseException) -> Status:
    """The status of any exception. One that is not ours is INTERNAL and says nothing: the caller of this logs it."""
    if isinstance(exc, asyncio.CancelledError):
        return Status(grpc.StatusCode.CANCELLED, "the call was cancelled", ())
    if not isinstance(exc, RefrainError):
        meant = next((_FOREIGN[kind] for kind in type(exc).__mro__ if kind in _FOREIGN), None)
        if meant is None:
            return Status(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, ())
        exc = meant
    code = next((_CODES[kind] for kind in type(exc).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    message = str(exc)[:MESSAGE_CHARACTERS]
    if isinstance(exc, Overloaded):
        return _refusal(code, message, exc.retry_after_s)
    return _status(code, message, exc.details())


@functools.lru_cache(maxsize=256)
def _refusal(code: grpc.StatusCode, message: str, retry_after_s: float) -> Status:
    """Made once for many: under overload most answers are refusals, and there are not many delays."""
    return _status(code, message, (_retry_info(retry_after_s),))


def _status(code: grpc.StatusCode, message: str, details: Sequence[Message]) -> Status:
    packed = [_packed(detail) for detail in details]
    if not packed:
        return Status(code, message, ())
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    return Status(code, message, ((DETAILS_KEY, status.SerializeToString()),))


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed

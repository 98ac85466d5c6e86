"""The HTTP port: /metrics for Prometheus, /healthz and /readyz for orchestrators, and the status page (`site`) beside
them. No framework: one request a connection, every length and time bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

log = logging.getLogger("refrain.http")

_HEAD_BYTES: Final = 16_384
_BODY_BYTES: Final = 4_096
_REQUEST_S: Final = 10.0
_ANSWER_S: Final = 10.0
"""To make an answer; and to take it, beside what its length takes on a line of `_SLOWEST` bytes a second."""
_SLOWEST: Final = 50_000
_CONNECTIONS: Final = 64
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, all read."""

    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """By name in lower case."""
    peer: str = ""
    """The address it came from, without the port."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class Site(Protocol):
    """More pages. One that fails is a 500 and a line in the log."""

    @property
    def posts(self) -> Collection[str]:
        """Paths that take POST. No other request's body is read."""
        ...

    async def answer(self, request: Request) -> Response | None:
        """None for a path that is none of its own."""
        ...


class _Refused(Exception):
    """A request that is answered before it has been read to its end."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        self.response = Response(status, f"{why}\n".encode(), headers=headers or {})


class HttpServer:
    """Answers GET and HEAD, and POST where a site takes it, one request a connection; bad requests get a status and a
    closed connection."""

    def __init__(
        self,
        page: Callable[[str], tuple[bytes, str]],
        ready: Callable[[], bool],
        about: Callable[[], Sequence[str]] = tuple,
        site: Site | None = None,
    ) -> None:
        """`page`: the metrics for an Accept header. `ready`: whether gRPC health is SERVING. `about`: what the page of
        readiness says beside that, lines."""
        self._page, self._ready, self._about, self._site = page, ready, about, site
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 9464) -> int:
        """Listens; returns the port, which matters for port 0. Raises OSError where that cannot be."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        peer = writer.get_extra_info("peername") or ("",)
        # A peer may vanish at any line below, and there is nobody left to tell.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError, TimeoutError):
            try:
                data = await self._respond(reader, str(peer[0]))
                async with asyncio.timeout(_ANSWER_S + len(data) / _SLOWEST):
                    writer.write(data)
                    await writer.drain()
            finally:
                self._open.discard(task)
                writer.close()

    async def _respond(self, reader: asyncio.StreamReader, peer: str) -> bytes:
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = await self._read(reader, peer)
        except _Refused as refused:
            return _written(refused.response, head_only=False)
        except TimeoutError:
            return _written(Response(408, b"the request took too long\n"), head_only=False)
        try:
            async with asyncio.timeout(_ANSWER_S):
                response = await self._answer(request)
        except TimeoutError:
            response = Response(503, b"the answer took too long\n")
        return _written(response, request.method == "HEAD")

    async def _read(self, reader: asyncio.StreamReader, peer: str) -> Request:
        """The request. Raises `_Refused` for one that is none, or that nobody here takes."""
        if len(self._open) > _CONNECTIONS:
            raise _Refused(503, "too many connections")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise _Refused(431, f"request head over {_HEAD_BYTES} bytes") from None
        except asyncio.IncompleteReadError:
            raise _Refused(400, "request cut short") from None
        first, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            raise _Refused(400, "not an HTTP/1 request")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        path = target.partition("?")[0]
        takes_post = self._site is not None and path in self._site.posts
        allowed = ("POST",) if takes_post else ("GET", "HEAD")
        if method not in allowed:
            raise _Refused(405, f"{' and '.join(allowed)} answered here", {"Allow": ", ".join(allowed)})
        body = await self._body(reader, headers) if takes_post else b""
        return Request(method, path, headers, peer, body)

    async def _body(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 16) or "transfer-encoding" in headers:
            raise _Refused(411, "a Content-Length is needed")
        if int(length) > _BODY_BYTES:
            raise _Refused(413, f"request body over {_BODY_BYTES} bytes")
        try:
            return await reader.readexactly(int(length))
        except asyncio.IncompleteReadError:
            raise _Refused(400, "request cut short") from None

    async def _answer(self, request: Request) -> Response:
        try:
            response = self._page_of(request.path, request.headers.get("accept", ""))
            if response is None and self._site is not None:
                response = await self._site.answer(request)
        except Exception:
            log.exception("HTTP page failed")
            return Response(500, b"the page could not be made; see the log\n")
        return response or Response(404, b"/metrics, /healthz and /readyz are here\n")

    def _page_of(self, path: str, accept: str) -> Response | None:
        if path == "/metrics":
            return Response(200, *self._page(accept))
        if path == "/healthz":
            return Response(200, b"ok\n")
        if path == "/readyz":
            state = "serving" if self._ready() else "not serving"
            page = "".join(f"{line}\n" for line in (state, *self._about())).encode()
            return Response(200 if state == "serving" else 503, page)
        return None


def _written(response: Response, head_only: bool) -> bytes:
    body = response.body
    own = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        f"Content-Type: {response.content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{own}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)

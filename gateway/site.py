"""The status page over HTTP: its files, its JSON, and what may be done with an entry by those who have the right.

    GET  /, /page.css, /page.js, /icon.svg     the page, as it lies in gateway/page
    GET  /status.json                          what it shows: counts for everyone, more for a tenant's own
    POST /status/hear | drop | report | pin | unpin   {"entry_id": "..."}; pins where the device tier's policy has them

Rights are those of CacheAdmin: a bearer token's tenant, or, where no tokens are configured, whoever calls from this
machine. A web page of somebody else's must not borrow the latter. So a caller is on this machine only if he names it as
such (Host, against DNS rebinding) and no proxy speaks for him; what changes anything is POST with a JSON body, which no
form can send, from this page's own origin, if from a page at all.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import grpc

from cache_tiers.link import Unavailable as RedisUnavailable
from cache_tiers.pins import Pins
from cache_tiers.policy.base import PinRefused
from cache_tiers.read_through import ReadThrough
from gateway import wire
from gateway.admin import Admin, entry_key
from gateway.errors import BadField, NotFound, PermissionDenied, Unauthenticated, Unavailable, status_of
from gateway.http import Request, Response
from gateway.notes import Notes
from gateway.status import Status
from gateway.tenants import Tenants

FOLDER: Final = Path(__file__).parent / "page"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_JSON: Final = "application/json"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PROXIES: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_STATUSES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.UNAVAILABLE: 503,
}  # fmt: skip

Work = Callable[[str, str], Awaitable[Response]]
"""Of a tenant and an entry_id."""


class StatusSite:
    """`gateway.http.Site`."""

    def __init__(
        self,
        status: Status,
        admin: Admin,
        tenants: Tenants,
        cache: ReadThrough,
        pins: Pins | None,
        notes: Notes,
        in_thread: Callable[..., Awaitable[Any]],
        served_to: Literal["loopback", "all"],
    ) -> None:
        """Reads the page's files. Raises OSError where they are not."""
        self._status, self._admin, self._tenants, self._cache, self._notes = status, admin, tenants, cache, notes
        self._pins = pins
        self._in_thread, self._served_to = in_thread, served_to
        self._files = {path: ((FOLDER / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
        self._works: dict[str, Work] = {
            "/status/hear": self._hear,
            "/status/drop": self._drop,
            "/status/report": self._report,
        }
        if pins is not None:
            self._works |= {"/status/pin": self._pin, "/status/unpin": self._unpin}

    @property
    def posts(self) -> Collection[str]:
        return self._works.keys()

    async def answer(self, request: Request) -> Response | None:
        path = request.path
        if path not in self._files and path != "/status.json" and path not in self._works:
            return None
        try:
            if self._served_to == "loopback" and not _is_local(request):
                raise PermissionDenied(
                    "the status page is served to this machine alone, by a name such as localhost"
                    ' (status.page = "loopback")'
                )
            if path in self._files:
                return Response(200, *self._files[path], _HEADERS)
            if path == "/status.json":
                return self._told(request)
            return await self._done(request)
        except Exception as error:
            code, message, _ = status_of(error)
            if code not in _STATUSES:
                raise
            return _json({"error": message}, _STATUSES[code])

    def _told(self, request: Request) -> Response:
        tenant = self._tenant(request)
        document = self._status.public() | {"rights": None}
        if tenant is not None:
            document |= self._status.own(tenant) | {"rights": {"tenant": tenant, "actions": self._actions()}}
        return _json(document)

    def _actions(self) -> list[str]:
        return [path.removeprefix("/status/") for path in self._works]

    def _tenant(self, request: Request) -> str | None:
        """Whose rights the caller has; None for nobody's. Raises `Unauthenticated` for a token that is not known."""
        try:
            return self._tenants.of(_Caller(request))
        except Unauthenticated:
            if "authorization" in request.headers:
                raise
            return None

    async def _done(self, request: Request) -> Response:
        _check_origin(request)
        tenant = self._tenant(request)
        if tenant is None:
            raise Unauthenticated("this needs a tenant's rights; send 'Authorization: Bearer TOKEN'")
        return await self._works[request.path](tenant, _entry_id(request.body))

    # ------------------------------------------------------------------------------------------------- actions

    async def _hear(self, tenant: str, entry_id: str) -> Response:
        """The sound of an answer as a file, or its words where they may be shown. Looks, and changes nothing: it is no
        hit, and nothing moves up."""
        key = entry_key(tenant, entry_id)
        found = await self._cache.peek(key)
        if found is None or found.entry is None:
            raise NotFound("no tier has this entry any more")
        entry = found.entry
        task = self._status.task_of(tenant, entry)
        if task not in ("recognize", "embed"):
            sound = await self._in_thread(wire.sound_of, entry.frames, self._notes.format_of(key))
            if sound is not None:
                return Response(200, sound.data, sound.media_type, _HEADERS)
        text = self._status.text_of(key, task, entry)
        if text:
            return _json({"text": text})
        raise NotFound(_WHY_SILENT.get(task, _WHY_SILENT[""]))

    async def _drop(self, tenant: str, entry_id: str) -> Response:
        return _json({"dropped": await self._admin.drop_entry(tenant, entry_id)})

    async def _pin(self, tenant: str, entry_id: str) -> Response:
        """Keeps an entry in the device tiers, also over a restart, until it is unpinned, dropped or erased."""
        assert self._pins is not None
        try:
            if not await self._pins.pin(entry_key(tenant, entry_id)):
                raise NotFound("the device tier has no such entry; ask for it once, and it has")
        except PinRefused as error:
            raise BadField("entry_id", entry_id, "an entry for which the pins have room", str(error)) from error
        except RedisUnavailable as error:
            raise Unavailable("the shared tier does not answer, so nothing was pinned; try again") from error
        return _json({"pinned": True})

    async def _unpin(self, tenant: str, entry_id: str) -> Response:
        assert self._pins is not None
        key = entry_key(tenant, entry_id)
        try:
            if not await self._pins.unpin(key) and key not in self._cache.device:
                raise NotFound("no such entry is pinned, or in the device tier")
        except RedisUnavailable as error:
            raise Unavailable("the shared tier does not answer, so other gateways may not know; try again") from error
        return _json({"pinned": False})

    async def _report(self, tenant: str, entry_id: str) -> Response:
        new = await self._admin.report_entry(tenant, entry_id)
        self._status.audits_changed(tenant)
        return _json({"quarantined": new})


_WHY_SILENT: Final = {
    "recognize": "a transcript, and showing words is not allowed here (status.show_text)",
    "embed": "an embedding of a voice, which has no sound",
    "": "this is a streamed answer that nobody has asked for since the gateway started, so how its sound is encoded is"
    " not known",
}


class _Caller:
    """What `Tenants` asks of a call."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._request.headers.items()

    def peer(self) -> str:
        # In gRPC's spelling; whoever is not surely on this machine is from anywhere.
        return "ipv4:127.0.0.1" if _is_local(self._request) else f"http:{self._request.peer}"

    def time_remaining(self) -> float | None:
        return None


def _is_local(request: Request) -> bool:
    """Whether the caller is on this machine, and means this machine."""
    headers = request.headers
    return (
        _loopback(request.peer)
        and _loopback(_host(headers.get("host", "")))
        and not any(name in headers for name in _PROXIES)
    )


def _host(authority: str) -> str:
    """HOST of HOST:PORT; empty for what is neither."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _check_origin(request: Request) -> None:
    """Raises `PermissionDenied` for what another site's page may have sent in its reader's name."""
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise PermissionDenied(f"content-type: send {_JSON}")
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin" or (origin is not None and origin.partition("://")[2] != headers.get("host")):
        raise PermissionDenied("this is for the gateway's own page, not for another site's")


def _entry_id(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    entry_id = document.get("entry_id") if isinstance(document, dict) else None
    if not isinstance(entry_id, str) or not entry_id:
        raise BadField("entry_id", body.decode("utf-8", "replace"), 'a JSON object such as {"entry_id": "e0123..."}')
    return entry_id.strip()


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, json.dumps(document, separators=(",", ":")).encode(), _JSON, _HEADERS)

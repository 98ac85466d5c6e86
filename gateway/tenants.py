"""Credentials to tenant. The tenant never comes from a request's body, and nothing of one tenant reaches another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from gateway.errors import CallerGone, Unauthenticated

DEFAULT_TENANT = "default"
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")


class CallContext(Protocol):
    """The part of grpc.aio.ServicerContext that says who calls, and how long they will wait."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def peer(self) -> str: ...

    def time_remaining(self) -> float | None:
        """Seconds; None for a call without a deadline."""
        ...


class Tenants:
    """Tokens are kept and compared as digests, so that neither a dump nor the time of a look-up gives one away."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tenants = {_digest(token): tenant for token, tenant in tokens.items()}

    def of(self, context: CallContext) -> str:
        """The caller's tenant. Raises `Unauthenticated`, and `CallerGone` where nobody is there to be told so."""
        if not self._tenants:
            peer = context.peer()
            if peer.startswith(_LOOPBACK):
                return DEFAULT_TENANT
            if not peer:
                raise CallerGone
            raise Unauthenticated(
                "no tokens are configured, so only callers on this machine are served; configure `tokens`"
            )
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                text = value if isinstance(value, str) else value.decode("latin-1")
                scheme, _, token = text.partition(" ")
                tenant = self._tenants.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
                if tenant is None:
                    raise Unauthenticated("metadata 'authorization': not a known token; send 'Bearer TOKEN'")
                return tenant
        raise Unauthenticated("metadata 'authorization' is missing; send 'Bearer TOKEN'")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

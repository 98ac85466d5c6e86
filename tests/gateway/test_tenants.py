"""Who calls is told by a token, or by being on this machine where there are no tokens; never by the request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.errors import CallerGone, Unauthenticated
from gateway.tenants import DEFAULT_TENANT, Tenants

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass
class Caller:
    """What Tenants sees of a call."""

    metadata: Metadata | None = ()
    address: str = "ipv4:203.0.113.7:40000"

    def invocation_metadata(self) -> Metadata | None:
        return self.metadata

    def peer(self) -> str:
        return self.address


@pytest.fixture
def tenants() -> Tenants:
    return Tenants({"alpha-token": "alpha", "beta-token": "beta"})


@pytest.mark.parametrize(
    "value", ["Bearer alpha-token", "bearer alpha-token", "BEARER  alpha-token ", b"Bearer alpha-token"]
)
def test_a_known_token_is_its_tenant(tenants: Tenants, value: str | bytes) -> None:
    assert tenants.of(Caller((("user-agent", "x"), ("authorization", value)))) == "alpha"


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "alpha-token", "Basic alpha-token", "Bearer alpha-toke", "Bearer alpha-token x", b"\xff"],
)
def test_anything_else_is_refused_and_not_repeated(tenants: Tenants, value: str | bytes) -> None:
    with pytest.raises(Unauthenticated, match="not a known token") as caught:
        tenants.of(Caller((("authorization", value),)))
    assert "alpha" not in str(caught.value)


@pytest.mark.parametrize("metadata", [None, (), (("x-tenant", "alpha"), ("tenant", "alpha"))])
def test_no_token_is_refused_even_on_this_machine(tenants: Tenants, metadata: Metadata | None) -> None:
    with pytest.raises(Unauthenticated, match="missing"):
        tenants.of(Caller(metadata, "ipv4:127.0.0.1:40000"))


def test_the_first_credentials_count(tenants: Tenants) -> None:
    both: Metadata = (("authorization", "Bearer beta-token"), ("authorization", "Bearer alpha-token"))
    assert tenants.of(Caller(both)) == "beta"
    with pytest.raises(Unauthenticated):
        tenants.of(Caller((("authorization", "Bearer none"), *both)))


@pytest.mark.parametrize("address", ["ipv4:127.0.0.1:9", "ipv6:[::1]:9", "ipv6:%5B::1%5D:9", "unix:/run/refrain.sock"])
def test_without_tokens_this_machine_is_the_default_tenant(address: str) -> None:
    assert Tenants({}).of(Caller(address=address)) == DEFAULT_TENANT


@pytest.mark.parametrize(
    "address", ["ipv4:203.0.113.7:9", "ipv4:12.7.0.1:9", "ipv6:[::2]:9", "ipv6:[2001:db8::1]:9", "unknown"]
)
def test_without_tokens_nobody_else_is_served(address: str) -> None:
    with pytest.raises(Unauthenticated, match="configure `tokens`"):
        Tenants({}).of(Caller((("authorization", "Bearer guess"),), address))


def test_no_token_is_kept_in_clear(tenants: Tenants) -> None:
    assert "alpha-token" not in repr(vars(tenants))


def test_a_caller_whose_address_is_gone_with_it_is_no_stranger_and_is_not_served() -> None:
    with pytest.raises(CallerGone):
        Tenants({}).of(Caller(address=""))
    with pytest.raises(Unauthenticated):
        Tenants({"alpha-token": "alpha"}).of(Caller(address=""))

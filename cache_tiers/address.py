"""What a Redis URL says: one server, the master that Sentinels name, or a Cluster; and how to connect to each.

    redis://[user:password@]host[:port][/db]            rediss:// the same over TLS
    unix://[user:password@]/path/to/socket[?db=N]
    redis+sentinel://[user:password@]host[:port],host[:port].../service[?db=N]       rediss+sentinel://
    redis+cluster://[user:password@]host[:port],host[:port]...                       rediss+cluster://

User, password and options are redis-py's own, percent-encoded where need be. No error message repeats the URL, which
may hold a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import Connection, parse_url

SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip
_TLS: Final = (
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname",
    "ssl_min_version", "ssl_ciphers",
)  # fmt: skip
_SENTINEL: Final = ("sentinel_username", "sentinel_password")
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26_379


@dataclass(frozen=True, slots=True)
class Address:
    kind: Literal["single", "sentinel", "cluster"]
    options: Mapping[str, Any] = field(repr=False)
    """What a connection of redis-py takes, but for host and port where there are several."""
    hosts: tuple[tuple[str, int], ...] = ()
    """The Sentinels, or the nodes of the Cluster to ask first."""
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """The URL without what is secret, for messages."""
        tls = "rediss" if "ssl" in self.options["connection_class"].__name__.lower() else "redis"
        if self.kind == "single":
            if "path" in self.options:
                return f"unix://{self.options['path']}"
            return f"{tls}://{self.options.get('host', 'localhost')}:{self.options.get('port', REDIS_PORT)}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{tls}+{self.kind}://{hosts}" + (f"/{self.service}" if self.service else "")


def parse_address(url: str) -> Address:
    """Raises ValueError, with a text for the operator, for a URL that means nothing."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"Redis URL: {error}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"Redis URL scheme {parts.scheme!r}: allowed are {', '.join(SCHEMES)}")
    plain, _, kind = parts.scheme.partition("+")
    query = _options(parts.query, kind, tls=plain == "rediss")
    user, at, where = parts.netloc.rpartition("@")
    if plain == "unix":
        if not parts.path:
            raise ValueError("Redis URL: unix:// takes a path, as in unix:///run/redis.sock")
        return Address("single", _connection(url, query))
    hosts = tuple(_host(host, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for host in where.split(","))
    path = parts.path.strip("/")
    if not kind:
        if len(hosts) > 1:
            raise ValueError(f"Redis URL: {plain}:// names one server; several are {plain}+cluster or {plain}+sentinel")
        if path and not path.isdigit():
            raise ValueError(f"Redis URL: after the host stands the number of a database, not {path!r}")
        return Address("single", _connection(url, query))
    if kind == "cluster" and (path or query.get("db", "0") != "0"):
        raise ValueError("Redis URL: a Cluster has no databases but 0")
    if kind == "sentinel" and (not path or "/" in path):
        raise ValueError("Redis URL: after the Sentinels stands the service they watch, as in host:26379/mymaster")
    one = _connection(f"{plain}://{user}{at}server?{parts.query}", query)  # each server gets a host and port of its own
    options = {name: value for name, value in one.items() if name not in ("host", "port", *_SENTINEL)}
    if kind == "cluster":
        return Address("cluster", options, hosts)
    own = {name.removeprefix("sentinel_"): query[name] for name in _SENTINEL if name in query}
    own |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    return Address("sentinel", options, hosts, path, own | {"ssl": plain == "rediss"})


def _options(query: str, kind: str, *, tls: bool) -> dict[str, str]:
    allowed = ("db", "client_name", *(_TLS if tls else ()), *(_SENTINEL if kind == "sentinel" else ()))
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in allowed:
            raise ValueError(f"Redis URL option {name!r}: allowed here are {', '.join(allowed)}")
        if name == "db" and not value.isdigit():
            raise ValueError(f"Redis URL option db = {value!r}: a number is wanted")
        if name in _TLS_FILES and not Path(value).is_file():
            raise ValueError(f"Redis URL option {name} = {value!r}: there is no such file")
    return given


def _connection(url: str, query: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = dict(parse_url(url))
    options.setdefault("connection_class", Connection)
    if query.get("ssl_cert_reqs") not in (None, "none", "optional", "required"):
        raise ValueError(f"Redis URL option ssl_cert_reqs = {query['ssl_cert_reqs']!r}: none, optional or required")
    return options


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"Redis URL: {text!r} is no host[:port]") from None
    if not host:
        raise ValueError("Redis URL: a host is missing")
    return host, port or default_port

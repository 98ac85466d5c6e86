"""A URL means one thing, or is refused with a text that says what is wrong and holds no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_tiers.address import parse_address
from cache_tiers.link import RedisLink


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "told"),
    [
        ("redis://cache", "single", (), "", "redis://cache:6379"),
        ("redis://u:p%40ss@cache:7000/3", "single", (), "", "redis://cache:7000"),
        ("rediss://cache:7000", "single", (), "", "rediss://cache:7000"),
        ("unix:///run/redis.sock?db=1", "single", (), "", "unix:///run/redis.sock"),
        (
            "redis+sentinel://u:p@a,b:7001/main?db=2&sentinel_password=s",
            "sentinel",
            (("a", 26379), ("b", 7001)),
            "main",
            "redis+sentinel://a:26379,b:7001/main",
        ),
        ("rediss+sentinel://a/main", "sentinel", (("a", 26379),), "main", "rediss+sentinel://a:26379/main"),
        (
            "redis+cluster://a,[::1]:7001",
            "cluster",
            (("a", 6379), ("::1", 7001)),
            "",
            "redis+cluster://a:6379,::1:7001",
        ),
        ("rediss+cluster://u:p@a", "cluster", (("a", 6379),), "", "rediss+cluster://a:6379"),
    ],
)
def test_a_url_says_where_and_how(
    url: str, kind: str, hosts: tuple[tuple[str, int], ...], service: str, told: str
) -> None:
    address = parse_address(url)
    assert (address.kind, address.hosts, address.service, str(address)) == (kind, hosts, service, told)


def test_options_reach_the_connections(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.touch()
    query = f"ssl_ca_certs={ca}&ssl_check_hostname=false"
    cluster = parse_address(f"rediss+cluster://u:p%2Fw@a?{query}")
    assert cluster.options["password"] == "p/w"
    assert cluster.options["ssl_ca_certs"] == str(ca)
    assert cluster.options["ssl_check_hostname"] is False
    assert "host" not in cluster.options
    sentinel = parse_address(f"rediss+sentinel://u:p@a/main?db=2&sentinel_username=su&sentinel_password=sp&{query}")
    assert (sentinel.options["username"], sentinel.options["password"], sentinel.options["db"]) == ("u", "p", 2)
    own = sentinel.sentinel_options
    assert (own["username"], own["password"], own["ssl"], own["ssl_ca_certs"]) == ("su", "sp", True, str(ca))
    assert "p" not in repr(sentinel).split("'")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:secret@cache", "scheme 'http': allowed are redis, rediss, unix, "),
        ("cache:6379", "scheme 'cache'"),
        ("redis://u:secret@cache:port", "'cache:port' is no host"),
        ("redis://u:secret@a,b", r"redis\+cluster or redis\+sentinel"),
        ("redis://u:secret@cache/main", "number of a database, not 'main'"),
        ("redis://u:secret@cache?db=x", "db = 'x'"),
        ("redis://u:secret@cache?socket_timeout=3", "'socket_timeout': allowed here are db, client_name"),
        ("redis://cache?ssl_ca_certs=/ca", "'ssl_ca_certs'"),
        ("rediss://u:secret@cache?ssl_ca_certs=/no/such", "ssl_ca_certs = '/no/such': there is no such file"),
        ("rediss://u:secret@cache?ssl_cert_reqs=maybe", "none, optional or required"),
        ("unix://", "takes a path"),
        ("redis+sentinel://u:secret@a", "service they watch"),
        ("redis+sentinel://u:secret@a/b/c", "service they watch"),
        ("redis+cluster://u:secret@a/1", "no databases but 0"),
        ("redis+cluster://u:secret@a?db=1", "no databases but 0"),
        ("redis+cluster://u:secret@a,,b", "host is missing"),
        ("redis://[::1", "Redis URL"),
    ],
)
def test_a_url_that_means_nothing_is_refused_and_its_password_kept(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        RedisLink(url)
    assert "secret" not in str(refused.value)

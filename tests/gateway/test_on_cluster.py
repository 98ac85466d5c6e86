"""Whole gateways on a Redis Cluster: what the contract asks of several on one server, by the same tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cache_tiers.fleets import ClusterServers

# Collected here again, with this file's `redis_server`.
from tests.gateway.test_contract import (  # noqa: F401
    test_an_erased_subject_is_gone_from_every_gateway,
    test_gateways_on_one_redis_share_answers,
)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[ClusterServers]:
    cluster = ClusterServers()
    yield cluster
    cluster.close()

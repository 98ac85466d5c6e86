"""Which policy the device tier gets from the settings, and that a tenant's share is kept."""

from __future__ import annotations

import pytest

from cache_tiers.entry import CacheKey
from cache_tiers.policy.base import PinRefused
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.tinylfu import TinyLfuPolicy
from cache_tiers.policy.worth import WorthPolicy
from gateway.app import _device_policy
from gateway.settings import SettingsError, load


def key(tenant: str, n: int) -> CacheKey:
    return CacheKey(tenant, n.to_bytes(32, "little"))


@pytest.mark.parametrize(
    ("name", "kind"), [("worth", WorthPolicy), ("tinylfu", TinyLfuPolicy), ("lfu", LfuPolicy), ("lru", LruPolicy)]
)
def test_each_name_is_a_policy(name: str, kind: type) -> None:
    policy = _device_policy(load(overrides={"device": {"policy": name}}), 1000)
    assert type(policy) is kind
    assert policy.capacity == 1000
    assert policy.offer(key("t", 1), 10, 1.0) == []
    policy.touch(key("t", 1))


def test_the_default_is_by_worth_and_has_pins() -> None:
    policy = _device_policy(load(overrides={"device": {"pin_share": 0.1}}), 1000)
    assert isinstance(policy, WorthPolicy)
    assert policy.pin_limit == 100


def test_a_tenant_with_a_share_leaves_the_rest_to_others() -> None:
    policy = _device_policy(load(overrides={"tenants": {"loud": {"device_share": 0.3}, "other": {}}}), 1000)
    for n in range(70):
        policy.offer(key("other", n), 10, 1.0)
    for n in range(1000):
        policy.offer(key("loud", n), 10, 1e6)
    assert all(key("other", n) in policy for n in range(70))
    assert policy.used == 1000


def test_a_share_that_nothing_would_keep_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"tenants\.loud\.device_share = 0\.3: device\.policy = 'lru' has no shares"
    ):
        load(overrides={"device": {"policy": "lru"}, "tenants": {"loud": {"device_share": 0.3}}})
    with pytest.raises(SettingsError, match="device_share"):
        load(overrides={"tenants": {"loud": {"device_share": 0}}})


def test_one_tenant_cannot_take_all_the_room_for_pins() -> None:
    tenants = {"big": {"pin_share": 1.0}, "none": {"pin_share": 0.0}}
    policy = _device_policy(load(overrides={"device": {"pin_share": 0.2}, "tenants": tenants}), 1000)
    assert isinstance(policy, WorthPolicy)
    for tenant in ("big", "none", "unlisted"):
        for n in range(2):
            policy.offer(key(tenant, n), 100, 1.0)
    with pytest.raises(PinRefused, match="keys of 'none' take 0 bytes and may take 0"):
        policy.pin(key("none", 0))
    policy.pin(key("unlisted", 0))
    with pytest.raises(PinRefused, match="keys of 'unlisted' take 100 bytes and may take 100"):
        policy.pin(key("unlisted", 1))
    policy.pin(key("big", 0))
    with pytest.raises(SettingsError, match="pin_share"):
        load(overrides={"tenants": {"loud": {"pin_share": 1.5}}})

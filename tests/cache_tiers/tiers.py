"""The tiers that the conformance suite runs over, by name. Other files add theirs: `tier_factories["redis"] = ...`,
from the folder's conftest.py, which is loaded before any test is collected. A factory may skip where it cannot run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from cache_tiers.device import DeviceTier
from cache_tiers.memory import HostMemory
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.tier import Tier

CAPACITY = 1 << 20


@asynccontextmanager
async def device_lfu() -> AsyncIterator[Tier]:
    yield DeviceTier(HostMemory(CAPACITY), LfuPolicy(CAPACITY), clock=time.time)


@asynccontextmanager
async def device_lru() -> AsyncIterator[Tier]:
    yield DeviceTier(HostMemory(CAPACITY), LruPolicy(CAPACITY), clock=time.time)


tier_factories: dict[str, Callable[[], AbstractAsyncContextManager[Tier]]] = {
    "device-lfu": device_lfu,
    "device-lru": device_lru,
}

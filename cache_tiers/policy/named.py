"""The policies by the names that settings, reports and benchmarks have for them: one table for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cache_tiers.policy.base import Policy
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.tinylfu import TinyLfuPolicy
from cache_tiers.policy.worth import WorthPolicy

POLICIES: Final[dict[str, Callable[..., Policy[Any]]]] = {
    "lru": LruPolicy,
    "lfu": LfuPolicy,
    "tinylfu": TinyLfuPolicy,
    "worth": WorthPolicy,
}
"""Each is made with a capacity in bytes, and with what else it alone takes."""

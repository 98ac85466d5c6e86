"""What goes between the models of an engine, kept on their device: the mel of a clause, from its acoustic model to any
vocoder. Who asks for a text again in another encoding or rate, or of a new vocoder, pays for the vocoder alone.

    find: tier ─lease▶ gather its pages, in a thread ▶ lease back      keep: allocate ▶ copy in, in a thread ▶ tier

A component is kept as an answer is: under a key of its tenant, with the tags it is erased by, for as long as the
request allows, and not at all if it was erased while it was made. It never leaves this process. What fails is a miss,
and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, cast

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.epochs import EpochBook
from cache_tiers.events import tenant_tag
from cache_tiers.pages import PagedBlock, PagedMemory
from cache_tiers.policy.base import Policy
from gateway import wire
from gateway.keys import TenantKeys
from gateway.paced import AFTER_S

log = logging.getLogger("refrain.components")

SPARE: Final = 8
"""One in so many bytes is not for the policy to fill: in them lie components on their way in, and dropped ones that are
still being read."""


@dataclass(slots=True)
class ComponentStats:
    """Counts since the start. Each look-up is a hit, a miss or a failure; each offer is kept, refused or a failure."""

    hits: int = 0
    misses: int = 0
    kept: int = 0
    refused: int = 0
    """No room, or erased while it was made."""
    failures: int = 0
    """Copies that the device could not make."""
    saved_ms: float = 0.0
    """What the hits had taken to make."""


class ComponentCache:
    """The tier of components on one device. Event-loop confined; copying goes to `pool`."""

    def __init__(
        self,
        memory: PagedMemory[Any],
        device: str,
        policy: Callable[[int], Policy[CacheKey]],
        epochs: EpochBook,
        pool: Executor,
        *,
        clock: Callable[[], float],
        keeping: Callable[[], bool] = lambda: True,
    ) -> None:
        """`device` as onnxruntime names it; `policy` makes one for so many bytes; `clock` gives Unix seconds; `keeping`
        is False while erasures by other gateways are not heard of."""
        self.capacity = memory.free_bytes - memory.free_bytes // SPARE
        self.tier = DeviceTier(memory, policy(self.capacity), clock=clock)
        self.memory, self.device, self.stats = memory, device, ComponentStats()
        self.epochs, self.pool, self.clock, self.keeping = epochs, pool, clock, keeping
        self.makers: set[str] = set()
        """Of all that was ever kept."""
        self._behind: set[asyncio.Task[None]] = set()

    def of_call(
        self, keys: TenantKeys, maker: str, tags: tuple[str, ...], control: wire.Control
    ) -> CallComponents | None:
        """What one call may remember; asked for before the call is computed, because what is erased from now on must
        not be kept. `maker`: identity of what makes its components. None for a call that wants no memory."""
        if control.mode == wire.Mode.BYPASS:
            return None
        return CallComponents(self, keys, maker, tags, control)

    def served_by(self, makers: Collection[str]) -> None:
        """Drops what others have made: it would not be found again."""
        for maker in self.makers.difference(makers):
            self.tier.drop_tag(maker)
        self.makers.intersection_update(makers)

    def later(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Does it behind the answer, which is about to be encoded on the same event loop."""

        async def behind() -> None:
            await asyncio.sleep(AFTER_S)
            await work()

        task = asyncio.get_running_loop().create_task(behind())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def failed(self, what: str) -> None:
        self.stats.failures += 1
        log.warning("a component could not be %s", what, exc_info=True)


class CallComponents:
    """`models.engine.Components` for one call."""

    def __init__(
        self, cache: ComponentCache, keys: TenantKeys, maker: str, tags: tuple[str, ...], control: wire.Control
    ) -> None:
        self.device = cache.device
        self._cache, self._keys, self._maker, self._tags, self._control = cache, keys, maker, tags, control
        self._begun: Epochs = cache.epochs.of((*tags, tenant_tag(keys.tenant)))

    async def find(self, name: bytes) -> Any | None:
        cache, control = self._cache, self._control
        if control.mode == wire.Mode.REFRESH:
            return None
        lease = cache.tier.lookup(self._keys.component_key(name))
        most = control.max_age_s
        if lease is not None and most is not None and cache.clock() - lease.entry.created > most:
            lease.release()
            lease = None
        if lease is None:
            cache.stats.misses += 1
            return None
        block = cast(PagedBlock, lease.block)
        try:
            copying = asyncio.get_running_loop().run_in_executor(cache.pool, cache.memory.copy_out, block)
            # Given back when the thread has done with the pages: if the caller is cancelled, that is after this ends.
            copying.add_done_callback(lambda _: lease.release())
            tensor = await asyncio.shield(copying)
        except Exception:
            lease.release()
            cache.failed("read")
            return None
        cache.stats.hits += 1
        cache.stats.saved_ms += lease.entry.cost_ms
        return tensor

    async def keep(self, name: bytes, tensor: Any, cost_ms: float) -> None:
        """Does not wait until it is kept: the caller's answer does not depend on it."""
        self._cache.later(lambda: self.keep_now(name, tensor, cost_ms))

    async def keep_now(self, name: bytes, tensor: Any, cost_ms: float) -> None:
        """As `keep`, to its end."""
        cache, control = self._cache, self._control
        if control.no_store or (control.ttl_s is not None and control.ttl_s <= 0):
            return
        block = await self._placed(tensor)
        if block is None:
            return
        # From here on nothing waits, so what is checked still holds when it is stored.
        created = cache.clock()
        expires = 0.0 if control.ttl_s is None else created + control.ttl_s
        entry = Entry((), cost_ms, created, expires, (*self._tags, self._maker))
        if not cache.keeping() or not cache.epochs.unchanged(self._begun):
            cache.memory.release(block)
            cache.stats.refused += 1
        elif cache.tier.store(self._keys.component_key(name), entry, block):
            cache.makers.add(self._maker)
            cache.stats.kept += 1
        else:
            cache.stats.refused += 1

    async def _placed(self, tensor: Any) -> PagedBlock | None:
        """A block with a copy of the tensor. None where there is no room, or the device fails."""
        cache, memory = self._cache, self._cache.memory
        block = memory.allocate(memory.footprint(tensor.tensor_size_in_bytes()))
        if block is None:
            cache.stats.refused += 1
            return None
        copying = asyncio.get_running_loop().run_in_executor(cache.pool, memory.copy_in, block, tensor)
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:  # not before the thread has done with it
            copying.add_done_callback(lambda _: memory.release(block))
            raise
        except Exception:
            memory.release(block)
            cache.failed("kept")
            return None
        return block

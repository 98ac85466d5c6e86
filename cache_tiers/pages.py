"""Device memory in pages of one size: a value lies on any pages that are free, wherever they are.

So there is no external fragmentation, by construction: what is free can be allocated, in whatever order blocks came and
went, and a value wastes less than one page. A model wants its input in one piece, so copying out gathers the pages, on
the device; docs/decisions.md has what that costs beside slabs and runs.

What a page is made of, and how a value gets onto it, is the business of `Pages`: nothing here touches the device.
"""

from __future__ import annotations

import threading
from array import array
from typing import Generic, Protocol, TypeVar

from cache_tiers.memory import Block

T = TypeVar("T")


class Pages(Protocol[T]):
    """A row of equal pages on a device, and the way onto them and back. Blocking, and safe in any thread as long as
    nobody writes to a page that another uses."""

    @property
    def count(self) -> int: ...

    @property
    def page_bytes(self) -> int: ...

    def write(self, pages: array[int], value: T) -> tuple[int, ...]:
        """Puts the value onto these pages, in this order; returns its shape. ValueError when it does not fit."""
        ...

    def read(self, pages: array[int], shape: tuple[int, ...]) -> T:
        """A copy of the value, in one piece, on the same device."""
        ...


class PagedBlock(Block):
    __slots__ = ("pages", "shape")

    def __init__(self, pages: array[int], size: int) -> None:
        super().__init__(size)
        self.pages: array[int] | None = pages
        """int64 numbers of pages."""
        self.shape: tuple[int, ...] = ()
        """Of the value that was copied in."""


class PagedMemory(Generic[T]):
    """`cache_tiers.memory.DeviceMemory` of tensors. Allocating and releasing take microseconds; copying blocks, and is
    for threads. All are safe in any of them."""

    def __init__(self, pages: Pages[T]) -> None:
        self._pages = pages
        self._page_bytes = pages.page_bytes
        self._free = array("q", range(pages.count))
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        return len(self._free) * self._page_bytes

    def footprint(self, weight: int) -> int:
        return -(-weight // self._page_bytes) * self._page_bytes

    def allocate(self, size: int) -> PagedBlock | None:
        if size < 0:
            raise ValueError(f"size is {size}: it cannot be negative")
        count = -(-size // self._page_bytes)
        with self._lock:
            first = len(self._free) - count
            if first < 0:
                return None
            taken = self._free[first:]
            del self._free[first:]
        return PagedBlock(taken, count * self._page_bytes)

    def copy_in(self, block: PagedBlock, value: T) -> None:
        if block.pages is None:
            raise ValueError("this block was released")
        block.shape = self._pages.write(block.pages, value)

    def copy_out(self, block: PagedBlock) -> T:
        if block.pages is None:
            raise ValueError("this block was released")
        return self._pages.read(block.pages, block.shape)

    def release(self, block: PagedBlock) -> None:
        with self._lock:
            if block.pages is None:
                raise ValueError("this block was released before")
            self._free.extend(block.pages)
            block.pages = None

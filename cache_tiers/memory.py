"""Device memory: where a tier's blocks lie, behind one small interface: allocate, copy in, copy out, release.

Two forms. `HostMemory` holds answers. The bytes that the network sends are immutable and live in the process's heap, so
copying them in or out hands on the same objects, only sizes are kept, and the hot path copies nothing. They are never
on a GPU: no model reads them. `pages.PagedMemory` holds tensors for models to bind, in the memory of the device that
runs them. A release frees a block at once; that nobody still uses it is the tier's business (its leases).
"""

from __future__ import annotations

from typing import Protocol, TypeVar

B = TypeVar("B", bound="Block")
T = TypeVar("T")


class Block:
    """One allocation of `size` bytes. Each form of memory derives its own, with what it needs to find the value."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class DeviceMemory(Protocol[B, T]):
    """A memory of fixed size, in blocks B, for values T. Blocks come from it and go back to it, whole."""

    @property
    def free_bytes(self) -> int:
        """What may still be allocated. A block of this size can be, whatever came and went before."""
        ...

    def footprint(self, weight: int) -> int:
        """Bytes that a value of this weight takes here: the weight, rounded up to the memory's unit."""
        ...

    def allocate(self, size: int) -> B | None:
        """A block of `size` bytes (a footprint). None when there is no room."""
        ...

    def copy_in(self, block: B, value: T) -> None:
        """Puts the value into a block that holds none yet. ValueError when it does not fit."""
        ...

    def copy_out(self, block: B) -> T:
        """The value of a block. ValueError when it was released."""
        ...

    def release(self, block: B) -> None:
        """Gives the bytes back. ValueError when that was done before."""
        ...


class HostBlock(Block):
    __slots__ = ("frames",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.frames: tuple[bytes, ...] | None = ()


class HostMemory:
    """Host memory, of answers in their frames. Not thread-safe: one event loop owns it."""

    def __init__(self, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes is {capacity_bytes}: it cannot be negative")
        self.free_bytes = capacity_bytes

    def footprint(self, weight: int) -> int:
        return weight

    def allocate(self, size: int) -> HostBlock | None:
        if size > self.free_bytes:
            return None
        self.free_bytes -= size
        return HostBlock(size)

    def copy_in(self, block: HostBlock, value: tuple[bytes, ...]) -> None:
        block.frames = value

    def copy_out(self, block: HostBlock) -> tuple[bytes, ...]:
        if block.frames is None:
            raise ValueError("this block was released")
        return block.frames

    def release(self, block: HostBlock) -> None:
        if block.frames is None:
            raise ValueError("this block was released before")
        block.frames = None
        self.free_bytes += block.size

"""Device memory: where the first tier's blocks lie, behind one small interface.

A block holds the frames of one entry. `read` gives the bytes the network sends: they have a host shadow in every form
of memory, so reading is handing out the same objects, and the hot path copies nothing. `release` frees a block at once;
that nobody still uses it is the tier's business (its leases). Not thread-safe: one event loop owns a memory.
"""

from __future__ import annotations

from typing import Protocol


class Block:
    """One allocation. Forms of memory with a device side derive from it and add their handle."""

    __slots__ = ("frames", "size")

    def __init__(self, frames: tuple[bytes, ...], size: int) -> None:
        self.frames: tuple[bytes, ...] | None = frames
        self.size = size


class DeviceMemory(Protocol):
    """A memory of fixed size. Blocks come from it and go back to it, whole."""

    @property
    def free_bytes(self) -> int:
        """What may still be placed."""
        ...

    def footprint(self, weight: int) -> int:
        """Bytes that a block of this weight takes here: the weight, rounded up to the memory's unit."""
        ...

    def place(self, frames: tuple[bytes, ...], size: int) -> Block | None:
        """Copies the frames in, into a block of `size` bytes (a footprint). None when there is no room."""
        ...

    def read(self, block: Block) -> tuple[bytes, ...]:
        """The frames of a block. ValueError when it was released."""
        ...

    def release(self, block: Block) -> None:
        """Gives the bytes back. ValueError when that was done before."""
        ...


class HostMemory:
    """Host memory. Frames are immutable bytes, so placing and reading them copies nothing: only sizes are kept."""

    def __init__(self, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes is {capacity_bytes}: it cannot be negative")
        self.free_bytes = capacity_bytes

    def footprint(self, weight: int) -> int:
        return weight

    def place(self, frames: tuple[bytes, ...], size: int) -> Block | None:
        if size > self.free_bytes:
            return None
        self.free_bytes -= size
        return Block(frames, size)

    def read(self, block: Block) -> tuple[bytes, ...]:
        if block.frames is None:
            raise ValueError("this block was released")
        return block.frames

    def release(self, block: Block) -> None:
        if block.frames is None:
            raise ValueError("this block was released before")
        block.frames = None
        self.free_bytes += block.size

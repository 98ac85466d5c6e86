"""Arrays that grow in place: rows of numbers in memory that the system hands out page by page, as they are written.

An array of half a gigabyte that is copied to grow holds every caller up for as long, and needs half a gigabyte more.
An anonymous mapping is enlarged by moving its page table, and what was never written takes no memory.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LEAST: Final = 1 << 16
"""Bytes of the smallest mapping."""


class Rows:
    """`array`, [capacity, columns] or [capacity] where `columns` is 0; zeros until written.

    Keep no view of `array` across `reserve`, which may move it. Not safe to use from several threads.
    """

    def __init__(self, dtype: npt.DTypeLike, columns: int = 0, capacity: int = 0) -> None:
        self._dtype = np.dtype(dtype)
        self._columns = columns
        self._row_bytes = self._dtype.itemsize * max(1, columns)
        self._map = _mapping(max(_LEAST, capacity * self._row_bytes))
        self.array = self._view()

    def __len__(self) -> int:
        return len(self.array)

    def reserve(self, rows: int) -> None:
        """Make room for at least `rows`, and half as many again as there are, so that growing is rare."""
        if rows <= len(self.array):
            return
        size = max(rows, len(self.array) * 3 // 2) * self._row_bytes
        self.array = self.array[:0]
        del self.array
        try:
            self._map.resize(size)
        except (BufferError, SystemError, OSError, ValueError):  # a view is held, or the system cannot move a mapping
            old, self._map = self._map, _mapping(size)
            self._map[: len(old)] = old[:]
        self.array = self._view()

    def _view(self) -> npt.NDArray[Any]:
        flat = np.frombuffer(self._map, self._dtype, len(self._map) // self._row_bytes * max(1, self._columns))
        return flat.reshape(-1, self._columns) if self._columns else flat


def _mapping(size: int) -> mmap.mmap:
    private = getattr(mmap, "MAP_PRIVATE", None)
    return mmap.mmap(-1, size) if private is None else mmap.mmap(-1, size, flags=private | mmap.MAP_ANONYMOUS)

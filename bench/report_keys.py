"""The records of a trace by key: which is the first of its key, what a key's answer weighs and what it costs.

Keys are numbered from 0 in the order of their digests. One stable sort serves everything; 10 million records take some
seconds and 0.3 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bench.report_counts import Array, Kept


@dataclass(frozen=True)
class ByKey:
    """Positions are those of records in the trace."""

    kept: Kept
    order: npt.NDArray[np.uint32]
    """[n] positions, key by key, in order of time within each."""
    starts: npt.NDArray[np.int64]
    """[k] where in `order` each key begins."""

    @property
    def keys(self) -> int:
        return len(self.starts)

    @cached_property
    def key(self) -> npt.NDArray[np.uint32]:
        """[n] each record's key."""
        numbers = np.empty(len(self.order), np.uint32)
        numbers[self.order] = np.repeat(np.arange(self.keys, dtype=np.uint32), self.counts)
        return numbers

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """[k] requests."""
        return np.diff(self.starts, append=len(self.order))

    @cached_property
    def first(self) -> npt.NDArray[np.bool_]:
        """[n] whether the key had not come before."""
        first = np.zeros(len(self.order), bool)
        first[self.order[self.starts]] = True
        return first

    @cached_property
    def weights(self) -> npt.NDArray[np.int64]:
        """[k] bytes of the answer, the most that were sent; 1 for all where the trace holds no sizes."""
        found = self._most(self.kept.bytes_out).astype(np.int64)
        return np.maximum(found, 1)

    @cached_property
    def costs(self) -> npt.NDArray[np.float64]:
        """[k] milliseconds of compute that the answer took: the median (the lower one) of those recorded; 0 where none
        are. The most of them would be that of a busy moment, by which a policy that weighs costs would be misjudged."""
        if not self.keys:
            return np.zeros(0)
        costs = self.kept.cost_ms[self.order]
        told = np.add.reduceat((costs > 0).astype(np.int64), self.starts)
        ranked = costs[np.lexsort((costs, np.repeat(np.arange(self.keys, dtype=np.uint32), self.counts)))]
        middle = self.starts + self.counts - 1 - told // 2  # those that tell nothing come first
        return np.where(told > 0, ranked[np.minimum(middle, len(ranked) - 1)], 0.0).astype(np.float64)

    def _most(self, column: Array) -> Array:
        if not self.keys:
            return column[:0]
        most: Array = np.maximum.reduceat(column[self.order], self.starts)
        return most


def by_key(kept: Kept) -> ByKey:
    order = np.argsort(kept.digest, kind="stable").astype(np.uint32)
    digests = kept.digest[order]
    new = np.ones(len(digests), bool)
    new[1:] = digests[1:] != digests[:-1]
    return ByKey(kept, order, np.flatnonzero(new))

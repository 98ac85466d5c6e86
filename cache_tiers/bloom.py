"""A Bloom filter that never fails and knows when it does not know. A hint: "no" saves a round trip, "maybe" costs one.

pybloom_live's filter has a fixed size, cannot forget and raises when full. This one is a row of such filters
(generations). A filter that `forgets` keeps the two youngest, so an item is remembered for at least `capacity` further
ones; one that does not grows by generations twice as large and half as wrong, until a rebuild replaces them by one of
the right size. Either way the error rate of the whole row stays within the one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from pybloom_live import BloomFilter


@dataclass(slots=True)
class BloomStats:
    said_no: int = 0
    said_maybe: int = 0
    false_positives: int = 0
    """Told by who looked: "maybe", and nothing was there. In a filter of Redis keys, expired and evicted ones too."""
    false_negatives: int = 0
    """Told by who looked: "no", and something was there."""
    rotations: int = 0
    rebuilds: int = 0

    @property
    def false_positive_rate(self) -> float:
        """Measured: the share of absent items that were called maybe."""
        absent = self.said_no - self.false_negatives + self.false_positives
        return self.false_positives / absent if absent > 0 else 0.0


class _Generation:
    """One pybloom_live filter that is told it is full before it raises."""

    def __init__(self, capacity: int, error_rate: float) -> None:
        self.capacity = capacity
        self._filter = BloomFilter(capacity, error_rate)

    @property
    def full(self) -> bool:
        return len(self) >= self.capacity

    # pybloom_live hashes bytes by their repr, which is slow: latin-1 carries every byte as one character.
    def add(self, item: bytes) -> None:
        self._filter.add(item.decode("latin-1"))

    def __contains__(self, item: bytes) -> bool:
        return item.decode("latin-1") in self._filter

    def __len__(self) -> int:
        return int(self._filter.count)


class RotatingBloom:
    def __init__(self, capacity: int, error_rate: float = 1e-3, *, forgets: bool = True) -> None:
        if capacity < 1:
            raise ValueError(f"Bloom filter capacity {capacity}: must be at least 1")
        if not 0 < error_rate < 1:
            raise ValueError(f"Bloom filter error rate {error_rate}: must lie between 0 and 1")
        self.capacity = capacity
        self.error_rate = error_rate
        self.forgets = forgets
        self.stats = BloomStats()
        self._row = [self._first(capacity)]
        self._next: list[_Generation] | None = None
        self._blind = False

    @property
    def rebuilding(self) -> bool:
        """True while the filter says maybe to everything."""
        return self._blind

    @property
    def fill(self) -> float:
        """Items held, as a share of those the present generations were made for."""
        return len(self) / sum(generation.capacity for generation in self._row)

    def __len__(self) -> int:
        return sum(map(len, self._row))

    def add(self, item: bytes) -> None:
        self._add(self._row, item)
        if self._next is not None:
            self._add(self._next, item)

    def __contains__(self, item: bytes) -> bool:
        maybe = self.peek(item)
        if maybe:
            self.stats.said_maybe += 1
        else:
            self.stats.said_no += 1
        return maybe

    def peek(self, item: bytes) -> bool:
        """As `in`, but not counted."""
        return self._blind or any(item in generation for generation in reversed(self._row))

    def start_rebuild(self, capacity: int | None = None, *, blind: bool = True) -> None:
        """From now on items go into a new row as well. `blind`: the old one is not to be trusted until then."""
        self.capacity = capacity or self.capacity
        self._next = [self._first(self.capacity)]
        self._blind = self._blind or blind

    def add_to_rebuild(self, item: bytes) -> None:
        """An item that the rebuild found; the old row is about to go and need not learn it."""
        self._add(self._row if self._next is None else self._next, item)

    def end_rebuild(self) -> None:
        if self._next is not None:
            self._row, self._next, self._blind = self._next, None, False
            self.stats.rebuilds += 1

    def was_wrong(self, *, absent: bool) -> None:
        """Hook for who looked: `absent` after a maybe that found nothing, else after a no that was none."""
        if absent:
            self.stats.false_positives += 1
        else:
            self.stats.false_negatives += 1

    def _first(self, capacity: int) -> _Generation:
        return _Generation(capacity, self.error_rate / 2)

    def _add(self, row: list[_Generation], item: bytes) -> None:
        if row[-1].full:
            self.stats.rotations += 1
            if self.forgets:
                del row[:-1]
                row.append(self._first(self.capacity))
            else:
                row.append(_Generation(row[-1].capacity * 2, self.error_rate / 2 ** (len(row) + 1)))
        row[-1].add(item)

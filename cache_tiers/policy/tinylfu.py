"""Window TinyLFU: least recently used with an admission sketch (G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly
efficient cache admission policy", ACM Transactions on Storage 13, 2017), the policy of Caffeine and theine.

Newcomers enter a small window. What falls out of it may replace what falls out of the main part, if the sketch has
counted it more often of late; the main part keeps what was hit there again (protected, 80 %) from what was not
(probation). The window takes 1 % of the capacity, as in the paper; Caffeine's climbing of hills by its size is not
here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

WINDOW_SHARE: Final = 0.01
PROTECTED_SHARE: Final = 0.8
MOST: Final = 15
SAMPLE: Final = 10
"""Uses for each resident key after which all counts are halved."""
_ROWS: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)


class Sketch:
    """A count-min sketch of four rows, a byte a counter, which grows with the number of keys it is to tell apart."""

    def __init__(self, keys: int = 64) -> None:
        self._seen = 0
        self._make(keys)

    def _make(self, keys: int) -> None:
        bits = max(6, (keys - 1).bit_length() + 2)
        self.keys = 1 << (bits - 2)
        self._shift = 64 - bits
        self._rows = [bytearray(1 << bits) for _ in _ROWS]

    def _cells(self, number: int) -> list[tuple[bytearray, int]]:
        return [
            (row, (number * odd & 0xFFFFFFFFFFFFFFFF) >> self._shift)
            for row, odd in zip(self._rows, _ROWS, strict=True)
        ]

    def add(self, number: int) -> None:
        for row, cell in self._cells(number):
            if row[cell] < MOST:
                row[cell] += 1
        self._seen += 1
        if self._seen >= SAMPLE * self.keys:
            self._seen //= 2
            halves = bytes(count // 2 for count in range(256))
            self._rows = [row.translate(halves) for row in self._rows]

    def count(self, number: int) -> int:
        return min(row[cell] for row, cell in self._cells(number))

    def fit(self, keys: int) -> None:
        """Tells at least so many keys apart; the counts begin anew where it has to grow."""
        if keys > self.keys:
            self._make(keys)


class TinyLfuPolicy(Generic[K]):
    """`number` makes the number of a key that the sketch counts."""

    def __init__(self, capacity: int, *, number: Callable[[K], int] = hash) -> None:
        self.capacity = capacity
        self._window_size = max(1, int(capacity * WINDOW_SHARE))
        self._main_size = capacity - self._window_size
        self._number = number
        self._sketch = Sketch()
        self._weights: dict[K, int] = {}
        self._window: OrderedDict[K, None] = OrderedDict()
        self._probation: OrderedDict[K, None] = OrderedDict()
        self._protected: OrderedDict[K, None] = OrderedDict()
        self._in_window = self._in_protected = self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def touch(self, key: K) -> None:
        weight = self._weights[key]
        self._sketch.add(self._number(key))
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        else:
            del self._probation[key]
            self._protected[key] = None
            self._in_protected += weight
            while self._in_protected > self._main_size * PROTECTED_SHARE:
                other, _ = self._protected.popitem(last=False)
                self._in_protected -= self._weights[other]
                self._probation[other] = None

    def offer(self, key: K, weight: int, cost_ms: float) -> Sequence[K] | None:
        if weight > self.capacity:
            return None
        if key in self._weights:
            return self._weigh_anew(key, weight)
        self._sketch.add(self._number(key))
        victims: list[K] = []
        if weight > self._window_size:  # too large for the window: it must win a place in the main part at once
            if self._used + weight > self.capacity and not self._wins(key, weight):
                return None
            self._make_room(weight, victims)
            self._probation[key] = None
        else:
            self._window[key] = None
            self._in_window += weight
        self._weights[key] = weight
        self._used += weight
        self._sketch.fit(len(self._weights))
        while self._in_window > self._window_size:
            candidate, _ = self._window.popitem(last=False)
            self._in_window -= self._weights[candidate]
            if self._used <= self.capacity:
                self._probation[candidate] = None
            elif self._wins(candidate, 0):
                self._make_room(0, victims)
                self._probation[candidate] = None
            else:
                self._gone(candidate)
                victims.append(candidate)
        self._make_room(0, victims)
        return victims

    def shed(self, weight: int) -> Sequence[K]:
        floor = max(0, self._used - weight)
        victims: list[K] = []
        while self._weights and self._used > floor:
            victims.append(self._lowest())
            self.remove(victims[-1])
        return victims

    def remove(self, key: K) -> None:
        if key not in self._weights:
            return
        if key in self._window:
            del self._window[key]
            self._in_window -= self._weights[key]
        elif key in self._protected:
            del self._protected[key]
            self._in_protected -= self._weights[key]
        else:
            del self._probation[key]
        self._gone(key)

    def __contains__(self, key: object) -> bool:
        return key in self._weights

    def __len__(self) -> int:
        return len(self._weights)

    def _lowest(self) -> K:
        return next(iter(self._probation or self._protected or self._window))

    def _wins(self, key: K, weight: int) -> bool:
        """Whether a key has been used more of late than all that would have to go for it."""
        over = self._used + weight - self.capacity
        mine, theirs = self._sketch.count(self._number(key)), 0
        for part in (self._probation, self._protected, self._window):
            for other in part:
                if over <= 0:
                    return True
                theirs += self._sketch.count(self._number(other))
                if theirs >= mine:
                    return False
                over -= self._weights[other]
        return over <= 0

    def _make_room(self, weight: int, victims: list[K]) -> None:
        while self._used + weight > self.capacity:
            victims.append(self._lowest())
            self.remove(victims[-1])

    def _weigh_anew(self, key: K, weight: int) -> list[K]:
        self.remove(key)
        victims: list[K] = []
        self._sketch.add(self._number(key))
        self._make_room(weight, victims)
        self._weights[key] = weight
        self._used += weight
        self._probation[key] = None
        return victims

    def _gone(self, key: K) -> None:
        self._used -= self._weights.pop(key)

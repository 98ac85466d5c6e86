"""Keys in the order in which they are worth keeping: frequency times what a hit saves per byte, aged by a clock.

The order is that of Greedy-Dual-Size-Frequency (L. Cherkasova, "Improving WWW proxies performance with
Greedy-Dual-Size- Frequency caching policy", HP Labs, 1998) with one exponent more: a key stands at

    clock when it was last used + uses ** exponent * cost / weight

and the lowest goes first. Whenever one goes, the clock moves on to where it stood. So what is not used sinks against
what is, without any time: exponent 0 is least recently used, 1 is GDSF, and a large one is least frequently used. Uses
count to 15, as in W-TinyLFU: beyond that a count says how old a key is rather than how much it is wanted.

Keys whose uses and value per byte are the same (values to half an octave) stand in one list, which is in order by
itself: the clock only goes forward. The lowest of all is then the lowest of the lists' heads, of which there are some
dozens, in a heap that is put right only where it is looked at. Every operation takes constant time but for that heap,
and another exponent costs as little: it moves lists, not keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from math import log2
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST_USES: Final = 15
_BASE: Final = 200.5
"""Half-octaves from the least value per byte to 1, and what rounds."""
_LEAST: Final = 2.0**-100


def list_of(uses: int, cost_ms: float, weight: int) -> int:
    """The number of the list for keys of so many uses and such a value; one more use is the next number."""
    value = cost_ms / weight if weight else cost_ms
    return int(2 * log2(value if value > _LEAST else _LEAST) + _BASE) * (MOST_USES + 1) + uses


class Worths(dict[int, float]):
    """What each list is worth at an exponent, in units of the clock; worked out when first asked for."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def become(self, exponent: float) -> None:
        self.exponent = exponent
        self.clear()

    def __missing__(self, number: int) -> float:
        half_octaves, uses = divmod(number, MOST_USES + 1)
        worth: float = uses**self.exponent * 2.0 ** ((half_octaves - int(_BASE)) / 2)
        self[number] = worth
        return worth


class Ranking(Generic[K]):
    """Keys that stand against each other. Several rankings may share one `Worths` and one clock."""

    __slots__ = ("_heads", "_queued", "_worths", "lists", "used")

    def __init__(self, worths: Worths) -> None:
        self.used = 0
        """Bytes of all that was placed and not taken out; kept by the owner."""
        self.lists: dict[int, OrderedDict[K, float]] = {}
        """By number, each key with the clock of its last use."""
        self._worths = worths
        # Of each list that is not empty at least one, which stands no higher than the list's head.
        self._heads: list[tuple[float, int, OrderedDict[K, float]]] = []
        self._queued: set[int] = set()

    def place(self, key: K, number: int, clock: float) -> None:
        """Puts a key behind all others of its list. The clock must not have gone back."""
        if number in self._queued:
            self.lists[number][key] = clock
        else:
            keys = self.lists.setdefault(number, OrderedDict())
            keys[key] = clock
            self._queued.add(number)
            heappush(self._heads, (clock + self._worths[number], number, keys))

    def put_back(self, key: K, number: int, clock: float) -> None:
        """Undoes the taking of a list's first key."""
        keys = self.lists.setdefault(number, OrderedDict())  # putting another back may have forgotten the empty list
        keys[key] = clock
        keys.move_to_end(key, last=False)
        self._queued.add(number)
        heappush(self._heads, (clock + self._worths[number], number, keys))
        if len(self._heads) > 4 * len(self.lists) + 64:
            self.reorder()

    def take(self, key: K, number: int) -> float:
        """Takes a key out; returns the clock it was placed with."""
        return self.lists[number].pop(key)

    def lowest(self) -> tuple[float, K] | None:
        """Where the lowest key stands, and the key."""
        heads, worths = self._heads, self._worths
        while heads:
            stands, number, keys = heads[0]
            if not keys:
                heappop(heads)
                self._queued.discard(number)
                continue
            key = next(iter(keys))
            now = keys[key] + worths[number]
            if now <= stands:
                return now, key
            heapreplace(heads, (now, number, keys))
        return None

    def reorder(self) -> None:
        """Forgets empty lists, and makes the heap anew: after the exponent has changed."""
        self.lists = {number: keys for number, keys in self.lists.items() if keys}
        self._queued = set(self.lists)
        self._heads = [
            (next(iter(keys.values())) + self._worths[number], number, keys) for number, keys in self.lists.items()
        ]
        heapify(self._heads)

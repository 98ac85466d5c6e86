"""How often keys were used that are not kept any more: counts by number, of which the oldest are forgotten first.

What an ordered dict does, in half its memory: nodes that link its entries, and the room that a dict keeps while entries
come and go, take more than the entries. Here they lie in generations, each a dict that is filled until it would grow,
and has entries only taken out from then on; a look-up goes through three to seven of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

SMALLEST: Final = 85
"""Entries of a generation, at least: as many as fit into a dict of 128 places."""


class Remembered:
    __slots__ = ("_generations", "_oldest", "_order", "_room", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._generations: deque[dict[int, int]] = deque([{}])
        """Newest first, without the one that is being forgotten."""
        self._room = SMALLEST
        """Entries that the newest may still take."""
        self._oldest: dict[int, int] = {}
        self._order: list[int] = []
        """Numbers of the oldest generation, whoever is next at the end; some have been taken."""

    def __len__(self) -> int:
        return self._size

    def take(self, number: int) -> int:
        """The count of a number, which is forgotten with that; 0 where there is none."""
        for generation in self._generations:
            if number in generation:
                self._size -= 1
                return generation.pop(number)
        if number in self._oldest:
            self._size -= 1
            return self._oldest.pop(number)
        return 0

    def add(self, number: int, uses: int, most: int) -> None:
        """Remembers a number that is not remembered, and of all only the `most` newest."""
        if number in self._generations[0]:  # of two keys with one number, which count as one
            self._generations[0][number] = uses
            return
        if not self._room:
            self._generations.appendleft({})
            # Two thirds of a power of two, between a sixth and a third of all.
            self._room = max(SMALLEST, (1 << (most // 2).bit_length()) // 3)
        self._room -= 1
        self._generations[0][number] = uses
        self._size += 1
        while self._size > most:
            self._forget_one()

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Forgets all other numbers."""
        for generation in (self._oldest, *self._generations):
            for number in [number for number in generation if not wanted(number)]:
                del generation[number]
                self._size -= 1

    def _forget_one(self) -> None:
        while True:
            while self._order:
                number = self._order.pop()
                if number in self._oldest:
                    del self._oldest[number]
                    self._size -= 1
                    return
            self._oldest = self._generations.pop()
            self._order = [*reversed(self._oldest)]
            if not self._generations:
                self._generations.append({})
                self._room = SMALLEST

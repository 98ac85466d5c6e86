"""Epochs: how an answer in the making learns that its subject was erased meanwhile (consistency contract, point 5).

Every tag has an epoch, a number that only grows. Erasing moves it first and deletes afterwards, so whoever read an
older epoch before the computation began must not store what comes out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from cache_tiers.entry import Epochs


class EpochBook(Protocol):
    """This process's view of the epochs: synchronous, so that a commit can check and store in one step of the loop."""

    def of(self, tags: Iterable[str]) -> Epochs:
        """The present epochs: one pair for every tag given, whether or not it ever moved."""
        ...

    def unchanged(self, epochs: Epochs) -> bool:
        """Whether all of them are still what they were."""
        ...


class LocalEpochs:
    """A book that lives and dies with the process: for a gateway without Redis, and for tests."""

    def __init__(self) -> None:
        self._moved: dict[str, int] = {}

    def bump(self, tag: str) -> int:
        epoch = self._moved[tag] = self._moved.get(tag, 0) + 1
        return epoch

    def of(self, tags: Iterable[str]) -> Epochs:
        return Epochs(tuple((tag, self._moved.get(tag, 0)) for tag in tags))

    def unchanged(self, epochs: Epochs) -> bool:
        return all(self._moved.get(tag, 0) == epoch for tag, epoch in epochs.of)

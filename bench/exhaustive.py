"""Every stored fingerprint against one query, at once: who would pass if the index missed nothing.

`Everything.accepted` gives exactly those that `verify` accepts. It finds the least distance to all of them over all
shifts in one sweep, which bounds verify's from below, and asks verify about those it does not rule out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.verify import SLACK, STORED_COVERAGE, global_limit, verify

Floats = npt.NDArray[np.float64]
STEP = 64


class Everything:
    """All fingerprints, stacked by length in steps of a second; what a shorter one lacks is trusted in nothing."""

    def __init__(self, prints: list[tuple[int, Fingerprint]]) -> None:
        by_length: dict[int, list[tuple[int, Fingerprint]]] = {}
        for number, fp in prints:
            by_length.setdefault(-(-len(fp) // STEP) * STEP, []).append((number, Fingerprint.from_bytes(fp.to_bytes())))
        self._groups = list(by_length.values())
        self._limits = [np.array([global_limit(fp) for _, fp in group]) for group in self._groups]
        self._stacks = [
            tuple(
                np.stack([np.pad(row(fp), (0, length - len(fp))) for _, fp in group])
                for row in (_bits, _trusted, _whole)
            )
            for length, group in by_length.items()
        ]

    def accepted(self, query: Fingerprint) -> list[int]:
        """Numbers of all that `verify` accepts as the source of `query`."""
        found = []
        for group, limits, (bits, trusted, _) in zip(self._groups, self._limits, self._stacks, strict=True):
            for place in np.flatnonzero(_least(query, bits, trusted) <= limits):
                number, fp = group[place]
                if verify(query, fp).accepted:
                    found.append(number)
        return found

    def classic(self, query: Fingerprint, threshold: float) -> list[int]:
        """Numbers of all whose active frames differ in under `threshold` of all 32 bits: Haitsma and Kalker's rule."""
        found = []
        for group, (bits, _, whole) in zip(self._groups, self._stacks, strict=True):
            found += [group[place][0] for place in np.flatnonzero(_least(query, bits, whole) < threshold)]
        return found


def _bits(fp: Fingerprint) -> npt.NDArray[np.uint32]:
    return fp.bits


def _trusted(fp: Fingerprint) -> npt.NDArray[np.uint32]:
    return np.where(fp.active, fp.mask, np.uint32(0))


def _whole(fp: Fingerprint) -> npt.NDArray[np.uint32]:
    return np.where(fp.active, np.uint32(0xFFFFFFFF), np.uint32(0))


def classic_distance(query: Fingerprint, stored: Fingerprint) -> float:
    """Share of all bits of the stored active frames that differ, at the best shift."""
    return float(_least(query, stored.bits[None], _whole(stored)[None])[0])


def _least(query: Fingerprint, bits: npt.NDArray[np.uint32], trusted: npt.NDArray[np.uint32]) -> Floats:
    """The least share of differing trusted bits over all of verify's shifts: [stored, frames] -> float64 [stored]."""
    total = np.bitwise_count(trusted).sum(axis=1, dtype=np.int64)
    least = np.full(len(bits), 1.0)
    for part, rows, mask in _overlaps(query, bits, trusted):
        differ = np.bitwise_count((rows ^ part) & mask).sum(axis=1, dtype=np.int64)
        outside = total - np.bitwise_count(mask).sum(axis=1, dtype=np.int64)
        least = np.minimum(least, (differ + 0.5 * outside) / np.maximum(total, 1))
    return least


def _overlaps(
    query: Fingerprint, bits: npt.NDArray[np.uint32], trusted: npt.NDArray[np.uint32]
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    """For every grid of the query and every shift: the part of it, and of the stored rows, that lie over each other."""
    n = bits.shape[1]
    slack = SLACK + int((1 - STORED_COVERAGE) * n)
    for grid in [query.bits] + ([query.between[0]] if query.between is not None else []):
        for shift in range(-slack, max(0, len(grid) - n) + slack + 1):
            first, last = max(0, -shift), min(n, len(grid) - shift)
            if last > first:
                yield grid[first + shift : last + shift], bits[:, first:last], trusted[:, first:last]

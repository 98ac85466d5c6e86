"""Every stored fingerprint against one query, at once: who would pass if the index missed nothing.

`Everything.accepted` gives exactly those that `judge` accepts. It sweeps the first test of all of them, the distance at
the best shift, in compiled code that leaves a shift as soon as too many bits differ, then what evidence there can be at
most (`bench.confirmed`), and asks `judge` about the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bench.confirmed import Confirmed
from bench.judge import Query, first_limit, first_shifts, judge
from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.verify import LEAST_CONFIRMED, stride_of
from models.signs import Words

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK: Final = 16
"""Frames between two looks at whether a shift is still worth the rest; rows are filled up to a multiple of it."""


def trusted(fp: Fingerprint) -> Words:
    """The bits that `judge` compares first."""
    return np.where(fp.active, fp.mask, np.uint32(0)).astype(np.uint32)


def whole(fp: Fingerprint) -> Words:
    """All bits of active frames, as Haitsma and Kalker compare them."""
    return np.where(fp.active, np.uint32(0xFFFFFFFF), np.uint32(0)).astype(np.uint32)


def every_frame(frames: int) -> int:
    """The stride of a comparison that leaves nothing out."""
    return 1


class Everything:
    """All stored fingerprints in one row, each with the bits that count and the distance it allows."""

    def __init__(
        self,
        stored: Sequence[Fingerprint],
        bits: Callable[[Fingerprint], Words] = trusted,
        limit: float | None = None,
        stride: Callable[[int], int] = stride_of,
    ) -> None:
        """`limit` for all, or what `judge` allows each; of a recording of n frames every stride(n)-th counts."""
        self.stored = stored
        rows, masks, weights, spans = [], [], [], []
        for fp in stored:
            step = stride(len(fp))
            row, mask = fp.bits[::step], bits(fp)[::step]
            counted = np.flatnonzero(mask)
            first, last = (int(counted[0]), int(counted[-1]) + 1) if len(counted) else (0, 0)
            fill = -(last - first) % BLOCK
            rows.append(np.pad(row[first:last], (0, fill)))
            masks.append(np.pad(mask[first:last], (0, fill)))
            weights.append(np.append(0, np.cumsum(np.bitwise_count(mask[first:last]), dtype=np.int64)))
            spans.append((first, last))
        self._rows = np.concatenate(rows, dtype=np.uint32)
        self._masks = np.concatenate(masks, dtype=np.uint32)
        self._weights = np.concatenate(weights)
        self._spans = np.array(spans, np.int64)
        self._starts = np.cumsum([0] + [len(row) for row in rows])[:-1]
        self._sums = np.cumsum([0] + [len(weight) for weight in weights])[:-1]
        self._limits = np.array([first_limit(fp) if limit is None else limit for fp in stored], np.float64)
        self._distinct, self._which = np.unique([len(fp) for fp in stored], return_inverse=True)
        self._strides = np.array([stride(len(fp)) for fp in stored], np.int64)

    def near(self, query: Query, look: Flags) -> Places:
        """Places, among those of `look`, of all within their limit at some shift."""
        found = np.zeros(len(self.stored), np.bool_)
        for places, arrays in self._grids(query, look):
            _sweep(*arrays, self._limits, places, found)  # type: ignore[call-arg]
        return np.flatnonzero(found)

    def nearest(self, query: Query, look: Flags) -> tuple[int, float]:
        """Place of the least distant of `look`, and that distance; -1 where none is under a half."""
        best, least = -1, 0.5
        for places, arrays in self._grids(query, look):
            place, distance = _search(*arrays, places, least)  # type: ignore[call-arg]
            if place >= 0:
                best, least = int(place), float(distance)
        return best, least

    def distance(self, query: Query, place: int) -> float:
        """To one of them, at the best shift; a half where it is more."""
        look = np.zeros(len(self.stored), np.bool_)
        look[place] = True
        return self.nearest(query, look)[1]

    def accepted(self, query: Query, look: Flags) -> tuple[list[int], int, int]:
        """Places of all of `look` that `judge` accepts as the source of `query`, how many passed the first test, and
        how many `judge` was asked about."""
        near = self.near(query, look)
        asked = near
        if query.heard is not None and len(near):
            asked = near[self._confirmed.at_most(query.heard, near) >= LEAST_CONFIRMED]
        return [int(place) for place in asked if judge(query, self.stored[place]).accepted], len(near), len(asked)

    @cached_property
    def _confirmed(self) -> Confirmed:
        return Confirmed(self.stored)

    def _grids(self, query: Query, look: Flags) -> Iterator[tuple[Places, tuple[Any, ...]]]:
        """Places of `look` with one stride, and the other arguments of the compiled code, for each grid of the query.

        The grid is laid out in as many lanes as the stride, so that every n-th of its frames are neighbours.
        """
        shifts = [first_shifts(len(query), int(length)) for length in self._distinct]
        bounds = np.array([(one.start, one.stop) for one in shifts], np.int64)
        slack, end = int(max(0, -bounds[:, 0].min())), int((bounds[:, 1] + self._distinct).max())
        grids = [query.bits] + ([query.between[0]] if query.between is not None else [])
        told = (self._rows, self._masks, self._weights, self._starts, self._sums, self._spans, bounds[self._which])
        for stride in map(int, np.unique(self._strides[look])):
            lead = -(-slack // stride)
            width = lead + -(-end // stride) + BLOCK
            places = np.flatnonzero(look & (self._strides == stride))
            room = (lead * stride, (width - lead) * stride - len(query))
            cover = np.pad(np.full(len(query), 0xFFFFFFFF, np.uint32), room)
            for grid in grids:
                lanes = [words.reshape(width, -1).T.ravel() for words in (np.pad(grid, room), cover)]
                yield places, (*lanes, width, stride, lead, len(query), *told)


@intrinsic
def _differ(typing: Any, grid: Any, at: Any, cover: Any, rows: Any, masks: Any, start: Any) -> Any:
    """Bits of (grid ^ rows) & masks & cover over BLOCK frames, from `at` and from `start`, as one vector of words.

    Written out, because the compiler does not see by itself that counting bits goes side by side.
    """
    wide = ir.VectorType(ir.IntType(32), BLOCK)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        def load(number: int, place: Any) -> Any:
            array = context.make_array(signature.args[number])(context, builder, values[number])
            words = builder.bitcast(builder.gep(array.data, [place]), wide.as_pointer())
            return builder.load(words, align=4)

        def call(name: str, result: ir.Type, value: Any) -> Any:
            function = builder.module.globals.get(name)
            if function is None:
                function = ir.Function(builder.module, ir.FunctionType(result, [wide]), name)
            return builder.call(function, [value])

        differ = builder.xor(load(0, values[1]), load(3, values[5]))
        differ = builder.and_(builder.and_(differ, load(4, values[5])), load(2, values[1]))
        ones = call(f"llvm.ctpop.v{BLOCK}i32", wide, differ)
        total = call(f"llvm.vector.reduce.add.v{BLOCK}i32", ir.IntType(32), ones)
        return builder.zext(total, ir.IntType(64))

    return types.int64(grid, types.int64, cover, rows, masks, types.int64), generate


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    grid, cover, width, stride, lead, length, rows, masks, weights, start, row, first, last, low, high, allowed, seek
):
    """Twice the least number of bits of one recording that differ at a shift of low..high, those outside the query
    once, if it is not over `allowed`; else -1. Without `seek` the first such number will do."""
    total = weights[row + last - first]
    best = -1
    whole, lane = low // stride, low % stride
    late, rest = (low - length) // stride, (low - length) % stride
    for _ in range(low, high):
        begin, end = max(first, -whole), min(last, -late)
        doubled = total
        if end > begin:
            doubled -= weights[row + end - first] - weights[row + begin - first]
        at = lane * width + lead + whole + first
        for block in range(0, last - first, BLOCK):
            if doubled > allowed:
                break
            doubled += 2 * _differ(grid, at + block, cover, rows, masks, start + block)  # type: ignore[call-arg]
        if doubled <= allowed:
            best, allowed = doubled, doubled - 1
            if not seek:
                break
        lane, rest = lane + 1, rest + 1
        if lane == stride:
            lane, whole = 0, whole + 1
        if rest == stride:
            rest, late = 0, late + 1
    return best


@njit(cache=True, nogil=True)
def _sweep(  # type: ignore[no-untyped-def]
    grid, cover, width, stride, lead, length, rows, masks, weights, starts, sums, spans, bounds, limits, places, found
):
    """Sets found[i] where recording i of `places` is within limits[i] at some shift of bounds[i]."""
    for i in places:
        (first, last), (low, high) = spans[i], bounds[i]
        total = weights[sums[i] + last - first]
        if not found[i] and total > 0:
            allowed = np.int64(np.floor(2 * limits[i] * total + 1e-6))
            least = _scan(
                grid, cover, width, stride, lead, length, rows, masks, weights, starts[i], sums[i], first, last,
                low, high, allowed, False,
            )  # fmt: skip
            found[i] = least >= 0


@njit(cache=True, nogil=True)
def _search(  # type: ignore[no-untyped-def]
    grid, cover, width, stride, lead, length, rows, masks, weights, starts, sums, spans, bounds, places, least
):
    """(place, distance) of the recording of `places` nearest at any shift, if nearer than `least`; else -1."""
    best = -1
    for i in places:
        (first, last), (low, high) = spans[i], bounds[i]
        total = weights[sums[i] + last - first]
        if total > 0:
            allowed = np.int64(np.ceil(2 * least * total)) - 1
            found = _scan(
                grid, cover, width, stride, lead, length, rows, masks, weights, starts[i], sums[i], first, last,
                low, high, allowed, True,
            )  # fmt: skip
            if found >= 0:
                best, least = i, found / (2 * total)
    return best, least

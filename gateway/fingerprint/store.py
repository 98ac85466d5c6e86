"""What is remembered of each recording: its fingerprint, id and tags, by slot, in arrays and not in objects.

Nine bytes a frame and some 200 a recording, most of them Python's own for the id. Room that a removed recording leaves
is taken by the next of its length; its slot only when the key table has met the last of its keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.keys import Ints
from gateway.fingerprint.rows import Rows
from models.signs import Words

ROUND: Final = 8
"""Frames that room is given out in."""
_SHARDS: Final = 256
Tags = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """The frames of several recordings behind each other, `lengths` of each."""

    bits: Words
    mask: Words
    level: npt.NDArray[np.uint8]
    lengths: Ints

    @classmethod
    def of(cls, fps: Sequence[Fingerprint]) -> Joined:
        none = [np.zeros(0, np.uint32)]
        bits, mask = (np.concatenate([getattr(fp, name) for fp in fps] or none) for name in ("bits", "mask"))
        level = np.concatenate([fp.level for fp in fps] or [np.zeros(0, np.uint8)])
        return cls(bits, mask, level, np.array([len(fp.bits) for fp in fps], np.int64))


class Store:
    """Not safe to use from several threads. Every public array is indexed by slot, int64 [n]."""

    def __init__(self) -> None:
        self.words = Rows(np.uint32, 2)
        """Bits and mask of all frames."""
        self.level = Rows(np.uint8)
        self.start = Rows(np.int64)
        """Where a slot's frames begin in `words` and `level`."""
        self.length = Rows(np.uint16)
        self.alive = Rows(np.bool_)
        self.slots = 0
        """Slots ever given out."""
        self.frames = 0
        """Frames of what is alive."""
        self.ids: list[bytes | None] = []
        self._seconds = Rows(np.float32)
        self._tagset = Rows(np.int32)
        # A dict of a million takes 50 ms to grow; one of 256 less than one.
        self._by_id: list[dict[bytes, int]] = [{} for _ in range(_SHARDS)]
        self._count = 0
        self._used = 0
        self._free: dict[int, list[int]] = defaultdict(list)
        self._retired: list[int] = []
        self._reusable: list[int] = []
        self._tagsets: dict[Tags, int] = {}
        self._tags: list[Tags] = []
        self._tag_uses: list[int] = []
        self._tag_free: list[int] = []

    def __len__(self) -> int:
        return self._count

    @property
    def memory(self) -> int:
        """Bytes in use in the arrays, without Python's own for ids and tags."""
        return 9 * self._used + (8 + 2 + 1 + 4 + 4 + 8) * self.slots

    @property
    def pairs(self) -> npt.NDArray[np.uint64]:
        """Bits and mask of a frame as one number, mask above bits. Keep no view across `add_many`."""
        return self.words.array.view(np.uint64)[:, 0]

    @property
    def removed(self) -> int:
        """Slots whose keys may still be in the table."""
        return len(self._retired)

    @property
    def some_alive(self) -> npt.NDArray[np.bool_] | None:
        """`alive`, or None where no slot ever given out is without a recording."""
        return None if self._count == self.slots else self.alive.array

    def slot(self, id: bytes) -> int | None:
        return self._by_id[hash(id) % _SHARDS].get(id)

    def add_many(self, entries: Sequence[tuple[bytes, Fingerprint, Tags]], joined: Joined) -> Ints:
        """The slots of recordings whose ids are all different, and not known yet; `joined` are their frames."""
        slots, starts = [], []
        lengths = joined.lengths.tolist()
        for (id, _, _), length in zip(entries, lengths, strict=True):
            start = self._room_for(length)
            if self._reusable:
                slot = self._reusable.pop()
                self.ids[slot] = id
            else:
                slot, self.slots = self.slots, self.slots + 1
                self.ids.append(id)
            self._by_id[hash(id) % _SHARDS][id] = slot
            slots.append(slot)
            starts.append(start)
        self.words.reserve(self._used)
        self.level.reserve(self._used)
        before = np.cumsum(joined.lengths) - joined.lengths
        at = np.repeat(np.array(starts, np.int64) - before, joined.lengths) + np.arange(len(joined.bits))
        self.pairs[at] = joined.bits | joined.mask.astype(np.uint64) << np.uint64(32)
        self.level.array[at] = joined.level
        tagsets = [self._tagset_of(tags) for _, _, tags in entries]
        seconds = [fp.seconds for _, fp, _ in entries]
        for rows, values in (
            (self.start, starts),
            (self.length, lengths),
            (self.alive, True),
            (self._seconds, seconds),
            (self._tagset, tagsets),
        ):
            rows.reserve(self.slots)
            rows.array[slots] = values
        self._count += len(entries)
        self.frames += len(joined.bits)
        return np.array(slots, np.int64)

    def _room_for(self, frames: int) -> int:
        room = -frames // ROUND * -ROUND
        free = self._free.get(room)
        if free:
            return free.pop()
        start, self._used = self._used, self._used + room
        return start

    def remove(self, slot: int) -> None:
        id = self.ids[slot]
        assert id is not None
        del self._by_id[hash(id) % _SHARDS][id]
        self.ids[slot] = None
        self.alive.array[slot] = False
        n = int(self.length.array[slot])
        self._free[-n // ROUND * -ROUND].append(int(self.start.array[slot]))
        self._count -= 1
        self.frames -= n
        self._retired.append(slot)
        number = int(self._tagset.array[slot])
        self._tag_uses[number] -= 1
        if not self._tag_uses[number]:
            del self._tagsets[self._tags[number]]
            self._tags[number] = ()
            self._tag_free.append(number)

    def retired(self) -> list[int]:
        """Slots removed since this was last asked, to be handed to `reuse` when no key of theirs is left."""
        retired, self._retired = self._retired, []
        return retired

    def reuse(self, slots: Iterable[int]) -> None:
        self._reusable.extend(slots)

    def tagged(self, tag: str) -> list[int]:
        """Slots that carry `tag`."""
        numbers = [number for tags, number in self._tagsets.items() if tag in tags]
        held = np.isin(self._tagset.array[: self.slots], numbers) & self.alive.array[: self.slots]
        return [int(slot) for slot in np.flatnonzero(held)]

    def entries(self) -> list[tuple[bytes, Fingerprint, Tags]]:
        """Everything that is alive, copied."""
        return [(id, self.fingerprint(slot), self.tags(slot)) for slot, id in enumerate(self.ids) if id is not None]

    def tags(self, slot: int) -> Tags:
        return self._tags[int(self._tagset.array[slot])]

    def fingerprint(self, slot: int) -> Fingerprint:
        """A copy of what was stored."""
        start, n = int(self.start.array[slot]), int(self.length.array[slot])
        words = self.words.array[start : start + n]
        level = self.level.array[start : start + n].copy()
        return Fingerprint(words[:, 0].copy(), words[:, 1].copy(), level, float(self._seconds.array[slot]))

    def _tagset_of(self, tags: Tags) -> int:
        number = self._tagsets.get(tags)
        if number is None:
            if self._tag_free:
                number = self._tag_free.pop()
                self._tags[number] = tags
            else:
                number = len(self._tags)
                self._tags.append(tags)
                self._tag_uses.append(0)
            self._tagsets[tags] = number
        self._tag_uses[number] += 1
        return number

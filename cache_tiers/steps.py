"""How values, records and the tags that know them change together: in one step, or in several in a Cluster.

On one server a script does it, and nobody sees it half done. In a Cluster a value with its record lies in one slot, a
tag in another and the epochs in a third, so it is done in an order that leaves nothing wrong wherever it is left:

- Writing: the tags first, then the value, then the epochs are compared, and the value goes if one has moved. An erasure
  moves the epoch first and reads the tag then: either it finds the value there, or the writer finds the epoch moved. A
  writer that dies in between leaves a value of an older epoch, which nobody serves.
- Evicting: each value with its record, if it is still the one that carried the tag; then what the tag knew of it.
- Pruning: what a tag knows of a value that is not there may be of one about to be written, so it goes only when a
  census a while later finds it unchanged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cache_tiers.entry import CacheKey, Epochs
from cache_tiers.link import Command, RedisLink, Refused, Unavailable
from cache_tiers.names import STAMP_BYTES, Member
from cache_tiers.sealed import STAMP_AT, stamp_of

_FROM, _TO = STAMP_AT, STAMP_AT + STAMP_BYTES - 1
_STAMP_NOW = f"redis.call('GETRANGE', KEYS[%s], {_FROM}, {_TO})"

_WRITE = f"""
for i = 4, #ARGV, 2 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '0') ~= ARGV[i + 1] then return -1 end
end
local before = redis.pcall('GETRANGE', KEYS[1], {_FROM}, {_TO})
local had = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[1])
for i = 3, #KEYS do
  if had == 1 and type(before) == 'string' then redis.call('HDEL', KEYS[i], ARGV[2] .. before) end
  redis.call('HSET', KEYS[i], ARGV[2] .. string.sub(ARGV[3], {_FROM + 1}, {_TO + 1}), '')
end
return had
"""
# A record is written beside the value it was made from (told by its stamp) and for as long as that stays, so a value
# that was deleted or replaced meanwhile has none, and the record goes with its value's tags.
_WRITE_RECORD = f"""
for i = 3, #ARGV, 2 do
  if (redis.call('HGET', KEYS[3], ARGV[i]) or '0') ~= ARGV[i + 1] then return -1 end
end
local left = redis.call('PTTL', KEYS[1])
if left <= 0 or {_STAMP_NOW % 1} ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', left)
return 1
"""
_EVICT = f"""
local count = 0
for i = 1, #ARGV, 2 do
  local now = {_STAMP_NOW % "i + 1"}
  if now == ARGV[i + 1] then count = count + redis.call('UNLINK', KEYS[i + 1]) end
  if now == ARGV[i + 1] or now == '' then redis.call('UNLINK', KEYS[i + 2]) end
  redis.call('HDEL', KEYS[1], ARGV[i])
end
return count
"""
_PRUNE = f"""
local gone = 0
for i = 1, #ARGV, 2 do
  local now = {_STAMP_NOW % "i + 1"}
  if now ~= ARGV[i + 1] then
    gone = gone + redis.call('HDEL', KEYS[1], ARGV[i])
    if now == '' then redis.call('UNLINK', KEYS[i + 2]) end
  end
end
return gone
"""
# In a Cluster: a value and its record, in one slot.
_SET = """
local had = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return had
"""
_EVICT_ONE = f"""
local now = {_STAMP_NOW % 1}
if now == ARGV[1] or now == '' then redis.call('UNLINK', KEYS[2]) end
if now == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
"""
_LOOK = f"""
local now = {_STAMP_NOW % 1}
if now == '' then redis.call('UNLINK', KEYS[2]) end
return now
"""

_SUSPECTS = 100_000
"""Members that may be noted as gone until the next census, in some 10 MB."""
_SUSPECT_FOR = 4 * 3600.0
"""Seconds after which a member that no census has met again is forgotten."""


@dataclass(frozen=True, slots=True)
class SealedValue:
    key: CacheKey
    sealed: bytes
    """Empty for a value that expired before it was written: what it was to replace has to go all the same."""
    ttl_ms: int
    tags: tuple[str, ...]
    epochs: Epochs


@dataclass(frozen=True, slots=True)
class SealedRecord:
    key: CacheKey
    sealed: bytes
    beside: bytes
    """The stamp of the value it belongs to."""
    epochs: Epochs


class Steps(Protocol):
    """All raise Unavailable when Redis fails; what was done until then is in order. `last`: commands after it all."""

    async def write(self, values: Sequence[SealedValue], last: Sequence[Command], deadline: float) -> list[Any]:
        """For each value -1 when a tag was erased meanwhile, 1 when it replaced one, else 0; or what went wrong."""
        ...

    async def write_records(
        self, records: Sequence[SealedRecord], last: Sequence[Command], deadline: float
    ) -> list[Any]:
        """For each record 1 when it was written; or what went wrong."""
        ...

    async def evict(
        self, tag_set: str | bytes, members: Sequence[Member], last: Sequence[Command], deadline: float
    ) -> int:
        """Removes the values that the tag knows; returns how many there were."""
        ...

    async def prune(self, tag_set: str | bytes, members: Sequence[Member], deadline: float) -> int:
        """Has the tag forget members whose value is gone; returns how many."""
        ...


def steps_on(link: RedisLink) -> Steps:
    return Stepwise(link) if link.slotted else AtOnce(link)


class AtOnce:
    """On one server: a script each."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def write(self, values: Sequence[SealedValue], last: Sequence[Command], deadline: float) -> list[Any]:
        commands = [self._write(value) for value in values]
        answers = await self._link.pipeline(commands, last=last, deadline=deadline)
        return answers[: len(values)]

    def _write(self, value: SealedValue) -> Command:
        names, key = self._link.names, value.key
        if not value.sealed:
            return ("UNLINK", names.value(key))
        keys = (names.value(key), names.epochs, *map(names.tag, value.tags))
        member = names.membership(key, b"")
        return ("EVAL", _WRITE, len(keys), *keys, value.ttl_ms, member, value.sealed, *_pairs(value.epochs))

    async def write_records(
        self, records: Sequence[SealedRecord], last: Sequence[Command], deadline: float
    ) -> list[Any]:
        names = self._link.names
        commands: list[Command] = []
        for record in records:
            keys = (names.value(record.key), names.record(record.key), names.epochs)
            commands.append(("EVAL", _WRITE_RECORD, 3, *keys, record.beside, record.sealed, *_pairs(record.epochs)))
        answers = await self._link.pipeline(commands, last=last, deadline=deadline)
        return answers[: len(records)]

    async def evict(
        self, tag_set: str | bytes, members: Sequence[Member], last: Sequence[Command], deadline: float
    ) -> int:
        answers = await self._link.pipeline([self._over(_EVICT, tag_set, members)], last=last, deadline=deadline)
        return _count(answers[0])

    async def prune(self, tag_set: str | bytes, members: Sequence[Member], deadline: float) -> int:
        return _count(await self._link.call(*self._over(_PRUNE, tag_set, members), deadline=deadline))

    def _over(self, script: str, tag_set: str | bytes, members: Sequence[Member]) -> Command:
        names = self._link.names
        keys = [name for member in members for name in (names.value(member.key), names.record(member.key))]
        stamps = [part for member in members for part in (member.field, member.stamp)]
        return ("EVAL", script, 1 + len(keys), tag_set, *keys, *stamps)


class Stepwise:
    """In a Cluster: one step after the other, each a pipeline to each server."""

    def __init__(self, link: RedisLink, *, grace: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`grace`: seconds in which a write is sure to have gone from its first step to its last, or to have failed."""
        self._link = link
        self._grace = grace
        self._clock = clock
        self._suspects: dict[int, float] = {}

    async def write(self, values: Sequence[SealedValue], last: Sequence[Command], deadline: float) -> list[Any]:
        names, link = self._link.names, self._link
        outcomes: list[Any] = [0] * len(values)
        tagged: dict[str, list[int]] = {}
        for i, value in enumerate(values):
            for tag in value.tags if value.sealed else ():
                tagged.setdefault(tag, []).append(i)
        fields = [names.membership(value.key, stamp_of(value.sealed)) for value in values]
        notes: list[Command] = [
            ("HSET", names.tag(tag), *(part for i in which for part in (fields[i], b"")))
            for tag, which in tagged.items()
        ]
        for which, answer in zip(tagged.values(), await link.pipeline(notes, deadline=deadline), strict=True):
            if isinstance(answer, Exception):
                outcomes = [answer if i in which else outcome for i, outcome in enumerate(outcomes)]
        going = [i for i, outcome in enumerate(outcomes) if outcome == 0]
        answers = await link.pipeline([self._set(values[i]) for i in going], deadline=deadline)
        for i, answer in zip(going, answers, strict=True):
            outcomes[i] = answer
        await self._take_back_erased(values, outcomes, deadline)
        await link.pipeline((), last=last, deadline=deadline)
        return outcomes

    def _set(self, value: SealedValue) -> Command:
        name = self._link.names.value(value.key)
        return ("EVAL", _SET, 1, name, value.ttl_ms, value.sealed) if value.sealed else ("UNLINK", name)

    async def _take_back_erased(self, values: Sequence[SealedValue], outcomes: list[Any], deadline: float) -> None:
        """Also those of which a server's answer did not come: they may have been written."""
        link, names = self._link, self._link.names
        of = dict(pair for value in values for pair in value.epochs.of)
        verdict: int | Unavailable = -1
        try:
            now = await link.call("HMGET", names.epochs, *of, deadline=deadline) if of else []
            epochs: dict[str, int | None] = {tag: int(epoch or 0) for tag, epoch in zip(of, now, strict=True)}
        except Unavailable as error:
            epochs, verdict = dict.fromkeys(of), error  # not known, so taken for moved
        moved = [i for i, value in enumerate(values) if any(epochs[tag] != epoch for tag, epoch in value.epochs.of)]
        for i in moved:
            outcomes[i] = verdict
        back = [self._evict_one(values[i].key, stamp_of(values[i].sealed)) for i in moved if values[i].sealed]
        with contextlib.suppress(Unavailable):  # what then stays is of an older epoch
            await link.pipeline(back, deadline=deadline)

    def _evict_one(self, key: CacheKey, stamp: bytes) -> Command:
        names = self._link.names
        return ("EVAL", _EVICT_ONE, 2, names.value(key), names.record(key), stamp)

    async def write_records(
        self, records: Sequence[SealedRecord], last: Sequence[Command], deadline: float
    ) -> list[Any]:
        """Without a look at the epochs: a value of an older one is on its way out, and takes its record along."""
        names = self._link.names
        commands: list[Command] = []
        for record in records:
            keys = (names.value(record.key), names.record(record.key))
            commands.append(("EVAL", _WRITE_RECORD, 2, *keys, record.beside, record.sealed))
        answers = await self._link.pipeline(commands, last=last, deadline=deadline)
        return answers[: len(records)]

    async def evict(
        self, tag_set: str | bytes, members: Sequence[Member], last: Sequence[Command], deadline: float
    ) -> int:
        commands = [self._evict_one(member.key, member.stamp) for member in members]
        count = sum(map(_count, await self._link.pipeline(commands, deadline=deadline)))
        forget: Command = ("HDEL", tag_set, *(member.field for member in members))
        answers = await self._link.pipeline([forget], last=last, deadline=deadline)
        _sure(answers[0])
        return count

    async def prune(self, tag_set: str | bytes, members: Sequence[Member], deadline: float) -> int:
        names, now = self._link.names, self._clock()
        looks: list[Command] = [
            ("EVAL", _LOOK, 2, names.value(member.key), names.record(member.key)) for member in members
        ]
        gone: list[bytes] = []
        for member, stamp in zip(members, await self._link.pipeline(looks, deadline=deadline), strict=True):
            _sure(stamp)
            who = hash((tag_set, member.field))
            since = self._suspects.pop(who, now)
            if stamp != member.stamp:
                if since + self._grace <= now:
                    gone.append(member.field)
                else:
                    self._suspect(who, since)
        return _count(await self._link.call("HDEL", tag_set, *gone, deadline=deadline)) if gone else 0

    def _suspect(self, who: int, since: float) -> None:
        if len(self._suspects) >= _SUSPECTS:  # some have gone otherwise, and no census asks for them again
            oldest = self._clock() - _SUSPECT_FOR
            self._suspects = {who: since for who, since in self._suspects.items() if since > oldest}
        if len(self._suspects) < _SUSPECTS:
            self._suspects[who] = since


def _pairs(epochs: Epochs) -> list[str | int]:
    return [part for pair in epochs.of for part in pair]


def _sure(answer: object) -> object:
    if isinstance(answer, Unavailable):
        raise answer
    if isinstance(answer, Exception):
        raise Refused(f"Redis refused: {answer}")
    return answer


def _count(answer: object) -> int:
    number = _sure(answer)
    if not isinstance(number, int):
        raise Unavailable(f"Redis gave no number but a {type(number).__name__}")
    return number

"""Refrain's own policy: keeps what is worth most by frequency, compute saved per byte and age, with pins and quotas.

Residents stand in a `Ranking`. A newcomer stands where its value and its uses put it, remembered ones included: a
history of counts outlives eviction, so that a second use admits what a first did not. If it would be the lowest of all
itself, it is refused, its use is remembered, and the clock moves on as if it had come and gone. The exponent, which
says how far frequency outweighs recency, is found by trying: see `Trial`.

Pinned keys are never evicted; they may take `pin_share` of the capacity, and those of one group (a tenant) its share of
that. A group with a quota never holds more than that: past it, its own lowest keys go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from cache_tiers.policy.base import PinRefused
from cache_tiers.policy.ranking import MOST_USES, Ranking, Worths, list_of
from cache_tiers.policy.remembered import Remembered
from cache_tiers.policy.trial import SPREAD, Trial

K = TypeVar("K", bound=Hashable)

HISTORY: Final = 4
"""Counts remembered for each resident key."""
FEWEST: Final = 64
"""Counts remembered anyway, so that a small cache learns at all."""


class _Resident(Generic[K]):
    """Without an __init__, whose call would take as long as all of its assignments."""

    __slots__ = ("cost_ms", "number", "pinned", "ranking", "weight")
    cost_ms: float
    number: int
    pinned: bool
    ranking: Ranking[K]
    weight: int


class WorthPolicy(Generic[K]):
    """`group` names the group of a key, `quotas` the bytes that a group may take, and `pins_of` the share of the pins'
    bytes that a group's may; groups without a quota share what there is. `number` makes a 64-bit number of a key, by
    which counts are remembered and keys sampled: give one that does not depend on the process where results are to be
    the same in each."""

    def __init__(
        self,
        capacity: int,
        *,
        group: Callable[[K], Hashable] | None = None,
        quotas: Mapping[Hashable, int] | None = None,
        pin_share: float = 0.25,
        pins_of: Callable[[Hashable], float] | None = None,
        number: Callable[[K], int] = hash,
        exponent: float | None = None,
    ) -> None:
        self.capacity = capacity
        self.pin_limit = int(capacity * pin_share)
        self.pinned = 0
        self._pins_of = pins_of
        self._pinned_of: dict[Hashable, int] = {}
        self._trial: Trial | None = None
        if exponent is None:
            self._trial = Trial(capacity, shadow)
            exponent = self._trial.exponent
        self._worths = Worths(exponent)
        self._clock = 0.0
        self._used = 0
        self._residents: dict[K, _Resident[K]] = {}
        self._history = Remembered()
        self._number = number
        self._group = group
        self._quotas = dict(quotas or {})
        self._common: Ranking[K] = Ranking(self._worths)
        self._own: dict[Hashable, Ranking[K]] = {name: Ranking(self._worths) for name in self._quotas}

    @property
    def used(self) -> int:
        return self._used

    @property
    def exponent(self) -> float:
        """How far frequency outweighs recency now."""
        return self._worths.exponent

    def become(self, exponent: float) -> None:
        """Goes on with another exponent; for who has found out by himself which suits."""
        if exponent != self._worths.exponent:
            self._worths.become(exponent)
            self._common.reorder()
            for ranking in self._own.values():
                ranking.reorder()

    # What the tier tells.

    def touch(self, key: K) -> None:
        resident = self._residents[key]
        if not resident.pinned:
            number = resident.number
            ranking = resident.ranking
            del ranking.lists[number][key]
            if number & MOST_USES != MOST_USES:
                resident.number = number = number + 1
            ranking.place(key, number, self._clock)
        trial = self._trial
        if trial is not None:
            sample = self._number(key)
            if not (sample * SPREAD >> 29) & trial.mask:
                self._try(trial, sample, resident.weight, resident.cost_ms)

    def offer(self, key: K, weight: int, cost_ms: float) -> Sequence[K] | None:
        sample = self._number(key)
        trial = self._trial
        if trial is not None and not (sample * SPREAD >> 29) & trial.mask:
            self._try(trial, sample, weight, cost_ms)
        resident = self._residents.get(key)
        if resident is not None:
            return self._weigh_anew(key, resident, weight, cost_ms)
        uses = self._history.take(sample) + 1
        if uses > MOST_USES:
            uses = MOST_USES
        number = list_of(uses, cost_ms, weight)
        ranking = self._ranking(key) if self._own else self._common
        victims: list[K] | None = []
        if self._used + weight > self.capacity or ranking is not self._common:
            victims = self._room(ranking, weight, self._quota(key), self._clock + self._worths[number])
            if victims is None:
                self._remember(sample, uses)
                return None
        ranking.place(key, number, self._clock)
        ranking.used += weight
        self._used += weight
        self._residents[key] = resident = _Resident()
        resident.number, resident.weight, resident.cost_ms = number, weight, cost_ms
        resident.ranking, resident.pinned = ranking, False
        return victims

    def shed(self, weight: int) -> Sequence[K]:
        """As the protocol says, but for pinned keys, which stay."""
        victims: list[K] = []
        floor = self._used - weight
        while self._used > floor:
            lowest = self._lowest()
            if lowest is None:
                break
            self.remove(lowest[1])
            victims.append(lowest[1])
        return victims

    def remove(self, key: K) -> None:
        resident = self._residents.get(key)
        if resident is None:
            return
        if resident.pinned:
            self._pin_bytes(key, -resident.weight)
        else:
            resident.ranking.take(key, resident.number)
        self._forget(key, resident)

    def __contains__(self, key: object) -> bool:
        return key in self._residents

    def __len__(self) -> int:
        return len(self._residents)

    # Pins.

    def pin(self, key: K) -> None:
        """Never evicts a resident key. KeyError when it is not resident, `PinRefused` past a limit."""
        resident = self._residents[key]
        if resident.pinned:
            return
        refusal = self._refusal(key, resident.weight)
        if refusal:
            raise PinRefused(refusal)
        resident.ranking.take(key, resident.number)
        resident.pinned = True
        self._pin_bytes(key, resident.weight)

    def unpin(self, key: K) -> None:
        """Makes a resident key one like others, just used. KeyError when it is not resident."""
        resident = self._residents[key]
        if resident.pinned:
            resident.pinned = False
            self._pin_bytes(key, -resident.weight)
            resident.ranking.place(key, resident.number, self._clock)

    def is_pinned(self, key: K) -> bool:
        resident = self._residents.get(key)
        return resident is not None and resident.pinned

    def _refusal(self, key: K, weight: int) -> str:
        """Why a key of this weight can't be pinned; empty when it can."""
        if self.pinned + weight > self.pin_limit:
            return f"pinned keys take {self.pinned} bytes and may take {self.pin_limit}; this one takes {weight}"
        if self._group is not None and self._pins_of is not None:
            group = self._group(key)
            taken, allowed = self._pinned_of.get(group, 0), int(self._pins_of(group) * self.pin_limit)
            if taken + weight > allowed:
                return f"pinned keys of {group!r} take {taken} bytes and may take {allowed}; this one takes {weight}"
        return ""

    def _pin_bytes(self, key: K, more: int) -> None:
        self.pinned += more
        if self._group is not None and self._pins_of is not None:
            group = self._group(key)
            self._pinned_of[group] = self._pinned_of.get(group, 0) + more
            if not self._pinned_of[group]:
                del self._pinned_of[group]

    # Room.

    def _ranking(self, key: K) -> Ranking[K]:
        return self._own.get(self._group(key), self._common) if self._group is not None else self._common

    def _quota(self, key: K) -> int:
        if self._group is None or not self._own:
            return self.capacity
        return min(self._quotas.get(self._group(key), self.capacity), self.capacity)

    def _room(self, ranking: Ranking[K], weight: int, quota: int, stands: float | None) -> list[K] | None:
        """Evicts the lowest until there is room. None, and all is as it was, if what is to go stands above `stands`, or
        pins leave too little; `stands` None is above all."""
        taken: list[tuple[K, _Resident[K], float]] = []
        free = self.capacity - self._used - weight
        below = quota - ranking.used - weight
        reached = self._clock
        while free < 0 or below < 0:
            lowest = ranking.lowest() if below < 0 or not self._own else self._lowest()
            if lowest is None or (stands is not None and lowest[0] > stands):
                for key, resident, clock in reversed(taken):
                    resident.ranking.put_back(key, resident.number, clock)
                if lowest is not None and stands is not None and stands > self._clock:
                    self._clock = stands
                return None
            height, key = lowest
            resident = self._residents[key]
            taken.append((key, resident, resident.ranking.take(key, resident.number)))
            if height > reached:
                reached = height
            free += resident.weight
            if resident.ranking is ranking:
                below += resident.weight
        self._clock = reached
        for key, resident, _ in taken:
            self._forget(key, resident)
        return [key for key, _, _ in taken]

    def _lowest(self) -> tuple[float, K] | None:
        lowest = self._common.lowest()
        for ranking in self._own.values():
            other = ranking.lowest()
            if other is not None and (lowest is None or other[0] < lowest[0]):
                lowest = other
        return lowest

    def _forget(self, key: K, resident: _Resident[K]) -> None:
        """What has left its ranking leaves the books, and its count is remembered: what expires or is replaced is the
        same phrase when it comes again."""
        del self._residents[key]
        resident.ranking.used -= resident.weight
        self._used -= resident.weight
        self._remember(self._number(key), resident.number & MOST_USES)

    def _weigh_anew(self, key: K, resident: _Resident[K], weight: int, cost_ms: float) -> list[K] | None:
        """A resident key is never refused for its worth: it replaces itself, and only room can be lacking."""
        pinned = resident.pinned
        uses = min((resident.number & MOST_USES) + 1, MOST_USES)
        before = 0.0
        if pinned:
            self._pin_bytes(key, -resident.weight)
        else:
            before = resident.ranking.take(key, resident.number)
        resident.ranking.used -= resident.weight
        self._used -= resident.weight
        victims = self._room(resident.ranking, weight, self._quota(key), None)
        if victims is None:
            resident.ranking.used += resident.weight
            self._used += resident.weight
            if pinned:
                self._pin_bytes(key, resident.weight)
            else:
                resident.ranking.place(key, resident.number, max(before, self._clock))
            return None
        resident.number, resident.weight, resident.cost_ms = list_of(uses, cost_ms, weight), weight, cost_ms
        resident.ranking.used += weight
        self._used += weight
        if pinned and not self._refusal(key, weight):
            self._pin_bytes(key, weight)
        else:
            resident.pinned = False
            resident.ranking.place(key, resident.number, self._clock)
        return victims

    # What is remembered, and learned.

    def shrink(self, capacity: int, keep: Callable[[int], bool]) -> None:
        """Goes on with less capacity and only the keys whose number is to be kept."""
        self.capacity = capacity
        for key in [key for key in self._residents if not keep(self._number(key))]:
            self.remove(key)
        self._history.keep(keep)
        self.shed(self._used - capacity)

    def _remember(self, sample: int, uses: int) -> None:
        self._history.add(sample, uses, HISTORY * len(self._residents) + FEWEST)

    def _try(self, trial: Trial, sample: int, weight: int, cost_ms: float) -> None:
        exponent = trial.access(sample, weight, cost_ms)
        if exponent is not None:
            self.become(exponent)


def shadow(capacity: int, exponent: float) -> WorthPolicy[int]:
    return WorthPolicy(capacity, exponent=exponent)

"""How often a fuzzy answer was wrong, among those that were served, with a bound that may be looked at at any time.

The bound is a betting confidence sequence for a rate of 0/1 outcomes. Against the claim "wrong at p or more" a gambler
mixes bets on all lower rates q < p, weighted by a Beta(a, b) density cut off at p. His capital, the mixture's
likelihood over p's, is a non-negative supermartingale under the claim, whatever the past and even if the rate moves
above p; by Ville's inequality it ever exceeds 1 / alpha with probability at most alpha. So the least p at which he has
become that rich is an upper bound valid at every moment at once, however the moments of looking were chosen.
(Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of Statistics 49; Waudby-Smith & Ramdas 2024, JRSS B 86.)
It bounds a steady rate; if answers grow worse than they were, it follows only as fast as audits come in.

It needs what the sampling here gives: which answers are audited is decided by a coin before anybody knows whether they
are right. An undecided audit counts as wrong in the bound, since a judge may be undecided just where answers are wrong.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from scipy.special import betainc, betaincc, betaln

Judgement = Literal["right", "wrong", "undecided"]

ALPHA: Final = 0.05
"""1 minus the bound's confidence."""
PRIOR_WRONG: Final = 0.5
PRIOR_RIGHT: Final = 400.0
"""Rates of some 0.1 % are what the gambler looks for: that brings a 0.5 % limit within reach of few clean audits."""
DEFAULT_LIMIT: Final = 0.005
FULL_AUDIT: Final = 50
"""The first so many fuzzy answers are all audited."""
LEAST_SHARE: Final = 0.05
"""Of fuzzy answers, once much is known."""

_VERSION: Final = 1


@lru_cache(maxsize=4096)
def upper_bound(wrong: int, total: int, alpha: float = ALPHA) -> float:
    """Largest rate of wrong answers, 0..1, not yet excluded after `wrong` of `total`; 1 while nothing is known."""
    if not 0 <= wrong <= total:
        raise ValueError(f"{wrong} wrong of {total} audits")
    if total == 0:
        return 1.0
    right = total - wrong
    a, b = PRIOR_WRONG + wrong, PRIOR_RIGHT + right
    evidence = float(betaln(a, b) - betaln(PRIOR_WRONG, PRIOR_RIGHT))

    def log_capital(rate: float) -> float:
        below = [math.log(max(float(betainc(*shape, rate)), 1e-300)) for shape in ((a, b), (PRIOR_WRONG, PRIOR_RIGHT))]
        return evidence + below[0] - below[1] - wrong * math.log(rate) - right * math.log1p(-rate)

    # Above the observed share the capital only grows with the rate claimed: the bound is its one crossing of 1 / alpha.
    low, high = wrong / total, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if low < middle < 1.0 and log_capital(middle) < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=4096)
def lower_bound(wrong: int, total: int, alpha: float = ALPHA) -> float:
    """Smallest rate of wrong answers, 0..1, not yet excluded after `wrong` of `total`: the same gamble from the other
    side, on rates above the one claimed, with a prior that expects no particular rate."""
    if not 0 <= wrong <= total:
        raise ValueError(f"{wrong} wrong of {total} audits")
    if wrong == 0:
        return 0.0
    right = total - wrong
    prior = (PRIOR_WRONG, PRIOR_WRONG)
    a, b = PRIOR_WRONG + wrong, PRIOR_WRONG + right
    evidence = float(betaln(a, b) - betaln(*prior))

    def log_capital(rate: float) -> float:
        above = [math.log(max(float(betaincc(*shape, rate)), 1e-300)) for shape in ((a, b), prior)]
        return evidence + above[0] - above[1] - wrong * math.log(rate) - right * math.log1p(-rate)

    low, high = 0.0, wrong / total
    for _ in range(60):
        middle = (low + high) / 2
        if 0.0 < middle < 1.0 and log_capital(middle) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low


@dataclass(slots=True)
class Audit:
    """One tenant's record of audited fuzzy answers. Not locked: its owner calls it from one thread at a time."""

    right: int = 0
    wrong: int = 0
    undecided: int = 0
    quarantined: set[tuple[bytes, bytes]] = field(default_factory=set)
    """Pairs of (input digest asked, input digest recalled) that must never match again."""

    @property
    def audited(self) -> int:
        return self.right + self.wrong + self.undecided

    def bound(self, alpha: float = ALPHA) -> float:
        """95 % upper bound, valid whenever it is looked at, of the share of wrong answers among fuzzy hits."""
        return upper_bound(self.wrong + self.undecided, self.audited, alpha)

    def allowed(self, limit: float = DEFAULT_LIMIT) -> bool:
        """Whether fuzzy answers may be served: not before the bound has come under `limit`."""
        return self.bound() <= limit

    def share(self) -> float:
        """The share of fuzzy answers to audit now: all at first, then as the inverse root of what is known."""
        return 1.0 if self.audited < FULL_AUDIT else max(LEAST_SHARE, math.sqrt(FULL_AUDIT / self.audited))

    def should_audit(self, rng: random.Random, limit: float = DEFAULT_LIMIT) -> bool:
        """Toss the coin for one fuzzy answer, before anything is known about it.

        While answers are held back nothing is lost by judging each of them, and only that can let them through again.
        """
        return not self.allowed(limit) or rng.random() < self.share()

    def record(self, judgement: Judgement) -> None:
        match judgement:
            case "right":
                self.right += 1
            case "wrong":
                self.wrong += 1
            case "undecided":
                self.undecided += 1

    def quarantine(self, pair: tuple[bytes, bytes]) -> bool:
        """Never match `pair` again; a failed audit the first time. False when it was quarantined before."""
        if pair in self.quarantined:
            return False
        self.quarantined.add(pair)
        self.wrong += 1
        return True

    def is_quarantined(self, pair: tuple[bytes, bytes]) -> bool:
        return pair in self.quarantined

    def learn(self, other: Audit) -> None:
        """Takes in what was kept of this record, here or elsewhere: no pair and no count is ever lost by it."""
        self.quarantined |= other.quarantined
        self.right = max(self.right, other.right)
        self.undecided = max(self.undecided, other.undecided)
        self.wrong = max(self.wrong, other.wrong, len(self.quarantined))  # each pair was a failed audit

    def to_bytes(self) -> bytes:
        record = {
            "version": _VERSION,
            "right": self.right,
            "wrong": self.wrong,
            "undecided": self.undecided,
            "quarantined": sorted([asked.hex(), recalled.hex()] for asked, recalled in self.quarantined),
        }
        return json.dumps(record, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Audit:
        """The inverse of `to_bytes`; ValueError on anything else."""
        try:
            record = json.loads(data)
            if not isinstance(record, Mapping) or record["version"] != _VERSION:
                raise ValueError("audit record: unknown version")
            counts = [int(record[name]) for name in ("right", "wrong", "undecided")]
            pairs = {(bytes.fromhex(asked), bytes.fromhex(recalled)) for asked, recalled in record["quarantined"]}
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"audit record: {error}") from error
        if min(counts) < 0:
            raise ValueError("audit record: negative count")
        return cls(right=counts[0], wrong=counts[1], undecided=counts[2], quarantined=pairs)

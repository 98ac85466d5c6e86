"""How often a fuzzy answer is wrong, among those there are, with a bound that may be looked at at any time.

**The bet.** Against the claim "wrong at m or more" a gambler bets a fixed part r of his capital on every audit: it
grows by 1 + r w (m - W), where W is 1 for a wrong answer and w the audit's weight. Under the claim that never grows on
average, so by Ville's inequality it ever exceeds 1 / alpha with probability at most alpha, however the moments of
looking were chosen. The mixture over some r is such a capital too; the least m at which it is that large is the bound.
(Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of Statistics 49; Waudby-Smith & Ramdas 2024, JRSS B 86.)

**The weights.** Answers that are less alike are audited more. An answer of which the share p is audited weighs
w = c / p, c being the share of the most alike at the same moment: inverse-probability weighting, scaled so that no
weight exceeds 1 and what is known early is not thrown away. Over similarity the estimate is then of all hits alike;
over time an audit counts as one, whatever the share was.

**Similarity.** Audits pool over nested sets: all hits, and those at least as alike as the first, second, third of
EDGES. Half of alpha goes to all hits. With the other half the narrowest set must prove itself first, then the next, so
that the first false proof of all is the only one that matters (fixed-sequence testing). What is served is the widest
set proved.

**Drift.** Because r is fixed, the proof that a limit holds is right for the average over the audits so far even where
the rate moves (by Jensen's inequality, log capital is at most that of the average); but an average follows slowly. So
beside it runs a detector, an e-process restarted whenever it falls below 1 (Shin, Ramdas & Rinaldo 2023), which bets
that wrong answers have become frequent. When it is sure, the set begins a new era: all that was known is void, and
serving begins again with a new proof, which may err with probability alpha again.

**The judge.** He says right, wrong, or that he is undecided. An undecided audit is left out. What is left holds too few
wrong ones where he is undecided of, or takes for right, a larger share of the wrong answers than of the right ones. His
power is the share of wrong answers that he calls wrong over the share of right ones of which he is sure; he tells it
with each verdict (`bench.verdicts` measures it), and so large a share of his "right" counts, by lot; the others are
"faint" and left out. So a judge who finds a quarter of what is wrong needs four times as many clean audits. Right
answers that he calls wrong only make the bound larger. An audit that nobody could judge counts as wrong.
`bound(doubted=True)` is the same with every undecided audit a wrong one.

Assumed: which answer is audited is decided by a coin (and by whether there is room) before anybody knows whether it is
right; wrong answers are as easy to find as the ones that power was measured on; what was proved holds for the next
answers until the detector says otherwise.
"""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Judgement = Literal["right", "wrong", "undecided", "unjudged", "faint"]
Counts = npt.NDArray[np.int64]
"""[SETS, WEIGHTS, 5]: audits by set, by weight (2 ** -index), and by judgement in the order of JUDGEMENTS."""
Array = npt.NDArray[np.float64]

JUDGEMENTS: Final[tuple[Judgement, ...]] = ("right", "wrong", "undecided", "unjudged", "faint")
ALPHA: Final = 0.05
"""1 minus the bound's confidence."""
DEFAULT_LIMIT: Final = 0.005
EDGES: Final = (0.55, 0.7, 0.8)
"""Similarities from which a hit is of the next band up; set s holds the bands s and above. Of true copies of words and
sentences (clean, noise, codecs) about a tenth, two, three and four tenths are of the bands."""
SETS: Final = len(EDGES) + 1
WEIGHTS: Final = 5
LEAST_SHARE: Final = 2.0 ** (1 - WEIGHTS)
"""Of fuzzy answers, once much is known."""
MORE: Final = (2, 1, 1, 0)
"""Halvings of the share that a band is spared, least alike first."""
UNNOTICED: Final = 3.0
"""Wrong answers that audits must find before the detector is sure."""

_PARTS: Final = np.array([0.99, 0.95, 0.85, 0.7, 0.5, 0.3, 0.15])
"""r, the part of the capital that is put at stake: the larger, the rarer wrong answers are expected to be."""
_PRIOR: Final = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.06, 0.04])
"""How the first capital is split over the parts."""
_WEIGHT: Final = 0.5 ** np.arange(WEIGHTS)
_RISEN: Final = (2.5, 8.0, 25.0)
"""How many times the limit the detector suspects."""
_ALARM: Final = math.log(40.0)
_AT_ONCE: Final = 16
"""Audits that found nothing wrong after which it is asked anew what may be served; a wrong one is heeded at once."""
_VERSION: Final = 2


def band_of(similarity: float) -> int:
    """0 for the least alike to SETS - 1."""
    return bisect_right(EDGES, similarity)


def log_capital(counts: Counts, rate: float, *, doubted: bool = False) -> Array:
    """What was won, by set, against the claim that `rate` or more of the hits are wrong: natural log of the capital.

    Undecided audits are left out, or, if `doubted`, count as wrong; faint ones are left out.
    """
    good_gain, bad_gain = _gains(rate)
    wrong = counts[:, :, 1] + counts[:, :, 3]
    if doubted:
        wrong = wrong + counts[:, :, 2]
    won = counts[:, :, 0] @ good_gain + wrong @ bad_gain
    top = won.max(axis=1)
    return np.asarray(top + np.log(np.exp(won - top[:, None]) @ _PRIOR))


@lru_cache(maxsize=1024)
def _gains(rate: float) -> tuple[Array, Array]:
    """Log growth of each part at stake [WEIGHTS, parts] by an audit that is not bad, and by one that is."""
    stake = _WEIGHT[:, None] * _PARTS
    return np.log1p(stake * rate), np.log1p(stake * (rate - 1.0))


def upper_bound_of(counts: Counts, *, alpha: float = ALPHA, doubted: bool = False) -> float:
    """The largest share of wrong answers, 0..1, that is not yet excluded by one set's `counts` [WEIGHTS, 5]; 1 while
    nothing is known."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if log_capital(counts[None], middle, doubted=doubted)[0] < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


def upper_bound(wrong: int, total: int, alpha: float = ALPHA) -> float:
    """The bound after `wrong` of `total` audits of weight 1."""
    if not 0 <= wrong <= total:
        raise ValueError(f"{wrong} wrong of {total} audits")
    counts = np.zeros((WEIGHTS, len(JUDGEMENTS)), np.int64)
    counts[0, :2] = total - wrong, wrong
    return upper_bound_of(counts, alpha=alpha)


@dataclass(frozen=True, slots=True)
class Sample:
    """One fuzzy answer that the coin has chosen to be audited."""

    band: int
    weight: int
    """Index into the weights."""
    lot: float = 0.0
    """0..1, drawn beforehand: a right verdict counts if this is below the judge's power."""


@dataclass(slots=True)
class Tally:
    """What one gateway has found of one tenant's fuzzy answers. Gateways' tallies add up."""

    eras: list[int] = field(default_factory=lambda: [0] * SETS)
    counts: Counts = field(default_factory=lambda: np.zeros((SETS, WEIGHTS, len(JUDGEMENTS)), np.int64))
    """Of the present era."""
    served: int = 0
    """Answers that were served since the last alarm of any set: the less, the more are audited."""
    totals: dict[str, list[int]] = field(default_factory=dict)
    """Audits of all eras by label (`gateway.audits`), by judgement; nothing is decided by them."""

    def begin_era(self, eras: list[int]) -> None:
        """Forgets the counts of every set whose era is past."""
        for number, era in enumerate(eras):
            if era > self.eras[number]:
                self.eras[number] = era
                self.counts[number] = 0
                self.served = 0

    def to_json(self) -> dict[str, object]:
        return {"eras": self.eras, "counts": self.counts.tolist(), "served": self.served, "totals": self.totals}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Tally:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError on anything else."""
        counts = np.array(record["counts"], np.int64)
        eras, totals = record["eras"], record["totals"]
        if not isinstance(eras, list) or not isinstance(totals, dict):
            raise TypeError("eras and totals must be a list and an object")
        eras = [int(era) for era in eras]
        totals = {str(label): [int(count) for count in row] for label, row in totals.items()}
        served = int(str(record["served"]))
        if counts.shape != (SETS, WEIGHTS, len(JUDGEMENTS)) or len(eras) != SETS:
            raise ValueError("counts of another shape")
        if any(len(row) != len(JUDGEMENTS) for row in totals.values()):
            raise ValueError("totals of another shape")
        if counts.min() < 0 or min(eras) < 0 or served < 0 or any(min(row) < 0 for row in totals.values()):
            raise ValueError("negative count")
        return cls(eras, counts, served, totals)


class Audit:
    """One tenant's record of audited fuzzy answers. Not locked: its owner calls it from one thread at a time.

    `own` is what this gateway found, `others` what gateways on the same Redis told, `pool` what tenants with whom
    evidence is shared have found; that helps only as long as no alarm has told this tenant from them.
    """

    def __init__(self, limit: float = DEFAULT_LIMIT, *, proof: bool = True) -> None:
        self.limit, self.proof = limit, proof
        self.own = Tally()
        self.others: dict[str, Tally] = {}
        self.pool: Counts | None = None
        self.quarantined: set[tuple[bytes, bytes]] = set()
        """Pairs of (input digest asked, input digest recalled) that must never match again."""
        self.alarms = 0
        self._strikes: dict[bytes, int] = {}
        self._suspicion = [[0.0] * len(_RISEN) for _ in range(SETS)]
        risen = [min(times * limit, (1 + limit) / 2) for times in _RISEN]
        stakes = [(one - limit) / (limit * (1 - limit)) for one in risen]
        self._detector = [
            [[math.log1p(stake * 0.5**weight * (bad - limit)) for stake in stakes] for weight in range(WEIGHTS)]
            for bad in (0.0, 1.0)
        ]
        self._since = 0
        self._served_from: int | None = None
        self._bounds: dict[bool, float] = {}
        """What `bound` last said, until something is recorded."""

    # ----------------------------------------------------------------------------------------------- deciding

    def served_from(self) -> int:
        """The lowest band that may be served now; SETS while none may."""
        if self._served_from is None:
            self._served_from = self._decide()
        return self._served_from

    def serves(self, similarity: float) -> bool:
        return band_of(similarity) >= self.served_from()

    def _decide(self) -> int:
        eras = self.eras()
        proved = log_capital(self.evidence(), self.limit) >= math.log(2 / ALPHA)
        if proved[0] or (not self.proof and not eras[0]):
            return 0
        lowest = SETS
        for number in reversed(range(SETS)):
            if not (proved[number] or (not self.proof and eras[number] == 0)):
                break
            lowest = number
        return lowest

    def evidence(self) -> Counts:
        """What is known in the present era, of all who share it."""
        eras = self.eras()
        total = np.zeros_like(self.own.counts)
        for tally in self.tallies():
            for number, era in enumerate(eras):
                if tally.eras[number] == era:
                    total[number] += tally.counts[number]
        if self.pool is not None:
            total += self.pool * (np.array(eras) == 0)[:, None, None]
        return total

    def eras(self) -> list[int]:
        """How often each set was shut by the detector, here or at another gateway."""
        return [max(eras) for eras in zip(*(tally.eras for tally in self.tallies()), strict=True)]

    def known_before_alarms(self) -> Counts:
        """What this tenant has to share: sets that an alarm has told from other tenants' are left out."""
        alike = (np.array(self.eras()) == 0)[:, None, None]
        return np.asarray(np.sum([tally.counts for tally in self.tallies()], axis=0) * alike)

    def bound(self, *, doubted: bool = False) -> float:
        """95 % upper bound, valid whenever it is looked at, of the share of wrong answers among the fuzzy hits that are
        served, or, while none is, among those that may be first. `doubted`: with every undecided audit a wrong one."""
        if doubted not in self._bounds:
            counts, number = self.evidence(), self.served_from()
            sets = (number,) if number < SETS else (0, SETS - 1)
            self._bounds[doubted] = min(upper_bound_of(counts[one], alpha=ALPHA / 2, doubted=doubted) for one in sets)
        return self._bounds[doubted]

    # ----------------------------------------------------------------------------------------------- sampling

    def share(self, similarity: float) -> float:
        """The share of fuzzy answers as alike as this that is audited now."""
        return 0.5 ** self._halvings(band_of(similarity))[0]

    def _halvings(self, band: int) -> tuple[int, int]:
        """How often the share is halved: in this band, and in the one that is audited least.

        Not at all where answers are held back: nothing is lost by judging them, and only that can let them through
        again. Of what is served so many are judged that, should it turn wrong, what goes out before audits notice is
        small beside limit times served.
        """
        served_from = self.served_from()
        if served_from == SETS:
            return 0, 0
        risked = self.limit * self.served() / UNNOTICED
        least = min(WEIGHTS - 1, int(math.log2(risked))) if risked > 1 else 0
        return (max(0, least - MORE[band]) if band >= served_from else 0), least

    def draw(self, rng: random.Random, similarity: float) -> Sample | None:
        """Tosses the coin for one fuzzy answer, before anything is known about it."""
        band = band_of(similarity)
        halvings, least = self._halvings(band)
        if halvings and rng.random() >= 0.5**halvings:
            return None
        return Sample(band, least - halvings, rng.random())

    def count_served(self) -> None:
        self.own.served += 1

    # ---------------------------------------------------------------------------------------------- recording

    def record(self, sample: Sample, judgement: Judgement, label: str = "", power: float = 1.0) -> None:
        """`power`: of the judge, over answers of this kind."""
        if judgement == "right" and sample.lot >= power:
            judgement = "faint"
        column = JUDGEMENTS.index(judgement)
        self.own.counts[: sample.band + 1, sample.weight, column] += 1
        totals = self.own.totals.get(label) or self.own.totals.setdefault(label, [0] * len(JUDGEMENTS))
        totals[column] += 1
        self._bounds.clear()
        self._since += 1
        if judgement in ("wrong", "unjudged") or self._since >= _AT_ONCE:
            self._served_from, self._since = None, 0
        if judgement in ("wrong", "right"):
            self._suspect(sample, judgement == "wrong")

    def _suspect(self, sample: Sample, bad: bool) -> None:
        """Has the detector bet on one audit, in every set it belongs to."""
        gains = self._detector[bad][sample.weight]
        alarmed = -1
        for number in range(sample.band + 1):
            row = self._suspicion[number]
            if not bad and not any(row):
                continue
            row[:] = [max(0.0, before + gain) for before, gain in zip(row, gains, strict=True)]
            if bad and max(row) >= _ALARM:
                alarmed = number
        if alarmed >= 0:  # what is wider holds what has become wrong, too
            self.alarms += 1
            self.own.begin_era([era + (number <= alarmed) for number, era in enumerate(self.eras())])
            for row in self._suspicion[: alarmed + 1]:
                row[:] = [0.0] * len(_RISEN)

    def quarantine(self, pair: tuple[bytes, bytes], sample: Sample | None = None, label: str = "") -> bool:
        """Never match `pair` again; a failed audit the first time, one of every set where nobody sampled it. False when
        it was quarantined before."""
        if pair in self.quarantined:
            return False
        self.shun(pair)
        self.record(sample or Sample(SETS - 1, 0), "wrong", label)
        return True

    def shun(self, pair: tuple[bytes, bytes]) -> None:
        """Never match `pair` again, of which somebody else has kept count."""
        if pair not in self.quarantined:
            self.quarantined.add(pair)
            self._strikes[pair[1]] = self._strikes.get(pair[1], 0) + 1

    def is_quarantined(self, pair: tuple[bytes, bytes]) -> bool:
        """Whether the pair was found wrong, or its recording was in two others."""
        return pair in self.quarantined or self._strikes.get(pair[1], 0) >= 2

    # ------------------------------------------------------------------------------------------ what is kept

    def changed(self) -> None:
        """To be called when `others` or `pool` were changed."""
        self.own.begin_era(self.eras())
        self._served_from = None
        self._bounds.clear()

    def resume(self, kept: Tally) -> None:
        """Goes on from what this gateway kept before it was started."""
        kept.begin_era(self.own.eras)
        self.own.begin_era(kept.eras)
        kept.counts += self.own.counts
        kept.served += self.own.served
        for label, row in self.own.totals.items():
            before = kept.totals.get(label, [0] * len(JUDGEMENTS))
            kept.totals[label] = [a + b for a, b in zip(before, row, strict=True)]
        self.own = kept
        self.changed()

    def tallies(self) -> tuple[Tally, ...]:
        return (self.own, *self.others.values())

    def served(self) -> int:
        """Since the last alarm, by all gateways."""
        return self.own.served + sum(tally.served for tally in self.others.values())

    def totals_by_label(self) -> dict[str, list[int]]:
        """Audits of all eras and gateways, by judgement; "" where there is no label."""
        sums: dict[str, list[int]] = {}
        for tally in self.tallies():
            for label, row in tally.totals.items():
                sums[label] = [a + b for a, b in zip(sums.get(label, [0] * len(JUDGEMENTS)), row, strict=True)]
        return sums

    def totals(self) -> dict[Judgement, int]:
        """Audits of all eras and gateways."""
        rows = self.totals_by_label().values()
        return {judgement: sum(row[place] for row in rows) for place, judgement in enumerate(JUDGEMENTS)}

    def to_bytes(self, **beside: object) -> bytes:
        """This gateway's own tally; quarantined pairs are kept one by one, elsewhere. `beside` goes along, for
        others to read."""
        return json.dumps({"version": _VERSION, **self.own.to_json(), **beside}, separators=(",", ":")).encode()


def tally_from_bytes(data: bytes) -> tuple[Tally, set[tuple[bytes, bytes]]]:
    """A kept tally, and the pairs that records of the first version held. ValueError on anything else.

    The first version knew neither similarity nor language, and kept one record for all gateways.
    """
    try:
        record = json.loads(data)
        if not isinstance(record, Mapping):
            raise TypeError("no object")
        if record["version"] == _VERSION:
            return Tally.from_json(record), set()
        if record["version"] != 1:
            raise ValueError("unknown version")
        right, wrong, undecided = (int(record[name]) for name in ("right", "wrong", "undecided"))
        pairs = {(bytes.fromhex(asked), bytes.fromhex(recalled)) for asked, recalled in record["quarantined"]}
        if min(right, wrong, undecided) < 0:
            raise ValueError("negative count")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"audit record: {error}") from error
    tally = Tally(totals={"": [right, wrong, undecided, 0, 0]})
    tally.counts[:, 0] = right, wrong, undecided, 0, 0
    return tally, pairs

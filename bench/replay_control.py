"""The control of a replay: in turn with the load, a share of it once more, past the cache.

The load is cut into rounds. Behind each comes a round of the same length in which a share of its requests is sent
again with mode BYPASS, at the moments in the round that they had: the same load, thinned to what engines bear. Between
rounds nothing is sent for REST_S, so that neither waits for the other's answers; what takes longer than that is counted
(replay_judge). With and without the cache thus stand side by side in one run, on one machine in one state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.replay_judge import Pairing

REST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """How the load and its control take turns."""

    share: float
    """Of the load that is sent again, 0 to 1; 0: no control, and no rounds."""
    length_s: float
    """Of a round of the load, and of one of the control."""
    warmup_s: float
    """Of the load, before the first round."""

    @property
    def pause_s(self) -> float:
        """From the end of one round of the load to the beginning of the next."""
        return self.length_s + 2 * REST_S if self.share else 0.0

    def paused(self, at_s: float) -> float:
        """For how long the load has stood still at a moment of the run."""
        since = at_s - self.warmup_s
        if not self.share or since <= 0:
            return 0.0
        full, rest = divmod(since, self.length_s + self.pause_s)
        return full * self.pause_s + max(0.0, rest - self.length_s)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All requests of load and control, [n] each, in the order of sending."""

    due_s: npt.NDArray[np.float64]
    """From the beginning, rising."""
    request: npt.NDArray[np.int64]
    """Which request of the plan it is, or is the control of."""
    pairing: Pairing

    def of(self, share: int, shares: int) -> Schedule:
        """Every `shares`-th request of the plan from the `share`-th, counted from 0, with its control."""
        mine = self.request % shares == share
        return Schedule(self.due_s[mine], self.request[mine], self.pairing[mine])


def scheduled(due_s: npt.NDArray[np.float64], rounds: Rounds, seed: int) -> Schedule:
    """`due_s`: of each request of the load, from its beginning, as if there were no control."""
    requests = np.arange(len(due_s))
    since = due_s - rounds.warmup_s
    counted = since >= 0
    number = np.where(counted, since // rounds.length_s, 0) if rounds.share else np.zeros(len(due_s))
    ours_s = due_s + number * rounds.pause_s
    begun_s = rounds.warmup_s + number * (rounds.length_s + rounds.pause_s)
    drawn = counted & (np.random.default_rng([seed, 1]).random(len(due_s)) < rounds.share)
    theirs_s = ours_s[drawn] + rounds.length_s + REST_S
    due = np.concatenate([ours_s, theirs_s])
    order = np.argsort(due, kind="stable")
    pairing = Pairing(
        past=np.repeat([False, True], [len(due_s), int(drawn.sum())]),
        pair=np.concatenate([np.where(drawn, requests, -1), requests[drawn]]),
        until_s=np.concatenate(
            [begun_s + rounds.length_s + REST_S, (begun_s + rounds.length_s + rounds.pause_s)[drawn]]
        ),
    )
    return Schedule(due[order], np.concatenate([requests, requests[drawn]])[order], pairing[order])

"""What `RefrainClient.explain` gives: why a recording was, or was not, answered from an earlier one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

Line = npt.NDArray[np.float32]
"""One value a frame."""

_NOT_COMPARED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TOO_SHORT": "less than 0.3 s of speech, which is matched exactly only",
        "TOO_LONG": "more than 30 s, which is matched exactly only",
        "SILENT": "silence",
    }
)
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "same": "the same recording",
        "distance": "nothing alike",
        "the query has more speech": "speech that the earlier one lacks",
        "the stored recording has more speech": "the earlier one has more speech",
        "min_similarity": "less alike than was asked for",
        "not among the likeliest": "the same recording, but not among the likeliest, which alone are looked at",
    }
)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Both recordings along the time of the earlier one, float32 [frames] each; see RecallTimeline in cache.proto."""

    start_s: float
    level: Line
    """0 silence to 3 loud; -1 outside of the earlier recording."""
    speech: Line
    """The same of the one asked about, as it is likely to have been undistorted; -1 outside of it."""
    evidence: Line
    """Nats for the same sound; below 0 for another."""
    known: Line
    """Nats that there could be: what noise leaves to be known."""
    against: Line
    """Log-odds against the same recording beyond what is allowed: a frame from 0 on refuses by itself."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recording heard before, beside the one asked about."""

    entry_id: str
    pair_id: str
    """For `report_wrong_hit`; of the one alone that answers, or would."""
    itself: bool
    quarantined: bool
    accepted: bool
    reason: str
    similarity: float
    distance: float
    score: float | None
    """Log-odds of being the same less the threshold; None where the distance alone refused it, and what follows but
    for the words says nothing."""
    offset_s: float
    pace: float
    worst_s: float
    """In the time of the recording heard before."""
    remembered: bool
    transcript: str
    timeline: Timeline

    @property
    def worst_here_s(self) -> float:
        """`worst_s` in the time of the recording asked about."""
        return self.offset_s + self.pace * self.worst_s

    def describe(self) -> str:
        """In words, such as "another sound at 0.84 s"."""
        if self.itself:
            return "this very recording"
        if self.quarantined:
            return "kept apart, because it was found or reported to be wrong"
        said = _REASONS.get(self.reason, self.reason)
        if self.reason == "same" and self.score is not None:
            return f"{said}, {_shift(self.offset_s)}"
        pointed = self.reason in ("another sound", "the query has more speech")
        return f"{said} at {max(0.0, self.worst_here_s):.2f} s" if pointed and self.score is not None else said


@dataclass(frozen=True, slots=True)
class Explanation:
    """`outcome`, `fingerprint` and `serving` are names of the enums in ExplainRecallResponse (cache.proto)."""

    outcome: str
    fingerprint: str
    serving: str
    wrong_upper_bound: float
    limit: float
    from_similarity: float
    recordings: int
    length_s: float
    frame_s: float
    level: Line
    speech: Line
    candidates: tuple[Candidate, ...]
    """The one that answers, or would, first; then the nearest."""

    def describe(self) -> str:
        """The decision in words, such as "answered from memory: the same recording, 0.12 s later"."""
        alike = bool(self.candidates) and self.candidates[0].reason != "distance"
        first = self.candidates[0].describe() if alike else "no recording in memory is like it"
        said = {
            "EXACT": "answered from memory: this very recording",
            "ANSWERED": f"answered from memory: {first}",
            "WITHHELD": f"not answered, though it is {first}: {self.why_not_served()}",
            "FORGOTTEN": f"not answered: {first}, but its answer with these options is not stored",
            "NOT_COMPARED": f"not compared: {_NOT_COMPARED.get(self.fingerprint, self.fingerprint)}",
            "NOT_READY": "not answered: the index is still being read",
        }
        return said.get(self.outcome, f"not answered: {first}")

    def why_not_served(self) -> str:
        """Why fuzzy answers are not served now, or those that are no more alike than the first candidate."""
        bound = f"audits bound the wrong ones by {self.wrong_upper_bound:.2%}, and the limit is {self.limit:.2%}"
        return {
            "NOT_ASKED": "the request does not ask for fuzzy answers",
            "NEVER": "this tenant is given no fuzzy answers",
            "SHADOW": "this tenant's fuzzy answers are audited only",
            "HELD_BACK": f"fuzzy answers are held back, {bound}",
        }.get(self.serving, f"they are served from a similarity of {self.from_similarity:.2f} on, {bound}")


def _shift(offset_s: float) -> str:
    if math.isclose(offset_s, 0.0, abs_tol=0.005):
        return "at the same time"
    return f"{abs(offset_s):.2f} s {'later' if offset_s > 0 else 'earlier'}"

"""Pairs that audits judged: the worst and the last of each book, for a person who wants to know what a bound rests on.

A pair is told by half digests, keyed hashes of what was asked and of what answered: no words, no sound. Pairs travel
and are kept with the tally of the gateway that judged them, some 200 bytes each; nothing is decided by them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from gateway.fingerprint.audit import JUDGEMENTS, Judgement

WORST: Final = 12
LAST: Final = 8
LABEL_CHARACTERS: Final = 64
_BADNESS: Final[dict[Judgement, int]] = {"wrong": 0, "unjudged": 1, "undecided": 2, "faint": 3, "right": 3}


class JudgedPair(NamedTuple):
    asked: bytes
    """Half digest of what was asked, 16 bytes."""
    recalled: bytes
    """Half digest of the recording, or the voice and mood, that answered."""
    similarity: float
    """0 where only a person's report tells of the pair."""
    judgement: Judgement
    label: str
    """The language that was named, or, of a near voice, the voice that answered; empty where there is none."""
    answer: bytes
    """Digest in the cache key of the answer that was given; empty where only a report tells of the pair."""
    at: int
    """Unix seconds."""


def kept(pairs: Iterable[JudgedPair]) -> list[JudgedPair]:
    """The WORST and the LAST of them, each pair once, the worst first.

    A wrong one is the worse the more alike it was, for the harder it is to tell; any other the less alike it was. Of a
    pair that was judged more than once the worst judgement counts, and of equal ones the last.
    """
    found: dict[tuple[bytes, bytes], JudgedPair] = {}
    for pair in sorted(pairs, key=lambda pair: (-_BADNESS[pair.judgement], pair.at)):
        found[pair[:2]] = pair
    ranked = sorted(found.values(), key=badness)
    late = sorted(ranked[WORST:], key=lambda pair: -pair.at)[:LAST]
    return ranked[:WORST] + sorted(late, key=badness)


def badness(pair: JudgedPair) -> tuple[int, float, int, bytes]:
    """What pairs are sorted by, the worst first."""
    alike = -pair.similarity if pair.judgement == "wrong" else pair.similarity
    return _BADNESS[pair.judgement], alike, -pair.at, pair.asked


def pairs_json(pairs: Iterable[JudgedPair]) -> list[list[Any]]:
    return [
        [pair.asked.hex(), pair.recalled.hex(), round(pair.similarity, 4), pair.judgement, pair.label,
         pair.answer.hex(), pair.at]
        for pair in pairs
    ]  # fmt: skip


def pairs_of(tally: bytes) -> list[JudgedPair]:
    """Those kept with a tally. What cannot be read is of another version, and left out: the counts stand without."""
    try:
        rows = json.loads(tally)["pairs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    found = (_pair(row) for row in rows[: WORST + LAST]) if isinstance(rows, list) else ()
    return [pair for pair in found if pair is not None]


def _pair(row: Any) -> JudgedPair | None:
    try:
        asked, recalled, similarity, judgement, label, answer, at = row
        pair = JudgedPair(
            bytes.fromhex(asked), bytes.fromhex(recalled), float(similarity), judgement, str(label)[:LABEL_CHARACTERS],
            bytes.fromhex(answer), int(at),
        )  # fmt: skip
    except (TypeError, ValueError, OverflowError):
        return None
    sound = len(pair.asked) == len(pair.recalled) == 16 and len(pair.answer) in (0, 32)
    return pair if sound and pair.judgement in JUDGEMENTS and 0 <= pair.similarity < math.inf and pair.at >= 0 else None

"""Recordings to fill an index with: stretches of real clips' fingerprints, joined and perturbed, a million in a minute.

Made in fingerprint space. Joins give sequences that no clip has, flips give bits that none has; how often a stranger's
keys meet them is measured beside real clips (`bench.index`, "keys shared with a stranger").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gateway.fingerprint.bits import Fingerprint

STRETCH: Final = (25, 60)
"""Frames of one clip in a row: 0.4 to 1 s, syllables to words."""
BATCH: Final = 256


def fill(
    prints: list[Fingerprint], count: int, rng: np.random.Generator
) -> Iterator[list[tuple[bytes, Fingerprint, tuple[str, ...]]]]:
    """`count` entries (id of 32 bytes, fingerprint, two tags) in batches, as long and as loud as `prints` are."""
    bits = np.concatenate([fp.bits[fp.active] for fp in prints])
    mask = np.concatenate([fp.mask[fp.active] for fp in prints])
    while count > 0:
        n = min(BATCH, count)
        count -= n
        like = [prints[number] for number in rng.integers(0, len(prints), n)]
        wanted = np.array([len(fp) for fp in like])
        total = int(wanted.sum())
        runs = rng.integers(*STRETCH, size=total // STRETCH[0] + 2)
        runs = runs[: int(np.searchsorted(np.cumsum(runs), total)) + 1]
        starts = rng.integers(0, len(bits) - STRETCH[1], len(runs))
        at = (np.repeat(starts - np.cumsum(runs) + runs, runs) + np.arange(runs.sum()))[:total]
        seldom = np.bitwise_and.reduce(rng.integers(0, 1 << 32, (4, total), dtype=np.uint32))
        never = np.bitwise_and.reduce(rng.integers(0, 1 << 32, (2, total), dtype=np.uint32)) & seldom
        # One in 16 of the bits that stood near zero is another, and one in 64 of those that stood far from it.
        changed = bits[at] ^ ((seldom & ~mask[at]) | (never & mask[at]))
        ends = np.cumsum(wanted)[:-1]
        parts = zip(np.split(changed, ends), np.split(mask[at], ends), like, strict=True)
        speakers = rng.integers(0, 1000, n)
        yield [
            (rng.bytes(32), Fingerprint(words, trusted, fp.level, fp.seconds), (f"speaker:{speaker}", "engine:1"))
            for (words, trusted, fp), speaker in zip(parts, speakers, strict=True)
        ]

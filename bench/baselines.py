"""What others would know a recording by: its exact samples, a MinHash of quantised mel, Haitsma and Kalker's bits."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from models.bands import BANDS, band_energies, to_telephone_rate
from models.signs import ACTIVE_DB
from models.utterance import Samples

HK_THRESHOLD: Final = 0.35
"""Haitsma and Kalker's own bit error rate (2002)."""
PERMUTATIONS: Final = 128
SCHEME: Final = "affine32"
STEP_DB: Final = 6.0
"""A level of the quantised mel."""
GROUPS: Final = 8
AHEAD: Final = (4, 8)
"""Frames ahead that a token tells too: 64 and 128 ms."""

Signature = npt.NDArray[np.uint32]


def digest(samples: Samples) -> bytes:
    """What an exact cache knows a recording by: its 16-bit samples."""
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    return hashlib.blake2b(pcm.tobytes(), digest_size=16).digest()


def tokens(samples: Samples) -> list[int]:
    """Quantised mel of 16 kHz samples as a set: for every second active frame and each of eight groups of bands, which
    group it is and its level, now, 64 and 128 ms on, in steps of 6 dB below the loudest group of the recording."""
    energies = band_energies(to_telephone_rate(samples))
    loudness = energies.sum(axis=1)
    width = BANDS // GROUPS
    grouped = energies[:, : GROUPS * width].reshape(len(energies), GROUPS, width).mean(axis=2)
    peak = max(float(grouped.max(initial=0.0)), 1e-30)
    level = np.round(-10 * np.log10(np.maximum(grouped / peak, 10 ** (-ACTIVE_DB / 10))) / STEP_DB).astype(np.int64)
    later = np.pad(level, ((0, max(AHEAD)), (0, 0)), mode="edge")
    active = np.flatnonzero(loudness > loudness.max(initial=0.0) * 10 ** (-ACTIVE_DB / 10))[::2]
    told = np.arange(GROUPS)[None]
    for ahead in (0, *AHEAD):
        told = 16 * told + later[active + ahead]
    return [int(token) for token in np.unique(told)]


def signature(samples: Samples) -> Signature:
    """datasketch's MinHash of `tokens`: uint32 [128]."""
    sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=int, permutations=_permutations(), scheme=SCHEME)
    sketch.update_batch(tokens(samples))
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=1)
def _permutations() -> Any:
    """Drawn once: drawing them takes longer than a signature does."""
    return MinHash(num_perm=PERMUTATIONS, scheme=SCHEME).permutations


def alike(one: Signature, others: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of one to each of the others [n, 128]: float64 [n]."""
    return np.asarray(np.count_nonzero(others == one, axis=1) / PERMUTATIONS, dtype=np.float64)

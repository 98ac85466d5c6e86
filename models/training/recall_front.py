"""What a fingerprint measures, for the training of the two networks that read it: energies, bits, levels, codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.bands import HOP, HOP_S, band_energies, to_telephone_rate
from models.signs import Levels, Words, levels, signs
from models.utterance import Samples

__all__ = ["HOP_S", "Code", "Half", "bits_of", "code_of", "energies_of", "logs_of"]

Half = npt.NDArray[np.float16]

FLOOR: Final = 1e-7
"""Of the loudest frame: what the ear takes for nothing. Its exported graph has the same."""
LOWEST_PEAK: Final = 1e-12
MIN_ACTIVE_S: Final = 0.3
"""Of speech: what has less has no fingerprint (`gateway.fingerprint.bits`)."""


@dataclass(frozen=True, slots=True)
class Code:
    """What is stored of a recording of T frames."""

    bits: Words
    """uint32 [T]."""
    mask: Words
    """uint32 [T]: the trusted ones."""
    level: Levels
    """uint8 [T]: 0 silence, 1 active, 2 strong, 3 loud."""


def energies_of(samples: Samples, shift: int = 0) -> Samples:
    """Linear band power of 16 kHz `samples` on the frame grid and half a frame later, both `shift` samples of 8 kHz
    later than usual: float32 [T, 2, 33]."""
    narrow = to_telephone_rate(samples)
    return np.stack([band_energies(narrow, shift), band_energies(narrow, shift + HOP // 2)], axis=1)


def logs_of(energies: Samples) -> Half:
    """Band power [T, 2, 33] as the ear takes it: log10 of shares of the loudest frame, float16 [T, 66]."""
    peak = max(float(energies[:, 0].sum(axis=1).max(initial=0.0)), LOWEST_PEAK)
    return np.log10(energies / peak + FLOOR).astype(np.float16).reshape(-1, 66)


def bits_of(energies: Samples) -> tuple[Words, Words]:
    """Bits and mask of band power [T, 2, 33], for each half frame in turn: uint32 [2 T] each."""
    grids = [signs(energies[:, grid]) for grid in (0, 1)]
    bits, mask = (np.stack([grid[which] for grid in grids], axis=1).reshape(-1) for which in (0, 1))
    return bits, mask


def code_of(samples: Samples) -> Code | None:
    """What is stored of 16 kHz `samples`; None where there are less than 0.3 s of speech."""
    energies = band_energies(to_telephone_rate(samples))
    level = levels(energies)
    if np.count_nonzero(level) * HOP_S < MIN_ACTIVE_S:
        return None
    return Code(*signs(energies), level)

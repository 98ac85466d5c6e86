"""Band energies for fingerprints: 16 kHz samples in, linear mel power of the telephone band out.

librosa's conventions (power 2, Hann, Slaney scale and norm, zero padding) at 8 kHz, through the same filterbank as
`models.mel`, so that librosa itself, whose first call compiles for seconds, is never on the request path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import soxr
from scipy import fft, sparse

from models.mel import frames_of, hann, mel_filterbank
from models.utterance import Samples

RATE: Final = 8_000
"""Hz: what a telephone carries is all that two recordings can be trusted to share."""
WINDOW: Final = 1024
"""Samples of one frame, 128 ms: long enough to bridge a sub-hop shift, short enough to follow syllables."""
HOP: Final = 128
HOP_S: Final = HOP / RATE
"""Seconds from frame to frame: 0.016."""
BANDS: Final = 33
FMIN: Final = 250.0
FMAX: Final = 3500.0
_BLOCK: Final = 128
"""Frames transformed at a time: what stays in a core's second cache."""


def to_telephone_rate(samples: Samples) -> Samples:
    """16 kHz samples, float32 [n], at 8 kHz: float32 [about n / 2], with no delay."""
    return np.asarray(soxr.resample(samples, 2 * RATE, RATE, quality="HQ"), dtype=np.float32)


def band_energies(samples: Samples, phase: int = 0) -> Samples:
    """Mel power of 8 kHz samples: float32 [1 + n // 128, 33], frame t centred on sample 128 t + `phase`.

    With `phase` 0 this is `librosa.feature.melspectrogram(y, sr=8000, n_fft=1024, hop_length=128, n_mels=33,
    fmin=250, fmax=3500, center=True, pad_mode="constant").T`.
    """
    before, after = np.zeros(WINDOW // 2 - phase, np.float32), np.zeros(WINDOW // 2 + phase, np.float32)
    return _energies(frames_of(np.concatenate([before, samples, after]), WINDOW, HOP))


def half_frame_energies(samples: Samples) -> Samples:
    """Those of phase 0 and of half a frame later, in turn: float32 [2 (1 + n // 128), 33], equal to both to the bit.

    In one go, because fewer and larger calls take less time.
    """
    before, after = np.zeros(WINDOW // 2, np.float32), np.zeros(WINDOW // 2 + HOP // 2, np.float32)
    frames = frames_of(np.concatenate([before, samples, after]), WINDOW, HOP // 2)
    return _energies(frames[: 2 * (1 + len(samples) // HOP)])


def _energies(frames: Samples) -> Samples:
    energies = np.empty((len(frames), BANDS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        spectrum = fft.rfft(block * hann(WINDOW), axis=1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        energies[start : start + _BLOCK] = (_filters() @ power.T).T
    return energies


@lru_cache(maxsize=1)
def _filters() -> sparse.csr_array:
    """float32 [33, 513]: each filter over the power of each bin.

    Sparse, because most of a filter is nothing, and a dense product would wake every BLAS thread for each request.
    """
    return sparse.csr_array(mel_filterbank(RATE, WINDOW, BANDS, FMIN, FMAX))

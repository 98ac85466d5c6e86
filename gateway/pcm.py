"""Samples between the rates and forms of their kind: channels mixed, rates changed, rounded to 16 bits."""

from __future__ import annotations

import numpy as np
import soxr

from models.utterance import Samples


def mono(block: Samples) -> Samples:
    """float32 [n, channels] to float32 [n]: the mean of the channels."""
    return block[:, 0] if block.shape[1] == 1 else np.asarray((block[:, 0] + block[:, 1]) * np.float32(0.5))


class Resampler:
    """soxr HQ, piecewise. However the pieces are cut, together they are what `soxr.resample` makes of the whole."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._stream = None if rate_in == rate_out else soxr.ResampleStream(rate_in, rate_out, 1, "float32", "HQ")

    def push(self, samples: Samples) -> Samples:
        return samples if self._stream is None else np.asarray(self._stream.resample_chunk(samples))

    def finish(self) -> Samples:
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else np.asarray(self._stream.resample_chunk(nothing, last=True))


def to_pcm(samples: Samples) -> bytes:
    """float32 to 16-bit little-endian, rounded and clipped: the inverse of dividing by 32768."""
    scaled = np.rint(samples * np.float32(32_768))
    pcm: bytes = np.clip(scaled, -32_768, 32_767, out=scaled).astype("<i2").tobytes()
    return pcm

"""Speech made here, by the embedded models, for benchmarks that need recordings and have none."""

from __future__ import annotations

from typing import Final

import numpy as np
import soxr

from models.synthesizer import AcousticModel
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder
from protos.refrain.v1 import speech_pb2

SECONDS: Final = 3
SNR_DB: Final = 20.0
"""Of white noise in the noisy copies, against the speech's own mean power."""


class Voice:
    """Our own synthesizer, as a source of test speech."""

    def __init__(self) -> None:
        self._acoustic, self._vocoder = AcousticModel(), Vocoder()

    def mel(self, text: str) -> Samples:
        return self._acoustic.mel(text)

    def recording(self, text: str) -> Samples:
        """Exactly `SECONDS` of it at 16 kHz, float32: said as often as fits."""
        wave = soxr.resample(self._vocoder.wave(self.mel(text)), MEL_RATE, RECOGNIZER_RATE)
        return np.resize(wave, SECONDS * RECOGNIZER_RATE).astype(np.float32)


def to_hear(
    samples: Samples, match: speech_pb2.CacheControl.Match = speech_pb2.CacheControl.EXACT
) -> speech_pb2.RecognizeRequest:
    request = speech_pb2.RecognizeRequest(content=(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    request.config.explicit_decoding_config.encoding = speech_pb2.LINEAR16
    request.config.explicit_decoding_config.sample_rate_hertz = RECOGNIZER_RATE
    request.cache_control.match = match
    return request


def noisy(samples: Samples, rng: np.random.Generator, snr_db: float = SNR_DB) -> Samples:
    power = float(np.mean(samples**2)) / 10 ** (snr_db / 10)
    return (samples + rng.normal(0, power**0.5, len(samples))).astype(np.float32)

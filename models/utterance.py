"""What goes into an engine and what comes out of it: plain values, no I/O.

An `Utterance` is the canonical input of a request. Arrays are float32 and are never written to once made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

RECOGNIZER_RATE: Final = 16_000
"""Hz. Every waveform is brought to this rate before it is recognized or fingerprinted."""
MEL_RATE: Final = 22_050
"""Hz of the waves behind the shared mel, and so of everything synthesized or vocoded before resampling."""
MEL_BANDS: Final = 80
MEL_HOP: Final = 256


@dataclass(frozen=True, slots=True)
class Waveform:
    """Mono speech. `samples`: float32 [n] within -1..1; `rate` in Hz."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class Text:
    """Text to speak, in the form `gateway.wire` normalised it to (Unicode NFC, single spaces)."""

    text: str


@dataclass(frozen=True, slots=True)
class Mel:
    """The shared log-mel (22,050 Hz, FFT 1024, hop 256, 80 Slaney bands to 8 kHz, ln clamped at 1e-5).

    `frames`: float32 [80, T].
    """

    frames: Samples

    @property
    def seconds(self) -> float:
        return float(self.frames.shape[1] * MEL_HOP / MEL_RATE)


@dataclass(frozen=True, slots=True)
class Utterance:
    """The canonical input of a request: its content, and the options that can change the answer."""

    content: Waveform | Text | Mel
    voice: str = ""
    """Voice handle, or empty where the task has no voice."""
    emotion: str = ""
    """Emotion code (neutral, cheerful, sad, angry, calm), or empty where the task has none."""
    speed: float = 1.0
    """Speaking rate relative to the voice's own, 0.5 to 2."""
    language: str = "en-US"
    """BCP-47."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word with its place in the recording, in seconds."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was recognized. `final` is False for an interim result that later ones may change."""

    text: str
    confidence: float
    words: tuple[Word, ...] = ()
    final: bool = True


@dataclass(frozen=True, slots=True)
class Audio:
    """A piece of speech an engine made. `samples`: float32 [n] within -1..1 at `rate` Hz."""

    samples: Samples
    rate: int = MEL_RATE


@dataclass(frozen=True, slots=True)
class VoicePrint:
    """Whose voice was heard. `embedding`: float32 [256] of length 1."""

    embedding: Samples
    nearest: str = ""
    """Registered voice that is near enough to stand for this one; empty for none."""
    cosine: float = 0.0


Chunk = Audio | Transcript | VoicePrint
"""One step of an engine's answer; an answer is all its chunks in order."""

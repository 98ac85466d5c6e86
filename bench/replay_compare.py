"""Whether two answers to one request are the same, and if not, how far apart.

Transcripts are equal or different; their distance is the share of words that would have to change. Sounds are equal
byte for byte, or near: of the same length within a hop, and their log-mels, down to HEARD_DB below the loudest, apart
by at most NEAR_DB on average, which is their distance; or else they are different.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Final

import numpy as np

from models.mel import log_mel
from models.utterance import MEL_HOP

NEAR_DB: Final = 1.0
HEARD_DB: Final = 60.0
EQUAL: Final = "equal"
NEAR: Final = "near"
DIFFERENT: Final = "different"


def compare(task: str, ours: bytes, theirs: bytes) -> tuple[str, float | None]:
    """The verdict and the distance: dB of sounds (LINEAR16 at the models' rate), None where their lengths differ."""
    if ours == theirs:
        return EQUAL, 0.0
    if task == "recognize":
        return DIFFERENT, 1 - SequenceMatcher(None, ours.decode().split(), theirs.decode().split()).ratio()
    if abs(len(ours) - len(theirs)) > 2 * MEL_HOP:
        return DIFFERENT, None
    size = min(len(ours), len(theirs)) // 2 * 2
    waves = [np.frombuffer(sound[:size], "<i2").astype(np.float32) / np.float32(32768) for sound in (ours, theirs)]
    mels = [log_mel(np.asarray(wave, np.float32)) for wave in waves]
    floor = max(float(mel.max()) for mel in mels) - HEARD_DB * np.log(10) / 20  # below it, rounding is all there is
    apart = np.abs(np.maximum(mels[0], floor) - np.maximum(mels[1], floor)).mean()
    apart_db = float(apart * 20 / np.log(10))
    return (NEAR if apart_db <= NEAR_DB else DIFFERENT), apart_db

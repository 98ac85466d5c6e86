"""What telephones and the net do to speech: real encoders and decoders out of libsndfile, and lost packets.

Every function takes and gives float32 [n] at 16 kHz within about -1..1. Delays stay in, as they do on a line; only what
the container itself says is to be skipped is skipped.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import soundfile
import soxr
from scipy import signal

from models.training.opus_packets import audio_packets, without
from models.utterance import Samples

RATE: Final = 16_000
NARROW: Final = 8_000
OPUS_LEVELS: Final = {16: 0.95, 8: 0.986}
"""libsndfile's compression level by kbit/s of packets on real speech; it asks for more than the encoder then spends."""
MP3_32K: Final = 0.85
"""The level that gives frames of 32 kbit/s at 16 kHz."""


def telephone(samples: Samples) -> Samples:
    """300 to 3400 Hz and 8-bit mu-law (G.711) at 8 kHz."""
    narrow = soxr.resample(samples, RATE, NARROW)
    narrow = signal.sosfilt(signal.butter(4, [300, 3400], "bandpass", fs=NARROW, output="sos"), narrow)
    return _up(_through(narrow, NARROW, "WAV", "ULAW"))


def gsm(samples: Samples) -> Samples:
    """GSM 06.10 full rate, 13 kbit/s, at 8 kHz."""
    return _up(_through(soxr.resample(samples, RATE, NARROW), NARROW, "WAV", "GSM610"))


def mp3(samples: Samples) -> Samples:
    """MP3 at a constant 32 kbit/s."""
    return _through(samples, RATE, "MP3", "MPEG_LAYER_III", compression_level=MP3_32K, bitrate_mode="CONSTANT")


def opus(samples: Samples, kbits: int) -> Samples:
    """Opus at about `kbits` kbit/s (16 or 8) in packets of 20 ms."""
    return _decoded(_encoded(samples, kbits))


def opus_lossy(samples: Samples, kbits: int, loss: float, rng: np.random.Generator) -> Samples:
    """The same with a share `loss` of the packets lost on the way, concealed by the decoder itself."""
    data = _encoded(samples, kbits)
    return _decoded(without(data, rng.random(len(audio_packets(data))) < loss))


def opus_rate(samples: Samples, kbits: int) -> float:
    """kbit/s that the packets of `opus(samples, kbits)` really take."""
    packets = audio_packets(_encoded(samples, kbits))
    return sum(map(len, packets)) * 8 / 1000 / (0.02 * max(len(packets), 1))


def zeroed(samples: Samples, loss: float, rng: np.random.Generator) -> Samples:
    """A share `loss` of the 20 ms packets replaced by silence, as where nothing conceals."""
    lost = np.repeat(rng.random(-(-len(samples) // 320)) < loss, 320)[: len(samples)]
    return np.where(lost, np.float32(0), samples).astype(np.float32)


def _encoded(samples: Samples, kbits: int) -> bytes:
    if kbits not in OPUS_LEVELS:
        raise ValueError(f"kbits: {kbits}; allowed: {', '.join(map(str, OPUS_LEVELS))}")
    buffer = io.BytesIO()
    limited = np.clip(samples, -1.0, 1.0)
    soundfile.write(buffer, limited, RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVELS[kbits])
    return buffer.getvalue()


def _decoded(data: bytes) -> Samples:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(samples if rate == RATE else soxr.resample(samples, rate, RATE), dtype=np.float32)


def _through(samples: Samples, rate: int, container: str, subtype: str, **how: object) -> Samples:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format=container, subtype=subtype, **how)
    buffer.seek(0)
    return np.asarray(soundfile.read(buffer, dtype="float32")[0], dtype=np.float32)


def _up(narrow: Samples) -> Samples:
    return np.asarray(soxr.resample(narrow, NARROW, RATE), dtype=np.float32)

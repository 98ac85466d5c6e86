"""What lies between one microphone and another: rooms, noise, clipping, lines, codecs and lost packets.

Unlike the recognizer's hearings (`models.training.augment`), which are altered on the spectrum where they can be, these
are made on samples and with real codecs: what matters here is where sound moves to, to a few milliseconds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from numpy.random import Generator
from scipy import signal

from models.training.augment import companded
from models.training.opus_packets import audio_packets, without
from models.utterance import RECOGNIZER_RATE, Samples

Noise = Callable[[int, Generator], Samples]
"""So many samples of noise, at any level."""

LINE_RATE = 8_000
PACKET = 320
"""Samples lost at once: 20 ms."""
MP3_DELAY = 1105
"""Samples by which the decoded sound is late."""
PACKET_RATES = (0.95, 0.95, 0.95, 0.986, 0.93, 0.97, 1.0)
"""Compression levels of Opus over a net that loses packets: most often about 16 kbit/s."""


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely each change is."""

    lopsided: float = 0.05
    """A microphone that cuts one side of the wave more than the other, before the room."""
    room: float = 0.28
    noise: float = 0.78
    clipping: float = 0.08
    colour: float = 0.20
    telephone: float = 0.35
    opus: float = 0.14
    gsm: float = 0.06
    mp3: float = 0.04
    loss: float = 0.14


def distorted(samples: Samples, rng: Generator, noise: Noise, chances: Chances | None = None) -> Samples:
    """16 kHz `samples` as some other device heard them: float32 of the same length, nothing moved in time."""
    chance = chances or Chances()
    heard = samples
    if rng.random() < chance.lopsided:
        peak = np.abs(heard).max(initial=0.0)
        heard = np.clip(heard, -peak * 10 ** (-rng.uniform(3.0, 9.0) / 20), 0.5 * peak)
    if rng.random() < chance.room:
        heard = in_a_room(heard, rng)
    if rng.random() < chance.noise:
        snr = rng.uniform(-3.0, 25.0) if rng.random() < 0.8 else rng.uniform(3.0, 12.0)
        heard = noisy(heard, noise(len(heard), rng), snr)
    if rng.random() < chance.clipping:
        limit = np.abs(heard).max(initial=0.0) * 10 ** (-rng.uniform(3.0, 9.0) / 20)
        heard = np.clip(heard, -limit, limit)
    if rng.random() < chance.colour:
        heard = coloured(heard, rng)
    heard = heard * (10 ** (-rng.uniform(0.5, 25.0) / 20) / max(float(np.abs(heard).max(initial=0.0)), 1e-6))
    if rng.random() < chance.telephone:
        heard = telephone(heard, rng)
    codec = rng.random()
    if codec < chance.opus:
        heard = opus(heard, float(rng.choice([0.93, 0.95, 0.97, 1.0])))
    elif codec < chance.opus + chance.gsm:
        heard = gsm(heard)
    elif codec < chance.opus + chance.gsm + chance.mp3:
        heard = mp3(heard, float(rng.choice([0.9, 0.95])))
    if rng.random() < chance.loss:
        heard = with_losses(heard, rng, rng.uniform(0.03, 0.2))
    heard = heard[: len(samples)]
    return np.pad(heard, (0, len(samples) - len(heard))).astype(np.float32)


def on_the_net(samples: Samples, rng: Generator, noise: Noise) -> Samples:
    """The same, less distorted: most through Opus with packets lost on the way (60 %), the rest in noise or not, by
    telephone or not. What a decoder invents in the place of packets is unlike all that `distorted` does."""
    heard, way = samples, rng.random()
    if way < 0.6:
        if rng.random() < 0.12:
            heard = in_a_room(heard, rng)
        if rng.random() < 0.4:
            heard = noisy(heard, noise(len(heard), rng), rng.uniform(0.0, 25.0))
        if rng.random() < 0.1:
            heard = coloured(heard, rng)
    elif way < 0.9 and rng.random() < 0.9:
        heard = noisy(heard, noise(len(heard), rng), rng.uniform(2.0, 22.0))
    heard = heard * (10 ** (-rng.uniform(0.5, 25.0) / 20) / max(float(np.abs(heard).max(initial=0.0)), 1e-6))
    if rng.random() < (0.12 if way < 0.6 else 0.3 if way < 0.9 else 0.0):
        heard = telephone(heard, rng)
    if way < 0.6:
        heard = concealed(heard, float(rng.choice(PACKET_RATES)), rng)
    heard = heard[: len(samples)]
    return np.pad(heard, (0, len(samples) - len(heard))).astype(np.float32)


def power(samples: Samples) -> float:
    """Mean power of the 20 ms frames within 30 dB of the loudest; 0 of silence."""
    whole = len(samples) // PACKET * PACKET
    frames = np.square(samples[:whole].reshape(-1, PACKET), dtype=np.float64).mean(axis=1)
    peak = frames.max(initial=0.0)
    return float(frames[frames >= peak * 1e-3].mean()) if peak > 0 else 0.0


def noisy(samples: Samples, noise: Samples, snr: float) -> Samples:
    """`noise` added `snr` dB below the speech, by the power of the loud frames of both; nothing to or of silence."""
    speech, other = power(samples), power(noise)
    if speech <= 0 or other <= 1e-12:
        return samples
    return samples + noise * np.float32(np.sqrt(speech / other / 10 ** (snr / 10)))


def in_a_room(samples: Samples, rng: Generator) -> Samples:
    """The direct sound, up to eleven early echoes and a tail that is 60 dB down after 0.15 to 0.8 s; the direct sound
    is 5 dB under to 10 dB over the rest."""
    count = round(rng.uniform(0.15, 0.8) * RECOGNIZER_RATE)
    echo = rng.normal(size=count) * 10 ** (-3 * np.arange(count) / count)
    echo[: round(rng.uniform(0.002, 0.02) * RECOGNIZER_RATE)] = 0.0
    for _ in range(int(rng.integers(0, 12))):
        late = int(rng.uniform(0.001, 0.05) * RECOGNIZER_RATE)
        loud = rng.normal() * rng.uniform(3.0, 20.0) * 10 ** (-3 * late / count)
        echo[late] += loud * np.sqrt(np.square(echo).mean() + 1e-12)
    echo *= 10 ** (-rng.uniform(-5.0, 10.0) / 20) / np.sqrt(np.square(echo).sum() + 1e-12)
    echo[0] = 1.0
    return signal.fftconvolve(samples, echo)[: len(samples)]


def coloured(samples: Samples, rng: Generator) -> Samples:
    """A random equalisation of up to 14 dB, the same for each neighbour but for 2.5 dB or so."""
    gains = 10 ** (np.cumsum(rng.normal(0.0, 2.5, 24)).clip(-14.0, 14.0) / 20)
    hertz = np.concatenate([[0.0], np.geomspace(80.0, 7900.0, 22), [8000.0]])
    taps = signal.firwin2(255, hertz, gains, fs=RECOGNIZER_RATE)
    return signal.fftconvolve(samples, taps)[127 : 127 + len(samples)]


def telephone(samples: Samples, rng: Generator) -> Samples:
    """About 150..350 to 3200..3700 Hz at 8 kHz, through 8-bit mu-law."""
    edges = [rng.uniform(150.0, 350.0), rng.uniform(3200.0, 3700.0)]
    band = signal.butter(int(rng.integers(2, 5)), edges, "bandpass", fs=LINE_RATE, output="sos")
    narrow = signal.sosfilt(band, soxr.resample(samples, RECOGNIZER_RATE, LINE_RATE))
    return soxr.resample(companded(narrow), LINE_RATE, RECOGNIZER_RATE)


def opus(samples: Samples, compression: float) -> Samples:
    """Through Opus at 16 kHz; `compression` as libsndfile counts it: 0.93 is 25 kbit/s, 0.95 21, 0.97 16, 1 is 9."""
    return _through(samples, RECOGNIZER_RATE, "OGG", "OPUS", compression_level=compression)[: len(samples)]


def concealed(samples: Samples, compression: float, rng: Generator) -> Samples:
    """The same with 3 to 20 % of the packets lost, one by one or several at once, and concealed by the decoder."""
    data = _encoded(samples, RECOGNIZER_RATE, "OGG", "OPUS", compression_level=compression)
    return _decoded(without(data, losses(len(audio_packets(data)), rng)))[: len(samples)]


def losses(count: int, rng: Generator) -> npt.NDArray[np.bool_]:
    """Which of `count` packets are lost: each by itself (60 %), or in bursts of 1.2 to 3.5 on average (Gilbert)."""
    share = rng.uniform(0.03, 0.2)
    if rng.random() < 0.6:
        return rng.random(count) < share
    ends = 1 / rng.uniform(1.2, 3.5)
    begins = ends * share / (1 - share)
    lost, gone = np.zeros(count, np.bool_), bool(rng.random() < share)
    for packet in range(count):
        lost[packet] = gone
        gone = bool(rng.random() >= ends if gone else rng.random() < begins)
    return lost


def gsm(samples: Samples) -> Samples:
    """Through GSM 06.10 at 8 kHz."""
    narrow = soxr.resample(samples, RECOGNIZER_RATE, LINE_RATE)
    return soxr.resample(_through(narrow, LINE_RATE, "WAV", "GSM610"), LINE_RATE, RECOGNIZER_RATE)


def mp3(samples: Samples, compression: float) -> Samples:
    """Through MP3 at a constant bit rate, at 16 kHz; `compression`: 0.9 is 25 kbit/s, 0.95 is 17."""
    how: dict[str, str | float] = {"bitrate_mode": "CONSTANT", "compression_level": compression}
    return _through(samples, RECOGNIZER_RATE, "MP3", "MPEG_LAYER_III", **how)[MP3_DELAY:]


def with_losses(samples: Samples, rng: Generator, share: float) -> Samples:
    """Packets of 20 ms lost: silence in their place, or the one before again, fainter."""
    heard = samples.copy()
    for first in range(0, len(samples) // PACKET * PACKET, PACKET):
        if rng.random() < share:
            again = samples[first - PACKET : first] * rng.uniform(0.3, 1.0) if first and rng.random() < 0.5 else 0.0
            heard[first : first + PACKET] = again
    return heard


def _through(samples: Samples, rate: int, container: str, codec: str, **how: str | float) -> Samples:
    return _decoded(_encoded(samples, rate, container, codec, **how))


def _encoded(samples: Samples, rate: int, container: str, codec: str, **how: str | float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format=container, subtype=codec, **how)
    return buffer.getvalue()


def _decoded(data: bytes) -> Samples:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]

"""What a replay sends: for each thing that a trace asks for, a real request with real text, a real recording or a mel.

A trace names no text, so each digest gets one: the commonest the first of the phrases that are given, and so on; beyond
them, and without any, a sentence that only this digest has. Recordings and mels are spoken by the embedded
synthesizer, once: they are kept in a folder by what they say. A noisy copy is a recording of these with noise at the
stated ratio, begun up to 50 ms late, as by a second microphone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from models.synthesizer import AcousticModel
from models.utterance import MEL_RATE, RECOGNIZER_RATE
from models.vocoder import Vocoder
from protos.refrain.v1 import speech_pb2

METHODS: Final = {
    "recognize": "/refrain.v1.Speech/Recognize",
    "synthesize": "/refrain.v1.Speech/Synthesize",
    "vocode": "/refrain.v1.Speech/Vocode",
}
_VERBS = ("bring", "send", "show", "read", "open", "close", "find", "move", "play", "stop", "count", "paint", "clean")
_COLOURS = ("red", "green", "blue", "white", "black", "yellow", "brown", "grey", "silver", "orange", "purple")
_THINGS = ("lamp", "door", "window", "table", "letter", "song", "garden", "kettle", "parcel", "train", "ticket", "book")
_PLACES = ("kitchen", "hall", "office", "cellar", "bedroom", "station", "harbour", "market", "library", "workshop")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is asked for, any number of times."""

    task: str
    text: str
    voice: str = ""
    emotion: str = ""
    """Of a recording: of who speaks."""
    speed: float = 1.0
    noise: int = 0
    """Seed of the noise of a noisy copy; 0 for none."""
    snr_db: float = 0.0
    """Of that noise."""
    fuzzy: bool = False
    """Whether a recording may be answered from another."""


def sentence(digest: int) -> str:
    """Some words that only this digest stands for, among 17 million."""
    bits = int.from_bytes(hashlib.blake2b(digest.to_bytes(8, "little"), digest_size=8).digest(), "little")
    words = []
    for choice in (_VERBS, _COLOURS, _THINGS, _PLACES):
        bits, at = divmod(bits, len(choice))
        words.append(choice[at])
    verb, colour, thing, place = words
    return f"Please {verb} the {colour} {thing} in the {place}, number {bits % 1000}."


class Inputs:
    """Turns items into requests. `folder` keeps what was spoken for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: tuple[AcousticModel, Vocoder] | None = None

    def voices(self) -> Sequence[str]:
        return self._loaded()[0].voices

    def moods(self) -> Sequence[str]:
        return self._loaded()[0].emotions

    def request(self, item: Item) -> bytes:
        """The request message, serialised."""
        if item.task == "synthesize":
            spoken = speech_pb2.SynthesizeRequest(input={"text": item.text})
            spoken.voice.name, spoken.voice.emotion = item.voice, item.emotion
            spoken.audio_config.audio_encoding = speech_pb2.LINEAR16
            spoken.audio_config.speaking_rate = 0.0 if item.speed == 1 else item.speed
            return bytes(spoken.SerializeToString())
        if item.task == "recognize":
            pcm = self._kept(item, "wav", self._recording)
            heard = speech_pb2.RecognizeRequest(content=np.round(pcm * 32767).astype("<i2").tobytes())
            config = heard.config.explicit_decoding_config
            config.encoding, config.sample_rate_hertz = speech_pb2.LINEAR16, RECOGNIZER_RATE
            if item.fuzzy:
                heard.cache_control.match = speech_pb2.CacheControl.FUZZY
            return bytes(heard.SerializeToString())
        mel = self._kept(item, "npy", self._mel)
        vocoded = speech_pb2.VocodeRequest(mel={"data": mel.astype("<f4").tobytes(), "bands": mel.shape[0]})
        return bytes(vocoded.SerializeToString())

    def _kept(self, item: Item, suffix: str, make: Any) -> npt.NDArray[np.float32]:
        said = (item.text, item.voice, item.emotion, item.speed, item.noise, item.snr_db)
        name = hashlib.sha256("\0".join(map(str, said)).encode()).hexdigest()[:32]
        path = self._folder / f"{name}.{suffix}"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            made = make(item)
            begun = path.with_name(f"new-{os.getpid()}-{path.name}")  # so that a file that is there is whole
            if suffix == "npy":
                np.save(begun, made)
            else:
                soundfile.write(begun, made, RECOGNIZER_RATE, subtype="PCM_16")
            begun.replace(path)
        found = np.load(path) if suffix == "npy" else soundfile.read(path, dtype="float32")[0]
        return np.asarray(found, np.float32)

    def _recording(self, item: Item) -> npt.NDArray[np.float32]:
        if item.noise:
            clear = self._kept(replace(item, noise=0, snr_db=0.0), "wav", self._recording)
            from bench.distort import add_noise, late  # half a second of imports that few replays need

            rng = np.random.default_rng(item.noise)
            copy = add_noise(late(clear, rng), _room(rng), item.snr_db, rng)
            return np.asarray(np.clip(copy, -1.0, 1.0), np.float32)
        wave = self._loaded()[1].wave(self._mel(item))
        return np.asarray(np.clip(soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE), -1.0, 1.0), np.float32)

    def _mel(self, item: Item) -> npt.NDArray[np.float32]:
        acoustic = self._loaded()[0]
        voice, mood = item.voice or acoustic.voices[0], item.emotion or acoustic.emotions[0]
        mel = acoustic.mel(item.text, voice, mood, item.speed)
        return np.asarray(mel, np.float32)

    def _loaded(self) -> tuple[AcousticModel, Vocoder]:
        if self._models is None:
            self._models = AcousticModel(), Vocoder()
        return self._models


def _room(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Ten seconds of pink noise, at 16 kHz."""
    size = 10 * RECOGNIZER_RATE
    spectrum = np.fft.rfft(rng.normal(size=size))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.asarray(np.fft.irfft(spectrum, size), np.float32)

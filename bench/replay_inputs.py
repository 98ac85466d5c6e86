"""What a replay sends: for each thing that a trace asks for, a real request with real text, a real recording or a mel.

A trace names no text, so each digest gets one: the commonest the first of the phrases that are given, and so on; beyond
them, and without any, a sentence that only this digest has. Recordings and mels are spoken by the embedded
synthesizer, once: they are kept in a folder by what they say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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

    def request(self, item: Item) -> bytes:
        """The request message, serialised."""
        if item.task == "synthesize":
            spoken = speech_pb2.SynthesizeRequest(input={"text": item.text})
            spoken.voice.name, spoken.voice.emotion = item.voice, item.emotion
            spoken.audio_config.audio_encoding = speech_pb2.LINEAR16
            return bytes(spoken.SerializeToString())
        if item.task == "recognize":
            pcm = self._kept(item, "wav", self._recording)
            heard = speech_pb2.RecognizeRequest(content=np.round(pcm * 32767).astype("<i2").tobytes())
            config = heard.config.explicit_decoding_config
            config.encoding, config.sample_rate_hertz = speech_pb2.LINEAR16, RECOGNIZER_RATE
            return bytes(heard.SerializeToString())
        mel = self._kept(item, "npy", self._mel)
        vocoded = speech_pb2.VocodeRequest(mel={"data": mel.astype("<f4").tobytes(), "bands": mel.shape[0]})
        return bytes(vocoded.SerializeToString())

    def _kept(self, item: Item, suffix: str, make: Any) -> npt.NDArray[np.float32]:
        name = hashlib.sha256("\0".join((item.text, item.voice, item.emotion)).encode()).hexdigest()[:32]
        path = self._folder / f"{name}.{suffix}"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            made = make(item)
            begun = path.with_name("new-" + path.name)  # so that a file that is there is whole
            if suffix == "npy":
                np.save(begun, made)
            else:
                soundfile.write(begun, made, RECOGNIZER_RATE, subtype="PCM_16")
            begun.replace(path)
        found = np.load(path) if suffix == "npy" else soundfile.read(path, dtype="float32")[0]
        return np.asarray(found, np.float32)

    def _recording(self, item: Item) -> npt.NDArray[np.float32]:
        wave = self._loaded()[1].wave(self._mel(item))
        return np.asarray(np.clip(soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE), -1.0, 1.0), np.float32)

    def _mel(self, item: Item) -> npt.NDArray[np.float32]:
        acoustic = self._loaded()[0]
        mel = acoustic.mel(item.text, item.voice or acoustic.voices[0], item.emotion or acoustic.emotions[0])
        return np.asarray(mel, np.float32)

    def _loaded(self) -> tuple[AcousticModel, Vocoder]:
        if self._models is None:
            self._models = AcousticModel(), Vocoder()
        return self._models

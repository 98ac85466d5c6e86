"""Text to speech at run time: front end ─▶ acoustic model (mel) ─▶ any vocoder, clause by clause.

Both models are pure functions of their inputs, so the same utterance always gives the same samples.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from models import numerals, pronounce, text
from models.engine import EngineError, EngineInfo
from models.mel import LOG_FLOOR
from models.onnx import ModelFileError, OnnxModel
from models.pronounce import PAUSE, Pronouncer
from models.text import Clause, clauses, pronounced
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, Audio, Chunk, Samples, Text, Utterance

VERSION: Final = 1
"""Raise when this file makes other samples from the same models: it is part of the identity."""
EMBEDDED: Final = Path(__file__).parent / "embedded" / "acoustic"
SLOWEST, FASTEST = 0.5, 2.0
LEAD_IN, LEAD_OUT = 3, 6
"""Frames kept of the silence that the model draws before and after a clause (35 and 70 ms)."""
PAUSES: Final = {",": 0.11, ".": 0.30, "?": 0.32, "!": 0.28}
"""Seconds of silence between a clause and the next, at speed 1, beside LEAD_IN and LEAD_OUT."""


class AcousticModel:
    """Text to the shared mel. Thread-safe; every call blocks.

    `folder` holds the graph symbols int64 [1, N], voice int64 [1], mood int64 [1], speed float32 [1] -> mel float32
    [1, 80, T], frames int64 [1, N], and names its voices, emotions and phones in the options; `g2p_folder` holds what
    `models.pronounce.Pronouncer` reads.
    """

    def __init__(
        self,
        folder: Path = EMBEDDED,
        g2p_folder: Path = pronounce.EMBEDDED,
        *,
        providers: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        """Raises `models.onnx.ModelFileError` when a folder is not a sound model folder."""
        self._model = OnnxModel(folder, providers=providers, threads=threads)
        # Letters to phones is a matter of microseconds, and too small to gain from a GPU.
        self._pronouncer = Pronouncer(g2p_folder)
        try:
            self.voices = tuple(map(str, self._model.options["voices"]))
            self.emotions = tuple(map(str, self._model.options["emotions"]))
            phones = [str(phone) for phone in self._model.options["phones"]]
        except KeyError as missing:
            raise ModelFileError(f"{folder / 'model.toml'}: option {missing} is missing") from missing
        if missing_phones := set(pronounce.PHONES) - set(phones):
            raise ModelFileError(f"{folder / 'model.toml'}: option phones lacks {', '.join(sorted(missing_phones))}")
        self._ids = {phone: n for n, phone in enumerate(phones)}
        self._phones = len(phones)
        self.name = str(self._model.manifest["name"])
        self.licence = str(self._model.manifest["licence"])
        self.provider = self._model.provider
        self.identity = digest_of(self._model.identity, self._pronouncer.identity, *_front_end())

    def check(self, voice: str, emotion: str, speed: float) -> None:
        """Raises `ValueError` that names field, value and what is allowed. Empty means the first voice, or neutral."""
        if voice and voice not in self.voices:
            raise ValueError(f"voice: '{voice}' is unknown; known are {', '.join(self.voices)}")
        if emotion and emotion not in self.emotions:
            raise ValueError(f"emotion: '{emotion}' is unknown; known are {', '.join(self.emotions)}")
        if not SLOWEST <= speed <= FASTEST:  # so written that NaN fails
            raise ValueError(f"speed: {speed} is outside {SLOWEST} to {FASTEST}")

    def clause_mel(self, clause: Clause, voice: str = "", emotion: str = "", speed: float = 1.0) -> Samples:
        """Mel of one clause with little silence around it: float32 [80, T]. Raises `ValueError` as `check` does."""
        self.check(voice, emotion, speed)
        symbols = [self._ids[PAUSE]]
        for word in pronounced(clause, self._pronouncer):
            symbols += [self._ids[phone] + (self._phones if n == 0 else 0) for n, phone in enumerate(word)]
        symbols.append(self._ids[PAUSE])
        mel, frames = self._model.run(
            {
                "symbols": np.array([symbols], np.int64),
                "voice": np.array([self.voices.index(voice) if voice else 0], np.int64),
                "mood": np.array([self.emotions.index(emotion) if emotion else 0], np.int64),
                "speed": np.array([speed], np.float32),
            }
        )
        before, after = int(frames[0, 0]), int(frames[0, -1])
        return np.ascontiguousarray(mel[0, :, max(0, before - LEAD_IN) : mel.shape[2] - max(0, after - LEAD_OUT)])

    def plan(self, said: str, voice: str = "", emotion: str = "", speed: float = 1.0) -> list[tuple[Clause, float]]:
        """The clauses, and the seconds of silence that follow each (0 after the last).

        Raises `models.text.NothingToSpeak`, and `ValueError` as `check` does.
        """
        self.check(voice, emotion, speed)
        found = list(clauses(said, self._pronouncer))
        pauses = [PAUSES[clause.end] / speed for clause in found[:-1]] + [0.0]
        return list(zip(found, pauses, strict=True))

    def mels(
        self, said: str, voice: str = "", emotion: str = "", speed: float = 1.0
    ) -> Iterator[tuple[Samples, float]]:
        """Clause by clause: mel float32 [80, T], and the seconds of silence that follow. Raises as `plan` does."""
        for clause, pause in self.plan(said, voice, emotion, speed):
            yield self.clause_mel(clause, voice, emotion, speed), pause

    def mel(self, said: str, voice: str = "", emotion: str = "", speed: float = 1.0) -> Samples:
        """The mel of the whole text, pauses drawn as silence: float32 [80, T]. Raises as `mels` does."""
        parts: list[Samples] = []
        for mel, pause in self.mels(said, voice, emotion, speed):
            silence = np.full((MEL_BANDS, round(pause * MEL_RATE / MEL_HOP)), math.log(LOG_FLOOR), np.float32)
            parts += [mel, silence]
        return np.concatenate(parts, axis=1)


def digest_of(*parts: str | bytes) -> str:
    """Hex SHA-256 over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _front_end() -> Iterator[str | bytes]:
    """What decides which words and phones are said, beside the models: its sources, and the library of number words."""
    for module in (text, numerals, pronounce):
        assert module.__file__ is not None
        yield Path(module.__file__).read_bytes()
    yield importlib.metadata.version("num2words")


class WaveMaker(Protocol):
    """What the synthesizer needs of a vocoder."""

    @property
    def identity(self) -> str: ...

    def wave(self, mel: Samples) -> Samples:
        """float32 [80, T] -> float32 [T * 256] within -1..1 at 22,050 Hz; blocking and thread-safe."""
        ...


class SynthesizerEngine:
    """`models.engine.Engine` for texts: one `Audio` a clause, its pause included, made in `executor` when asked for."""

    def __init__(self, acoustic: AcousticModel, vocoder: WaveMaker, executor: Executor, *, name: str = "") -> None:
        self._acoustic = acoustic
        self._vocoder = vocoder
        self._executor = executor
        self.info = EngineInfo(
            name=name or acoustic.name,
            family="synthesizer",
            identity=digest_of(acoustic.identity, vocoder.identity, str(VERSION)),
            provider=acoustic.provider,
            licence=acoustic.licence,
            voices=acoustic.voices,
            emotions=acoustic.emotions,
            sample_rate=MEL_RATE,
        )

    async def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        """Yields `Audio`. Raises `ValueError` (`NothingToSpeak` among them) for what the caller may mend, before the
        first chunk, and `EngineError` when a model fails. Closing it between clauses leaves nothing running; a clause
        that is being made when the caller is cancelled is finished in its thread and dropped.
        """
        if not isinstance(utterance.content, Text):
            raise EngineError(f"content: is {type(utterance.content).__name__}, but a synthesizer takes a Text")
        if utterance.language and utterance.language.lower().split("-")[0] != "en":
            raise ValueError(f"language: '{utterance.language}' is not spoken; allowed is en (as en-US)")
        loop = asyncio.get_running_loop()
        voice, emotion, speed = utterance.voice, utterance.emotion, utterance.speed
        words = utterance.content.text
        try:
            plan = await loop.run_in_executor(self._executor, self._acoustic.plan, words, voice, emotion, speed)
        except ValueError:
            raise
        except Exception as error:
            raise EngineError(f"synthesizer {self.info.name}: {error}") from error
        for clause, pause in plan:
            try:
                audio = await loop.run_in_executor(self._executor, self._speak, clause, pause, voice, emotion, speed)
            except Exception as error:
                raise EngineError(f"synthesizer {self.info.name}: {error}") from error
            yield audio

    def _speak(self, clause: Clause, pause: float, voice: str, emotion: str, speed: float) -> Audio:
        """One clause's samples, and its pause. Blocks."""
        wave = self._vocoder.wave(self._acoustic.clause_mel(clause, voice, emotion, speed))
        if not np.isfinite(wave).all():
            raise EngineError("the vocoder gave samples that are not finite")
        silence = np.zeros(round(pause * MEL_RATE), np.float32)
        return Audio(np.concatenate([np.clip(wave, -1.0, 1.0), silence]))

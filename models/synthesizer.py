"""Text to speech at run time: front end ─▶ acoustic model (mel) ─▶ any vocoder, clause by clause.

Both models are pure functions of their inputs, so the same utterance always gives the same samples. And a clause's mel
may be remembered: it is the same for every vocoder, sample rate and encoding, and in whatever text the clause stands.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import io
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models import numerals, pronounce, text
from models.engine import ERRAND, EngineError, EngineInfo, Errand
from models.mel import LOG_FLOOR
from models.onnx import ModelFileError, OnnxModel, session_of
from models.pronounce import PAUSE, Pronouncer
from models.text import Clause, clauses, pronounced
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, Audio, Chunk, Samples, Text, Utterance
from models.vocoder import EARLY_FRAMES, GROWTH, Vocoder

T = TypeVar("T")
Feeds = Mapping[str, npt.NDArray[Any]]

VERSION: Final = 2
"""Raise when this file makes other samples from the same models: it is part of the identity."""
EMBEDDED: Final = Path(__file__).parent / "embedded" / "acoustic"
SLOWEST, FASTEST = 0.5, 2.0
VOICE_SIZE, MOOD_SIZE = 256, 5
"""Numbers in a voice's embedding and in a mood's vector."""
LEAD_IN, LEAD_OUT = 3, 6
"""Frames kept of the silence that the model draws before and after a clause (35 and 70 ms)."""
CUT: Final = Path(__file__).parent / "cut.onnx"
"""Made by `models.training.cut`."""
PAUSES: Final = {",": 0.11, ".": 0.30, "?": 0.32, "!": 0.28}
"""Seconds of silence between a clause and the next, at speed 1, beside LEAD_IN and LEAD_OUT."""


class AcousticModel:
    """Text to the shared mel. Thread-safe; every call blocks.

    `folder` holds the graph symbols int64 [1, N], voice float32 [1, 256], emotion float32 [1, 5], speed float32 [1] ->
    mel float32 [1, 80, T], frames int64 [1, N]; voices.npz, a float32 [256] by each voice's name; and names its voices,
    emotions and phones in the options, with `moods`, the emotions' vectors, and `voices_sha256`. `g2p_folder` holds
    what `models.pronounce.Pronouncer` reads.
    """

    voices: tuple[str, ...]
    emotions: tuple[str, ...]
    embeddings: Mapping[str, Samples]
    """Voice to the float32 [256] of unit norm that the graph knows it by: its mean by the shipped speaker encoder."""

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
        options = self._model.options
        try:
            self.voices = tuple(map(str, options["voices"]))
            self.emotions = tuple(map(str, options["emotions"]))
            self._moods = np.array(options["moods"], np.float32)
            phones = [str(phone) for phone in options["phones"]]
            self.embeddings = read_voices(folder / "voices.npz", str(options["voices_sha256"]), self.voices)
        except KeyError as missing:
            raise ModelFileError(f"{folder / 'model.toml'}: option {missing} is missing") from missing
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{folder / 'model.toml'}: option moods: {error}") from error
        if self._moods.shape != (len(self.emotions), MOOD_SIZE) or not np.isfinite(self._moods).all():
            raise ModelFileError(
                f"{folder / 'model.toml'}: option moods has shape {list(self._moods.shape)} or numbers that are not "
                f"finite; wanted are {MOOD_SIZE} numbers for each of {', '.join(self.emotions)}"
            )
        if missing_phones := set(pronounce.PHONES) - set(phones):
            raise ModelFileError(f"{folder / 'model.toml'}: option phones lacks {', '.join(sorted(missing_phones))}")
        self._ids = {phone: n for n, phone in enumerate(phones)}
        self._phones = len(phones)
        self.name = str(self._model.manifest["name"])
        self.licence = str(self._model.manifest["licence"])
        self.provider = self._model.provider
        self.device = self._model.device
        """Where it makes its mels; "cpu" is the host."""
        self._cut = session_of(CUT, CUT.read_bytes(), providers, threads)
        self.identity = digest_of(self._model.identity, self._pronouncer.identity, *_front_end())
        self.component = digest_of(self._model.identity, CUT.read_bytes(), _LEADS.tobytes())
        """Identity of what makes a mel of what `feeds` gives: the graphs, and not how words become symbols."""

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
        mel, frames = self._model.run(self.feeds(clause, voice, emotion, speed))
        before, after = int(frames[0, 0]), int(frames[0, -1])
        return np.ascontiguousarray(mel[0, :, max(0, before - LEAD_IN) : mel.shape[2] - max(0, after - LEAD_OUT)])

    def clause_on_device(self, clause: Clause, voice: str = "", emotion: str = "", speed: float = 1.0) -> ort.OrtValue:
        """As `clause_mel`, but float32 [1, 80, T] and still where this model runs."""
        return self.on_device(self.feeds(clause, voice, emotion, speed))

    def on_device(self, feeds: Feeds) -> ort.OrtValue:
        """What `clause_on_device` gives."""
        mel, frames = self._model.on_device(feeds)
        binding = self._cut.io_binding()
        binding.bind_ortvalue_input("mel", mel)
        binding.bind_ortvalue_input("frames", frames)
        binding.bind_cpu_input("leads", _LEADS)
        binding.bind_output("cut", self.device)
        self._cut.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def feeds(self, clause: Clause, voice: str = "", emotion: str = "", speed: float = 1.0) -> Feeds:
        """What the graph is given for a clause, which its mel depends on alone. Raises `ValueError` as `check` does."""
        self.check(voice, emotion, speed)
        symbols = [self._ids[PAUSE]]
        for word in pronounced(clause, self._pronouncer):
            symbols += [self._ids[phone] + (self._phones if n == 0 else 0) for n, phone in enumerate(word)]
        symbols.append(self._ids[PAUSE])
        return {
            "symbols": np.array([symbols], np.int64),
            "voice": self.embeddings[voice or self.voices[0]][None],
            "emotion": self._moods[[self.emotions.index(emotion) if emotion else 0]],
            "speed": np.array([speed], np.float32),
        }

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


def read_voices(path: Path, sha256: str, names: Sequence[str]) -> dict[str, Samples]:
    """The embeddings of a voices.npz, float32 [256] of unit norm by name. Raises `ModelFileError`."""
    if not path.is_file():
        raise ModelFileError(f"{path}: missing; it holds the embeddings of {', '.join(names)}")
    data = path.read_bytes()
    if (digest := hashlib.sha256(data).hexdigest()) != sha256:
        raise ModelFileError(f"{path}: sha256 is {digest}, but option voices_sha256 says {sha256}")
    with np.load(io.BytesIO(data)) as file:
        found: dict[str, Samples] = {name: file[name] for name in names if name in file}
    for name in names:
        vector = found.get(name)
        if vector is None or vector.shape != (VOICE_SIZE,) or vector.dtype != np.float32:
            raise ModelFileError(f"{path}: voice {name} must be there as float32 [{VOICE_SIZE}]")
        if not abs(float(np.linalg.norm(vector)) - 1.0) < 1e-3:
            raise ModelFileError(f"{path}: voice {name} is not of unit norm")
        vector.flags.writeable = False
    return found


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


_LEADS: Final = np.array([LEAD_IN, LEAD_OUT], np.int64)


class WaveMaker(Protocol):
    """What the synthesizer needs of a vocoder."""

    @property
    def identity(self) -> str: ...

    def wave(self, mel: Samples) -> Samples:
        """float32 [80, T] -> float32 [T * 256] within -1..1 at 22,050 Hz; blocking and thread-safe."""
        ...


class SynthesizerEngine:
    """`models.engine.Engine` for texts: one `Audio` a clause, its pause included, made in `executor` when asked for.

    A caller who hears them as they come gets the first clause in pieces, a small one first.
    """

    def __init__(self, acoustic: AcousticModel, vocoder: WaveMaker, executor: Executor, *, name: str = "") -> None:
        self._acoustic = acoustic
        self._vocoder = vocoder
        self._executor = executor
        self._chained = vocoder if isinstance(vocoder, Vocoder) and vocoder.device == acoustic.device else None
        """The vocoder, where it takes mels as the acoustic model leaves them."""
        self.info = EngineInfo(
            name=name or acoustic.name,
            family="synthesizer",
            identity=digest_of(acoustic.identity, vocoder.identity, str(VERSION)),
            provider=acoustic.provider,
            licence=acoustic.licence,
            voices=acoustic.voices,
            emotions=acoustic.emotions,
            sample_rate=MEL_RATE,
            component=acoustic.component,
            voice_embeddings={name: tuple(map(float, vector)) for name, vector in acoustic.embeddings.items()},
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
        voice, emotion, speed = utterance.voice, utterance.emotion, utterance.speed
        words = utterance.content.text
        try:
            plan = await self._in_thread(self._acoustic.plan, words, voice, emotion, speed)
        except ValueError:
            raise
        except Exception as error:
            raise EngineError(f"synthesizer {self.info.name}: {error}") from error
        errand = ERRAND.get(None) or Errand()
        early = errand.early and self._chained is not None and self._acoustic.device == "cpu"
        components = errand.components
        if components is not None and components.device != self._acoustic.device:
            components = None
        try:
            for clause, pause in plan:
                feeds = await self._in_thread(self._acoustic.feeds, clause, voice, emotion, speed)
                name = self._name(feeds)
                mel = await components.find(name) if components is not None else None
                made_ms = 0.0
                if mel is None:
                    began = time.perf_counter()
                    mel = await self._in_thread(self._acoustic.on_device, feeds)
                    made_ms = (time.perf_counter() - began) * 1e3
                if early:
                    early = False
                    pieces = self._pieces(mel, pause)
                    while (piece := await self._in_thread(next, pieces, None)) is not None:
                        yield piece
                else:
                    yield await self._in_thread(self._speak, mel, pause)
                if components is not None and made_ms:  # once it is heard, which nothing should keep waiting
                    await components.keep(name, mel, made_ms)
        except Exception as error:
            raise EngineError(f"synthesizer {self.info.name}: {error}") from error

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def _name(self, feeds: Feeds) -> bytes:
        """Names the mel of a clause by all it depends on."""
        parts = (part for name, value in feeds.items() for part in (name, value.tobytes()))
        return bytes.fromhex(digest_of(self._acoustic.component, *parts))

    def _pieces(self, mel: ort.OrtValue, pause: float) -> Iterator[Audio]:
        """What `_speak` makes, piece by piece. Blocks."""
        assert self._chained is not None
        for wave in self._chained.stream([mel.numpy()[0]], EARLY_FRAMES, GROWTH):
            yield _sound(wave, 0.0)
        if pause:
            yield _sound(np.zeros(0, np.float32), pause)

    def _speak(self, mel: ort.OrtValue, pause: float) -> Audio:
        """The samples of one clause, and its pause. Blocks."""
        wave = self._chained.wave_of(mel) if self._chained is not None else self._vocoder.wave(mel.numpy()[0])
        return _sound(wave, pause)


def _sound(wave: Samples, pause: float) -> Audio:
    """A wave and the seconds of silence behind it. Raises `EngineError`."""
    if not np.isfinite(wave).all():
        raise EngineError("the vocoder gave samples that are not finite")
    return Audio(np.concatenate([np.clip(wave, -1.0, 1.0), np.zeros(round(pause * MEL_RATE), np.float32)]))

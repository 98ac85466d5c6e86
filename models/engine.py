"""The engine protocol: a model, or a chain of models, that turns one utterance into chunks.

Engines know nothing of caches, tenants or wire formats. Whatever blocks inside one runs in a thread.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from models.utterance import Chunk, Samples, Transcript, Utterance, Waveform

if TYPE_CHECKING:
    import onnxruntime as ort


class EngineError(Exception):
    """The engine could not answer; nothing of this answer may be stored."""


class Busy(Exception):
    """More work waits than the engine takes; worth trying again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the engine's line is full; try again in {retry_after_s:.3f} s")


class TooLate(Exception):
    """The deadline of an errand passed, or would have passed, before its work could begin; none was done."""


class Components(Protocol):
    """What one call may find again of what went between models in earlier calls, and leave there for later ones.

    A name stands for all that the tensor depends on: the models that made it, and their inputs.
    """

    @property
    def device(self) -> str:
        """Where the tensors lie, as onnxruntime names it."""
        ...

    async def find(self, name: bytes) -> ort.OrtValue | None:
        """The tensor kept under that name: a copy, which stays whatever becomes of the one that is kept."""
        ...

    async def keep(self, name: bytes, tensor: ort.OrtValue, cost_ms: float) -> None:
        """Leaves a whole tensor that took `cost_ms` to make. It may be gone at any time, or not be taken at all."""
        ...


@dataclass(slots=True)
class Errand:
    """What an engine may know of the call it works for, beside the utterance."""

    deadline: float = math.inf
    """By time.monotonic(). Work that could only begin later is not begun: `TooLate`."""
    early: bool = False
    """Whether the caller hears the first chunk before the last is made, so that a small one soon is worth its price."""
    waited_s: float = 0.0
    """Seconds of the run that went by while others' work was done, which are no cost of this one."""
    components: Components | None = None
    """None where nothing may be remembered."""


ERRAND: ContextVar[Errand] = ContextVar("ERRAND")
"""Set, if at all, by whoever runs an engine, in the task that does."""


class Unfit(ValueError):
    """A recording that an encoder cannot hear a voice or a mood in, such as silence; the text says why."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What ListModels says of an engine."""

    name: str
    family: str
    """recognizer, synthesizer, vocoder, speaker or emotion."""
    identity: str
    """Hex digest over the weights and options of every model in the chain: part of every key."""
    provider: str
    """The ONNX Runtime execution provider that really runs, as the session reports it."""
    licence: str
    voices: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    sample_rate: int = 0
    """Hz of what it takes in (recognizer, speaker, emotion) or puts out (synthesizer, vocoder)."""
    component: str = ""
    """Identity of what makes the `Components` it asks for; empty for an engine that asks for none."""
    at_once: int = 1
    """Runs that it works on together, so that they cost little more than one."""
    voice_embeddings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of a synthesizer: voice to its 256 numbers by the voice encoder of the same release; may lack voices."""


class Engine(Protocol):
    """`run` is a function of the utterance and the identity: same in, same out."""

    @property
    def info(self) -> EngineInfo: ...

    def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        """Yields the answer's chunks. Raises `EngineError`; closing the iterator stops the work."""
        ...


class StreamingRecognizer(Protocol):
    """An engine that also recognizes while the speaker speaks."""

    def stream(self, chunks: AsyncIterator[Samples]) -> AsyncGenerator[Transcript, None]:
        """`chunks`: float32 pieces at 16 kHz. Yields interim transcripts, then the final one."""
        ...


class Witness(Protocol):
    """An engine that can say how well a given transcript fits a recording: the judge of audits."""

    async def disbelief(self, waveform: Waveform, text: str) -> float:
        """Natural log of the odds that the recording does not say `text`, were half of such texts wrong."""
        ...


class Encoder(Protocol):
    """A model that hears something in a recording. Blocking and thread-safe."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Hex digest over its weights and options."""
        ...

    @property
    def provider(self) -> str: ...

    @property
    def licence(self) -> str: ...


class VoiceEncoder(Encoder, Protocol):
    """Hears whose voice it is."""

    @property
    def thresholds(self) -> Mapping[int, float]:
        """Length of two embeddings to the cosine from which they are taken for one voice."""
        ...

    def embed(self, samples: Samples) -> Samples:
        """float32 [n] at 16 kHz -> float32 [256] of length 1, a Matryoshka embedding. Raises `ValueError` for what
        holds no voice."""
        ...


class MoodEncoder(Encoder, Protocol):
    """Hears which mood it is spoken in."""

    def mood(self, samples: Samples) -> tuple[str, float]:
        """float32 [n] at 16 kHz -> the nearest mood and its similarity, 0 to 1. Raises `ValueError` for what holds
        none."""
        ...

"""The engine protocol: a model, or a chain of models, that turns one utterance into chunks.

Engines know nothing of caches, tenants or wire formats. Whatever blocks inside one runs in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from models.utterance import Chunk, Samples, Transcript, Utterance, Waveform


class EngineError(Exception):
    """The engine could not answer; nothing of this answer may be stored."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What ListModels says of an engine."""

    name: str
    family: str
    """recognizer, synthesizer or vocoder."""
    identity: str
    """Hex digest over the weights and options of every model in the chain: part of every key."""
    provider: str
    """The ONNX Runtime execution provider that really runs, as the session reports it."""
    licence: str
    voices: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    sample_rate: int = 0
    """Hz of what it takes in (recognizer) or puts out (synthesizer, vocoder)."""


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
        """Natural-log likelihood by which the best free reading beats `text`, a second of audio; 0 when it is it."""
        ...

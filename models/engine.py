"""The engine protocol: a model, or a chain of models, that turns one utterance into chunks.

Engines know nothing of caches, tenants or wire formats. Whatever blocks inside one runs in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from models.utterance import Chunk, Utterance


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

    def run(self, utterance: Utterance) -> AsyncIterator[Chunk]:
        """Yields the answer's chunks. Raises `EngineError`; closing the iterator stops the work."""
        ...

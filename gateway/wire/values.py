"""What requests become: plain values, equal where the requests mean the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from gateway import audio
from gateway.audio import Output
from gateway.text import TEXT_BYTES

OFFSETS: Final = 1
CONFIDENCE: Final = 2


class Mode(IntEnum):
    """The numbers of CacheControl.Mode."""

    DEFAULT = 0
    BYPASS = 1
    REFRESH = 2
    ONLY_IF_CACHED = 3


class Match(IntEnum):
    """The numbers of CacheControl.Match."""

    UNSPECIFIED = 0
    EXACT = 1
    FUZZY = 2


@dataclass(frozen=True, slots=True)
class Control:
    """What a request asks of the cache."""

    mode: Mode = Mode.DEFAULT
    no_store: bool = False
    match: Match = Match.UNSPECIFIED
    ttl_s: float | None = None
    """None for the server's default."""
    max_age_s: float | None = None
    """None for any age."""
    min_similarity: float = 0.0
    session_id: str = ""
    subject_id: str = ""


DEFAULT_CONTROL: Final = Control()


@dataclass(slots=True)
class Limits:
    """What the engines behind this gateway can do. One object for all who decode: `become` follows the engines."""

    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Task (recognize, synthesize, vocode, embed) to the names of its models and versions, the default first."""
    languages: tuple[str, ...] = ("en-US",)
    """BCP-47, the default first. A bare primary tag (`en`) means the first that begins with it."""
    voices: Collection[str] = frozenset()
    emotions: Collection[str] = frozenset({"neutral"})
    default_emotion: str = "neutral"
    text_bytes: int = TEXT_BYTES
    encoded_bytes: int = audio.ENCODED_BYTES
    """Of a streamed recording in a container, which is held until it is whole."""

    def become(self, other: Limits) -> None:
        for field_name in self.__slots__:
            setattr(self, field_name, getattr(other, field_name))


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request, canonical: equal requests are equal here."""

    canonical: bytes
    """UTF-8 text, canonical PCM (16-bit, mono, 16 kHz) or mel (float32 LE [80, T]); empty in a stream's config."""
    voice: str | tuple[float, ...] | None
    """Id, embedding, or None for the default (and where the task has no voice)."""
    emotion: str
    """Code, filled in; empty where the task has none."""
    speed: float
    """0.5 to 2, to the thousandth."""
    language: str
    """BCP-47 as `Limits` spells it, filled in; empty for vocoding."""
    model: str
    """NAME or NAME@VERSION; empty for the default, be it the active version or one on trial."""
    output: Output | None
    """None for recognition."""
    features: int
    """Recognition: bit 0 (`OFFSETS`) word offsets, bit 1 (`CONFIDENCE`) word confidence. Embedding: its dimensions."""
    control: Control
    input_seconds: float
    """Of sound or mel; 0 for text."""
    example: bytes = b""
    """Canonical PCM of the mood that is wanted, until it has been heard; then `emotion` is empty."""
    likeness: Likeness | None = None
    """What the mood was heard in."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """An example that was heard."""

    digest: bytes
    """Of the example: the input digest of its canonical PCM."""
    similarity: float
    """0 to 1, to what it was taken for."""

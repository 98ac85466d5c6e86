"""What the client gives: plain values, and the options it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from gateway.stats import human_seconds

Array = npt.NDArray[Any]


class CacheOptions(TypedDict, total=False):
    """What a request may ask of the cache; see CacheControl in speech.proto."""

    mode: Literal["DEFAULT", "BYPASS", "REFRESH", "ONLY_IF_CACHED"]
    no_store: bool
    match: Literal["MATCH_UNSPECIFIED", "EXACT", "FUZZY"]
    ttl: float
    """Seconds."""
    max_age: float
    """Seconds."""
    min_similarity: float
    session_id: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Info:
    """Where an answer came from."""

    status: str
    """HIT_EXACT, HIT_FUZZY, MISS, COALESCED or BYPASS."""
    tier: str
    age_s: float
    similarity: float
    engine: str
    saved_ms: float
    entry_id: str
    elapsed_s: float
    """From the call to the end of its answer, as the client saw it."""

    def describe(self) -> str:
        """One line, such as "HIT_EXACT from device, 1.2 ms, 12 s old, saved 143 ms of compute"."""
        parts = [f"{self.status} from {self.tier}" if self.tier else self.status, human_seconds(self.elapsed_s)]
        if self.status.startswith("HIT"):
            parts.append(f"{human_seconds(self.age_s)} old" if self.age_s else "new")
        if self.status == "HIT_FUZZY":
            parts.append(f"similarity {self.similarity:.3f}")
        if self.saved_ms:
            parts.append(f"saved {human_seconds(self.saved_ms / 1e3)} of compute")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech, or a piece of it when streamed: then `info` is None but at the end of a sentence."""

    audio: bytes
    encoding: str
    rate: int
    info: Info | None

    def samples(self) -> npt.NDArray[np.float32]:
        """float32 within -1..1."""
        import io

        import soundfile

        raw = {"LINEAR16": "PCM_16", "MULAW": "ULAW"}.get(self.encoding)
        header = {"format": "RAW", "subtype": raw, "samplerate": self.rate, "channels": 1, "endian": "LITTLE"}
        samples, _ = soundfile.read(io.BytesIO(self.audio), dtype="float32", **(header if raw else {}))
        return np.asarray(samples, dtype=np.float32)

    def save(self, path: Path | str) -> None:
        """Writes the bytes as they came: WAV, FLAC and OGG_OPUS are files, the others headerless."""
        Path(path).write_bytes(self.audio)


class HeardWord(NamedTuple):
    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What was recognized. `info` is None for interim results of a stream."""

    transcript: str
    confidence: float
    words: tuple[HeardWord, ...]
    language: str
    final: bool
    info: Info | None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Whose voice was heard: as numbers, and the registered voice that is near enough to stand for it."""

    values: npt.NDArray[np.float32]
    """[8] to [256] at length 1; what `synthesize` takes for a voice."""
    nearest: str
    """Empty for none."""
    cosine: float
    """To the nearest; 0 where there is none."""
    info: Info


class Voice(NamedTuple):
    name: str
    languages: tuple[str, ...]
    emotions: tuple[str, ...]
    rate: int


class Model(NamedTuple):
    name: str
    family: str
    identity: str
    provider: str
    licence: str
    rate: int
    versions: tuple[str, ...] = ()
    """NAME@VERSION of every model in the chain."""
    share: float = 1.0
    """Of the requests that name no version."""


class Warmed(NamedTuple):
    computed: int
    already_cached: int
    failures: tuple[str, ...]


class Erased(NamedTuple):
    dropped: int
    acknowledged: tuple[str, ...]

"""Voice id or embedding to voice handle, before any key is made.

An id is its own handle. An embedding resolves to the registered voice nearest by cosine, if that is near enough: found
on a short Matryoshka prefix, confirmed on all the numbers both sides have. Keys hold handles, never quantised
embeddings, which flip at cell borders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PREFIX = 32
"""Dimensions of the first look."""
CANDIDATES = 8
"""How many of the nearest by prefix are confirmed on the longer vector."""


class NoNearVoice(ValueError):
    """No registered voice is near enough to the embedding."""

    def __init__(self, nearest: str, cosine: float, threshold: float) -> None:
        self.nearest, self.cosine, self.threshold = nearest, cosine, threshold
        where = f"the nearest, '{nearest}', has cosine {cosine:.3f}" if nearest else "none is registered"
        super().__init__(f"no registered voice is near it ({where}; at least {threshold:.2f} is needed)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The handle, and how near the embedding was to the registered one (1.0 for an id or an equal embedding)."""

    handle: str
    cosine: float = 1.0

    @property
    def exact(self) -> bool:
        return self.cosine >= 1.0 - 1e-6


class VoiceBook:
    """Registered embeddings: the synthesizer's own of its voices, and an operator's in their place."""

    def __init__(
        self, registered: Mapping[str, Sequence[float]], *, threshold: float | Mapping[int, float] = 0.85
    ) -> None:
        """`threshold`: cosine from which an embedding is taken for a registered one; by their length, of which one
        that is not listed has that of the next shorter."""
        self._thresholds = dict(threshold) if isinstance(threshold, Mapping) else {0: threshold}
        self._names = list(registered)
        self._vectors = [np.asarray(registered[name], dtype=np.float32) for name in self._names]
        for name, vector in zip(self._names, self._vectors, strict=True):
            if vector.ndim != 1 or len(vector) < 8 or not np.all(np.isfinite(vector)) or not np.any(vector):
                raise ValueError(f"voice '{name}': an embedding is at least 8 finite numbers, not all zero")
        width = min((len(v) for v in self._vectors), default=PREFIX)
        self._prefix = min(PREFIX, width)
        self._table = np.stack([unit(v[: self._prefix]) for v in self._vectors]) if self._vectors else None

    @property
    def identity(self) -> str:
        """Hex digest over all that decides what an embedding resolves to."""
        digest = hashlib.sha256(repr((sorted(self._thresholds.items()), CANDIDATES, self._prefix)).encode())
        for name, vector in sorted(zip(self._names, self._vectors, strict=True), key=lambda pair: pair[0]):
            digest.update(f"\0{name}\0{len(vector)}\0".encode() + vector.astype("<f4").tobytes())
        return digest.hexdigest()

    def resolve(self, embedding: Sequence[float]) -> Resolved:
        """Raises `NoNearVoice` when no registered voice reaches the threshold."""
        found = self.nearest(embedding)
        needed = self.threshold(min(len(embedding), len(self._vectors[self._names.index(found.handle)])))
        if found.cosine < needed:
            raise NoNearVoice(found.handle, found.cosine, needed)
        return found

    def threshold(self, width: int) -> float:
        """The cosine that embeddings of `width` numbers need, to be taken for one voice."""
        return self._thresholds[max((d for d in self._thresholds if d <= width), default=min(self._thresholds))]

    def nearest(self, embedding: Sequence[float]) -> Resolved:
        """The nearest registered voice, however far it is. Raises `NoNearVoice` when none is registered."""
        vector = np.asarray(embedding, dtype=np.float32)
        if self._table is None:
            raise NoNearVoice("", 0.0, self.threshold(len(vector)))
        short = min(self._prefix, len(vector))
        table = self._table if short == self._prefix else np.stack([unit(v[:short]) for v in self._vectors])
        nearest = np.argsort(table @ unit(vector[:short]))[::-1][:CANDIDATES]
        best_name, best = "", -1.0
        for index in nearest:
            width = min(len(vector), len(self._vectors[index]))
            cosine = float(unit(vector[:width]) @ unit(self._vectors[index][:width]))
            if cosine > best:
                best_name, best = self._names[index], cosine
        return Resolved(best_name, min(best, 1.0))


def unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vector at length 1; zeros stay."""
    exact = vector.astype(np.float64)  # in which no float32 vector's length overflows or vanishes
    norm = float(np.linalg.norm(exact))
    return (exact / norm).astype(np.float32) if norm > 0 else vector

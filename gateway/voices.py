"""Voice id or embedding to voice handle, before any key is made.

An id is its own handle. An embedding resolves to the registered voice nearest by cosine, if that is near enough: found
on a short Matryoshka prefix, confirmed on all the numbers both sides have. Keys hold handles, never quantised
embeddings, which flip at cell borders.
"""

from __future__ import annotations

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
        super().__init__(f"no registered voice is near this embedding ({where}; at least {threshold:.2f} is needed)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The handle, and how near the embedding was to the registered one (1.0 for an id or an equal embedding)."""

    handle: str
    cosine: float = 1.0

    @property
    def exact(self) -> bool:
        return self.cosine >= 1.0 - 1e-6


class VoiceBook:
    """Registered embeddings of a tenant's voices."""

    def __init__(self, registered: Mapping[str, Sequence[float]], *, threshold: float = 0.85) -> None:
        self._threshold = threshold
        self._names = list(registered)
        self._vectors = [np.asarray(registered[name], dtype=np.float32) for name in self._names]
        for name, vector in zip(self._names, self._vectors, strict=True):
            if vector.ndim != 1 or len(vector) < 8 or not np.all(np.isfinite(vector)) or not np.any(vector):
                raise ValueError(f"voice '{name}': an embedding is at least 8 finite numbers, not all zero")
        width = min((len(v) for v in self._vectors), default=PREFIX)
        self._prefix = min(PREFIX, width)
        self._table = np.stack([_unit(v[: self._prefix]) for v in self._vectors]) if self._vectors else None

    def resolve(self, embedding: Sequence[float]) -> Resolved:
        """Raises `NoNearVoice` when no registered voice reaches the threshold."""
        vector = np.asarray(embedding, dtype=np.float32)
        if self._table is None:
            raise NoNearVoice("", 0.0, self._threshold)
        short = min(self._prefix, len(vector))
        table = self._table if short == self._prefix else np.stack([_unit(v[:short]) for v in self._vectors])
        nearest = np.argsort(table @ _unit(vector[:short]))[::-1][:CANDIDATES]
        best_name, best = "", -1.0
        for index in nearest:
            width = min(len(vector), len(self._vectors[index]))
            cosine = float(_unit(vector[:width]) @ _unit(self._vectors[index][:width]))
            if cosine > best:
                best_name, best = self._names[index], cosine
        if best < self._threshold:
            raise NoNearVoice(best_name, best, self._threshold)
        return Resolved(best_name, min(best, 1.0))


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm > 0 else vector
